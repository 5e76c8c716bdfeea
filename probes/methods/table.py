"""The probes by name: what each is, and how an unfitted one is made; a new one is a row here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

USUAL = "uni"
"""The method where none is asked for."""
TARGETS = ("label", "domain")
"""What a probe can learn."""


@dataclass(frozen=True)
class Method:
    """A probe: what `--help` says of it, and what makes an unfitted one in scikit-learn's grammar.

    make imports what it needs itself, so that this table costs nothing to read.
    """

    about: str
    make: Callable[[], Any]


def _uni() -> Any:
    from probes.methods.linear import UniProbe

    return UniProbe()


def _logreg() -> Any:
    from probes.methods.linear import LogRegProbe

    return LogRegProbe()


def _knn() -> Any:
    from probes.methods.similarity import KnnProbe

    return KnnProbe()


def _prototype() -> Any:
    from probes.methods.similarity import PrototypeProbe

    return PrototypeProbe()


METHODS: dict[str, Method] = {
    USUAL: Method("softmax regression as in UNI (the default)", _uni),
    "logreg": Method("logistic regression, C chosen on validation", _logreg),
    "knn": Method("20 nearest neighbours", _knn),
    "prototype": Method("nearest class mean", _prototype),
}
