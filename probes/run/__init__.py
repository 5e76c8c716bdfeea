"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

from probes.run.options import RunOptions
from probes.run.verb import run

__all__ = ["RunOptions", "run"]
