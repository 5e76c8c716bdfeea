"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

from probes.runs.options import RunOptions
from probes.runs.spread import run_on_cluster
from probes.runs.verb import run

__all__ = ["RunOptions", "run", "run_on_cluster"]
