"""Linear probes fitted many at once, on one matrix, in as few reads of it as it takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.utils.multiclass import check_classification_targets

from probes.solver import solver
from probes.solver.problems import (
    FLOOR,
    Floats,
    Indices,
    Matrix,
    Problem,
    Solution,
)
from probes.solver.softmax import BLOCK, Softmax, fit_softmax

if TYPE_CHECKING:
    from probes.methods.linear import LinearProbe

COARSE, COARSE_FLOOR, COARSE_ITER = 1e-4, 1e-3, 100
"""Tolerance, floor and most steps of the fits among which C is chosen. Where rows separate and C is
large, the optimum is far off and of no use: the objective is within 1e-7 of it, validation is not.
The fit that is chosen goes on to the probe's own tolerance."""


@dataclass(frozen=True)
class Task:
    """A probe to fit: on which rows of the matrix (None: all), with which labels.

    val_rows, y_val: validation, for a probe that chooses by it. No row may be named twice.
    """

    probe: "LinearProbe"
    rows: Indices | None
    y: NDArray[Any]
    val_rows: Indices | None = None
    y_val: NDArray[Any] | None = None


@dataclass
class _Fit:
    """A task with its labels as codes and the values of C to fit."""

    task: Task
    codes: Indices
    val_codes: Indices
    costs: NDArray[np.float64]

    def strength(self, cost: float) -> float:
        return self.task.probe.strength(cost, len(self.codes), len(self.task.probe.classes_))


