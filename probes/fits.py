"""Probes by name, fitted on rows of one matrix: what each fit learnt, and its probabilities."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from probes.linear import UniProbe
from probes.similarity import KnnProbe, PrototypeProbe
from probes.slices import Matrix, Rows

Floats = NDArray[np.float64]

METHODS: dict[str, Callable[[], Any]] = {
    "uni": UniProbe,
    "knn": KnnProbe,
    "prototype": PrototypeProbe,
}
"""Probe by name: a function that makes an unfitted classifier in scikit-learn's grammar."""


@dataclass(frozen=True)
class Task:
    """One fit: rows of the matrix and, for each annotation of it, its label's code."""

    method: str
    rows: dict[str, Rows]
    codes: NDArray[np.intp]
    n_labels: int


@dataclass(frozen=True)
class Fit:
    """What came of a task; state is ok, collapsed or not converged, chosen what fit decided."""

    probe: Any
    state: str
    seconds: float
    chosen: dict[str, Any] = field(default_factory=dict)


def fit_tasks(
    matrix: Matrix, tasks: Sequence[Task], on_progress: Callable[[int, int], None]
) -> list[Fit]:
    """Return the fit of each task, in order; on_progress(done, total) counts fits."""
    fits = []
    for n, task in enumerate(tasks):
        on_progress(n, len(tasks))
        started = time.perf_counter()
        probe = METHODS[task.method]()
        train = task.rows["train"]
        codes = np.repeat(task.codes[train], matrix.places.shape[1])
        probe.fit(matrix.vectors(train), codes)
        check_labels(task, probe.classes_)
        state = "ok" if getattr(probe, "converged_", True) else "not converged"
        if getattr(probe, "collapsed_", False):
            state = "collapsed"
        fits.append(Fit(probe, state, time.perf_counter() - started))
    on_progress(len(tasks), len(tasks))
    return fits


def check_labels(task: Task, classes: Sequence[Any]) -> None:
    """Raise EmbedstoreError where train lacks labels that the manifest has."""
    if len(classes) != task.n_labels:
        raise EmbedstoreError(
            f"{task.method} was trained on {len(classes)} of {task.n_labels} labels; the manifest "
            "lacks some in train"
        )


def probabilities(fit: Fit, matrix: Matrix, rows: Rows) -> Floats:
    """Return float64 (n, K) of annotations by number; with views the mean over an annotation's."""
    if not len(rows):
        return np.empty((0, len(fit.probe.classes_)))
    each = np.asarray(fit.probe.predict_proba(matrix.vectors(rows)), dtype=np.float64)
    return np.asarray(each.reshape(len(rows), -1, each.shape[1]).mean(axis=1))
