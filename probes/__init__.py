"""Linear probes on slices of the embeddings: splits, fits, scores, results.

The verbs of the command `probes` are functions here: `probes.run(store, "midog")`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.methods.linear import LogRegProbe, UniProbe
    from probes.methods.similarity import KnnProbe, PrototypeProbe
    from probes.python.evaluating import evaluate
    from probes.python.fitting import run, split
    from probes.python.judging import compare, predict, report, verify
    from probes.python.labelling import copies, doubtful, raters, rescore, suggest
    from probes.python.studying import fusion, gap, likeness, reproduce, robustness, shots

__all__ = [
    "KnnProbe",
    "LogRegProbe",
    "PrototypeProbe",
    "UniProbe",
    "compare",
    "copies",
    "doubtful",
    "evaluate",
    "fusion",
    "gap",
    "likeness",
    "predict",
    "raters",
    "report",
    "reproduce",
    "rescore",
    "robustness",
    "run",
    "shots",
    "split",
    "suggest",
    "verify",
]

_HOMES = {
    "methods.linear": ("LogRegProbe", "UniProbe"),
    "methods.similarity": ("KnnProbe", "PrototypeProbe"),
    "python.evaluating": ("evaluate",),
    "python.fitting": ("run", "split"),
    "python.judging": ("compare", "predict", "report", "verify"),
    "python.labelling": ("copies", "doubtful", "raters", "rescore", "suggest"),
    "python.studying": ("fusion", "gap", "likeness", "reproduce", "robustness", "shots"),
}
"""What takes its time to import, and is imported once it is asked for."""
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'probes' has no attribute '{name}'")
    return getattr(import_module(f"probes.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