def fit_many(
    X: Matrix,  # noqa: N803
    tasks: Sequence[Task],
    *,
    n_threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> "list[LinearProbe]":
    """Return the tasks' probes, fitted on one matrix X (n, d) in as few reads of it as it takes.

    Each comes out as if it were fitted alone, to its tolerance. ValueError (before anything is
    fitted) where labels have one class, rows are named twice or out of range; where X isn't finite.
    """
    fits = [_prepare(X, task) for task in tasks]
    two = [f for f in fits if len(f.task.probe.classes_) == 2]
    first = [(f, cost) for f in two for cost in f.costs]
    todo = [_problem(f, cost, coarse=len(f.costs) > 1) for f, cost in first]
    n_all = len(todo) + sum(len(f.costs) > 1 for f in two) + len(fits) - len(two)
    solutions = solver.fit_many(
        X, todo, n_threads=n_threads, on_progress=lambda done, total: on_progress(done, n_all)
    )
    start, again = 0, []
    for f in two:
        of_fit = solutions[start : start + len(f.costs)]
        start += len(f.costs)
        if len(of_fit) == 1:
            _store(f.task.probe, f.costs[0], _both(of_fit[0]))
            continue
        best = _choose(X, f, [_both(s) for s in of_fit])
        again.append((f, f.costs[best], _problem(f, f.costs[best], start=of_fit[best])))
    final = solver.fit_many(
        X,
        [p for _, _, p in again],
        n_threads=n_threads,
        on_progress=lambda done, total: on_progress(len(todo) + done, n_all),
    )
    for (f, cost, _), solution in zip(again, final, strict=True):
        _store(f.task.probe, cost, _both(solution))
    for k, f in enumerate(f for f in fits if len(f.task.probe.classes_) > 2):
        _fit_softmax(X, f)
        on_progress(len(todo) + len(again) + k + 1, n_all)
    return [task.probe for task in tasks]


def _prepare(x: Matrix, task: Task) -> _Fit:
    """Return the task's codes and candidates; sets classes_ and n_features_in_ of its probe."""
    probe, name = task.probe, type(task.probe).__name__
    labels = np.asarray(task.y)
    check_classification_targets(labels)
    probe.classes_, codes = np.unique(labels, return_inverse=True)
    probe.n_features_in_ = x.shape[1]
    if len(probe.classes_) < 2:
        raise ValueError(f"{name} needs two or more classes, y has one class: {probe.classes_}")
    for rows, y in ((task.rows, task.y), (task.val_rows, task.y_val)):
        n = len(x) if rows is None else len(rows)
        if y is not None and len(y) != n:
            raise ValueError(f"{name}: {n} rows, but {len(y)} labels")
        if rows is not None and n and not 0 <= rows.min() <= rows.max() < len(x):
            raise ValueError(f"{name}: rows lie outside 0..{len(x) - 1}")
        if rows is not None and n and np.bincount(rows).max() > 1:
            raise ValueError(f"{name}: row {np.bincount(rows).argmax()} is named twice")
    val = np.asarray([] if task.y_val is None else task.y_val)
    is_known = np.isin(val, probe.classes_)
    if not is_known.all():
        raise ValueError(f"{name}: validation has labels that y lacks: {np.unique(val[~is_known])}")
    val_codes = np.searchsorted(probe.classes_, val) if len(val) else np.zeros(0, dtype=np.intp)
    costs = probe.candidates(x.shape[1], len(probe.classes_), choose=len(np.unique(val_codes)) > 1)
    return _Fit(task, codes, val_codes, costs)


def _problem(
    f: _Fit, cost: float, *, coarse: bool = False, start: Solution | None = None
) -> Problem:
    probe = f.task.probe
    return Problem(
        f.task.rows,
        f.codes == 1,
        f.strength(cost),
        probe.squared,
        tol=max(COARSE, probe.tol) if coarse else probe.tol,
        floor=COARSE_FLOOR if coarse else FLOOR,
        max_iter=min(COARSE_ITER, probe.max_iter) if coarse else probe.max_iter,
        start=None if start is None else (start.v, start.b),
    )


def _both(s: Solution) -> Softmax:
    """Return a solution over v as one over W = [-v/2, v/2]."""
    w, b = np.stack((-s.v, s.v)) / 2, np.array([-s.b, s.b]) / 2
    return Softmax(w, b, s.value, s.n_iter, s.collapsed, s.converged)


def _choose(x: Matrix, f: _Fit, solutions: Sequence[Softmax]) -> int:
    """Return which solution has the lowest validation log-loss."""
    w, b = np.concatenate([s.w for s in solutions]), np.concatenate([s.b for s in solutions])
    z = logits(x, f.task.val_rows, w, b).reshape(len(f.val_codes), len(solutions), -1)
    right = log_softmax(z, axis=2)[np.arange(len(z)), :, f.val_codes]
    f.task.probe.val_losses_ = -right.mean(axis=0)
    return int(np.argmin(f.task.probe.val_losses_))


def _fit_softmax(x: Matrix, f: _Fit) -> None:
    """Fit a task of more than two labels along its values of C, each from the one before."""
    probe, rows = f.task.probe, f.task.rows
    data: Any = x if rows is None else x[rows] if isinstance(x, np.ndarray) else x.chosen(rows)
    solutions: list[Softmax] = []
    for cost in f.costs:
        start = solutions[-1] if solutions else None
        solutions.append(
            fit_softmax(
                data,
                f.codes,
                f.strength(cost),
                squared=probe.squared,
                max_iter=probe.max_iter,
                start=start,
            )
        )
    best = _choose(x, f, solutions) if len(solutions) > 1 else 0
    _store(probe, f.costs[best], solutions[best])


def _store(probe: "LinearProbe", cost: float, solution: Softmax) -> None:
    probe.cost_ = float(cost)
    probe.coef_, probe.intercept_ = solution.w, solution.b
    probe.objective_, probe.n_iter_ = solution.value, max(solution.n_iter, 1)
    probe.collapsed_, probe.converged_ = solution.collapsed, solution.converged


def logits(x: Matrix, rows: Indices | None, w: Floats, b: Floats) -> Floats:
    """Return x[rows] @ w' + b, float64 (n, len(w)), block by block."""
    n = len(x) if rows is None else len(rows)
    result = np.empty((n, len(w)))
    for i in range(0, n, BLOCK):
        block = x[i : i + BLOCK] if rows is None else x[rows[i : i + BLOCK]]
        result[i : i + BLOCK] = block @ w.T + b
    return result
