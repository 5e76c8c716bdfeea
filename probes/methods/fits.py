"""Probes fitted on rows of one matrix, or taken from the record; their probabilities."""

import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import softmax

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch
from probes.methods import together
from probes.methods.corrections import COLUMNS, Correction, corrected
from probes.methods.linear import LinearProbe, LogRegProbe
from probes.methods.odds import log_odds
from probes.methods.table import METHODS
from probes.slices import Matrix, Rows, mean_odds

Floats = NDArray[np.float64]

SCORED_TOGETHER = 16
"""Linear probes whose logits are computed in one read of the matrix."""


def linear_methods() -> list[str]:
    """Return the methods that learn coefficients; `probes run` records these."""
    return [name for name, row in METHODS.items() if isinstance(row.make(), LinearProbe)]


@dataclass(frozen=True)
class Task:
    """One fit: rows of the matrix by role and, for each annotation of it, its label's code."""

    method: str
    rows: dict[str, Rows]
    codes: NDArray[np.intp]
    n_labels: int


@dataclass
class Fit:
    """What came of a task; state is ok, collapsed or not converged, chosen what fit decided.

    version is that of the table of embeddings it was fitted on.
    logits float64 (n, K) are of all rows of the matrix that a linear probe was fitted on.
    """

    probe: Any
    state: str
    seconds: float
    version: int
    chosen: dict[str, Any] = field(default_factory=dict)
    logits: Floats | None = None

    def scores(
        self, matrix: Matrix, rows: Rows, *, own: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Return probabilities and log-odds, float64 (n, K), of annotations by number.

        With views the probabilities are the mean over each one's. None in place of log-odds where a
        probe has no logits: its probabilities rank. own says that the matrix is the one it was
        fitted on.
        """
        n_labels = len(self.probe.classes_)
        if not len(rows):
            return np.empty((0, n_labels)), None
        n_views = matrix.places.shape[1]
        if not isinstance(self.probe, LinearProbe):
            each = np.asarray(self.probe.predict_proba(matrix.vectors(rows)), dtype=np.float64)
            return np.asarray(each.reshape(len(rows), n_views, n_labels).mean(axis=1)), None
        places = matrix.places[rows].ravel()
        if own and self.logits is not None:
            z = self.logits[places]
        else:
            z = together.logits(matrix.X, places, self.probe.coef_, self.probe.intercept_)
        each = softmax(z, axis=1).reshape(len(rows), n_views, n_labels)
        return np.asarray(each.mean(axis=1)), log_odds(z, n_views)


@dataclass
class MeanFit(Fit):
    """The mean of the log-odds of several models' fits, each on its own matrix."""

    parts: Sequence[tuple[Matrix, Fit]] = ()

    @classmethod
    def of(cls, parts: Sequence[tuple[Matrix, Fit]]) -> "MeanFit":
        """Return the mean of these; its state is that of the first which did not go well."""
        fits = [fit for _, fit in parts]
        state = next((f.state for f in fits if f.state != "ok"), "ok")
        seconds = sum(f.seconds for f in fits)
        return cls(None, state, seconds, fits[0].version, parts=parts)

    def scores(
        self, matrix: Matrix, rows: Rows, *, own: bool = True
    ) -> tuple[Floats, Floats | None]:
        """Return the same as a fit does, of annotations by their numbers in the first matrix."""
        if not len(rows):
            return self.parts[0][1].scores(matrix, rows)
        ids = matrix.ids[rows].tolist()
        return mean_odds([fit.scores(m, m.rows_of(ids)) for m, fit in self.parts])


def corrected_matrix(matrix: Matrix, rows: Mapping[str, Rows], correction: Correction) -> Matrix:
    """Return the matrix with the vectors of a split's rows corrected: see `corrected`."""
    groups = np.full(len(matrix.X), None, dtype=object)
    groups[matrix.places] = matrix.facts[COLUMNS[correction.column]][:, None]
    places = {role: matrix.places[of].ravel() for role, of in rows.items()}
    others = np.concatenate([of for role, of in places.items() if role != "train"])
    made = copy.copy(matrix)
    made.X = corrected(matrix.X, groups, places["train"], others, correction)
    return made


def fit_tasks(
    matrix: Matrix, tasks: Sequence[Task], on_progress: Callable[[int, int], None]
) -> list[Fit]:
    """Return the fit of each task, in order; on_progress(done, total) counts fits.

    Linear probes are fitted all at once, in as few reads of the matrix as it takes.
    """
    for task in tasks:
        n_known = len(np.unique(task.codes[task.rows["train"]]))
        if n_known != task.n_labels:
            raise EmbedstoreError(
                f"a split's train holds {n_known} of the {task.n_labels} labels (or domains) to "
                "learn; take a larger --fraction, or leave the rare ones out with --where"
            )
    fits: dict[int, Fit] = {}
    linear = [k for k, t in enumerate(tasks) if t.method in linear_methods()]
    if linear:
        fits |= dict(
            zip(linear, _linear(matrix, [tasks[k] for k in linear], on_progress), strict=True)
        )
    for k, task in enumerate(tasks):
        if k not in fits:
            started = time.perf_counter()
            probe = METHODS[task.method].make()
            train = task.rows["train"]
            probe.fit(matrix.vectors(train), _codes(matrix, task, "train"))
            state = "collapsed" if getattr(probe, "collapsed_", False) else "ok"
            fits[k] = Fit(probe, state, time.perf_counter() - started, matrix.version)
            on_progress(len(fits), len(tasks))
    return [fits[k] for k in range(len(tasks))]


def recorded_fits(
    store: Store, methods: Mapping[str, str], order: Sequence[str], embedded_at: datetime | None
) -> dict[str, tuple[Fit, float]]:
    """Return, of runs (run id: method), the linear fits on record and their thresholds, by run id.

    Only those that still stand: of the labels in `order` and of embeddings of that age.
    """
    con = connect_to(store, "probes", "results")
    con.register("_ids", pa.table({"run_id": pa.array(list(methods), pa.string())}))
    recorded = fetch(
        con,
        "select p.run_id, p.coef, p.intercept, p.threshold, r.* exclude (run_id) from _probes p "
        "join (select run_id, any_value(state) as state, any_value(seconds) as seconds, "
        "any_value(chosen) as chosen, any_value(embeddings_version) as version from _results "
        "join _ids using (run_id) where eval_dataset is null group by 1 "
        "having max(embedded_at) is not distinct from $at) r using (run_id) "
        "where p.labels = $labels",
        {"at": embedded_at, "labels": list(order)},
    )
    fits = {}
    for row in recorded.to_pylist():
        probe = METHODS[methods[row["run_id"]]].make()
        probe.classes_ = np.arange(len(order))
        probe.coef_ = np.reshape(row["coef"], (len(order), -1))
        probe.intercept_ = np.array(row["intercept"])
        chosen = json.loads(row["chosen"]) if row["chosen"] else {}
        fit = Fit(probe, row["state"], row["seconds"], row["version"], chosen)
        fits[row["run_id"]] = fit, row["threshold"]
    return fits


def _codes(matrix: Matrix, task: Task, role: str) -> NDArray[np.intp]:
    """Return the code of each row of a role; with views, of each view."""
    return np.repeat(task.codes[task.rows[role]], matrix.places.shape[1])


def _linear(
    matrix: Matrix, tasks: Sequence[Task], on_progress: Callable[[int, int], None]
) -> list[Fit]:
    started = time.perf_counter()
    places = matrix.places

    def tell(done: int, total: int) -> None:
        on_progress(done * len(tasks) // max(total, 1), len(tasks))

    probes = together.fit_many(
        matrix.X,
        [
            together.Task(
                METHODS[t.method].make(),
                places[t.rows["train"]].ravel(),
                _codes(matrix, t, "train"),
                places[t.rows["val"]].ravel(),
                _codes(matrix, t, "val"),
            )
            for t in tasks
        ],
        on_progress=tell,
    )
    seconds = (time.perf_counter() - started) / len(tasks)
    fits = [Fit(p, _state(p), seconds, matrix.version, _chosen(p)) for p in probes]
    for start in range(0, len(fits), SCORED_TOGETHER):
        scored = fits[start : start + SCORED_TOGETHER]
        w = np.concatenate([f.probe.coef_ for f in scored])
        b = np.concatenate([f.probe.intercept_ for f in scored])
        z = together.logits(matrix.X, None, w, b)
        ends = np.cumsum([len(f.probe.coef_) for f in scored])
        for fit, of in zip(scored, np.split(z, ends[:-1], axis=1), strict=True):
            fit.logits = of
            if fit.state == "ok" and _is_flat(of):
                fit.state = "collapsed"
    return fits


def _is_flat(logits: Floats) -> bool:
    """Return whether all rows have the same logits, but for rounding: the intercept says it all."""
    odds = logits[:, 1:] - logits[:, :1]
    spread = np.ptp(odds, axis=0) if len(odds) else np.zeros(1)
    return bool((spread <= 4 * np.finfo(np.float64).eps * np.abs(odds).max(initial=0)).all())


def _state(probe: LinearProbe) -> str:
    if probe.collapsed_:
        return "collapsed"
    return "ok" if probe.converged_ else "not converged"


def _chosen(probe: LinearProbe) -> dict[str, Any]:
    if isinstance(probe, LogRegProbe):
        return {"C": probe.cost_, "by": probe.choice_}
    return {"C": probe.cost_}
