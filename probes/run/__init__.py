"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

from probes.run.options import RunOptions
from probes.run.spread import run_on_cluster
from probes.run.verb import run

__all__ = ["RunOptions", "run", "run_on_cluster"]
