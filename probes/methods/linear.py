"""The linear probes: classifiers in scikit-learn's grammar, fitted alone or many at once.

`uni` (Chen et al. 2024), minimised to its optimum rather than to a step limit. Over W (K x d) and
b (K,): mean softmax cross-entropy + (1/C) * 0.5 * ||W||_F with C = d * K / 100. The norm is not
squared; b is not penalised; nothing is scaled or weighted.

`logreg`: logistic regression with the squared penalty and scikit-learn's C, chosen on validation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.solver import solver
from probes.solver.problems import (
    FLOOR,
    MAX_ITER,
    TOLERANCE,
    Floats,
    Indices,
    Matrix,
    Problem,
    Solution,
)
from probes.solver.softmax import BLOCK, Softmax, fit_softmax

C_GRID = 10 ** np.linspace(-6, 5, 20)
"""Values of C for `logreg` to choose from: the range of DINOv2's linear evaluation."""

UNI_TOLERANCE = 5e-7
"""How far above its minimum `uni` may end, as a part of it. `logreg` has the solver's own, which is
less: with this one a fit at C = 1e4 ended more than 1e-6 above its minimum."""

COARSE, COARSE_FLOOR, COARSE_ITER = 1e-4, 1e-3, 100
"""Tolerance, floor and most steps of the fits among which C is chosen. Where rows separate and C is
large, the optimum is far off and of no use: the objective is within 1e-7 of it, validation is not.
The fit that is chosen goes on to the probe's own tolerance."""


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the probes share.

    After fit, beside what each adds: classes_; coef_ float64 (K, d), for two labels
    v = coef_[1] - coef_[0] = 2 * coef_[1]; intercept_ float64 (K,); objective_ (the minimum);
    cost_ (C); n_iter_; collapsed_ (W = 0 is optimal: the penalty outweighs every direction);
    converged_.
    """

    squared: ClassVar[bool]
    max_iter: int
    tol: float

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return the values of C to fit; more than one only where validation will choose."""
        raise NotImplementedError

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return the factor of the penalty (on v for two labels, on W for more) for C = cost."""
        raise NotImplementedError

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Fit to X (n, d) and labels y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        fit_many(data, [Task(self, None, labels)])
        return self

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return logits: float64 (n,) of the second class for two classes, else (n, K)."""
        z = self._logits(X)
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def _logits(self, X: ArrayLike) -> Floats:  # noqa: N803
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return logits(data, None, self.coef_, self.intercept_)

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        result: Floats = softmax(self._logits(X), axis=1)
        return result

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


class UniProbe(LinearProbe):
    """UNI's probe: softmax regression with the norm as penalty, C = d * K / 100; no choices."""

    squared = False

    def __init__(self, max_iter: int = MAX_ITER, tol: float = UNI_TOLERANCE) -> None:
        """Store max_iter (steps) and tol (how far above the minimum to end, relative to it)."""
        self.max_iter = max_iter
        self.tol = tol

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return UNI's C alone."""
        return np.array([d * n_classes / 100])

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return 0.5 / C; for two labels ||W||_F = ||v|| / sqrt(2), since W = [-v/2, v/2]."""
        return 0.5 / cost / (np.sqrt(2) if n_classes == 2 else 1)


class LogRegProbe(LinearProbe):
    """Logistic regression, squared penalty: scikit-learn's at the same C.

    The objective is mean log-loss + ||v||^2 / (2 n C) (for more than two labels W's norm). Given
    validation rows, C is the value of C_GRID with the lowest validation log-loss, the smaller one
    of equals. After fit also: choice_ ('given', 'validation', or 'default': C = 1 where validation
    is absent or has one label), val_losses_ (float64 by C_GRID, or None).
    """

    squared = True

    def __init__(
        self,
        C: float | None = None,  # noqa: N803
        max_iter: int = MAX_ITER,
        tol: float = TOLERANCE,
    ) -> None:
        """Store C (None: chosen on validation), max_iter and tol as for UniProbe."""
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return the grid where validation chooses, else C or its default."""
        self.choice_ = "given" if self.C is not None else "validation" if choose else "default"
        self.val_losses_: Floats | None = None
        return C_GRID if self.choice_ == "validation" else np.array([self.C or 1.0])

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return 1 / (n C)."""
        return 1 / (n * cost)


@dataclass(frozen=True)
class Task:
    """A probe to fit: on which rows of the matrix (None: all), with which labels.

    val_rows, y_val: validation, for a probe that chooses by it. No row may be named twice.
    """

    probe: LinearProbe
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
) -> list[LinearProbe]:
    """Return the tasks' probes, fitted on one matrix X (n, d) in as few reads of it as it takes.

    Each comes out as if it were fitted alone, to its tolerance. ValueError (before anything is
    fitted) where labels have one class, rows are named twice or out of range; where X isn't finite.
    """
    fits = [_prepare(X, task) for task in tasks]
    two = [f for f in fits if len(f.task.probe.classes_) == 2]
    first = [(f, cost) for f in two for cost in f.costs]
    todo = [_problem(f, cost, coarse=len(f.costs) > 1) for f, cost in first]
    n_all = len(todo) + sum(len(f.costs) > 1 for f in two) + len(fits) - len(two)
    found = solver.fit_many(
        X, todo, n_threads=n_threads, on_progress=lambda done, total: on_progress(done, n_all)
    )
    at, again = 0, []
    for f in two:
        mine = found[at : at + len(f.costs)]
        at += len(f.costs)
        if len(mine) == 1:
            _store(f.task.probe, f.costs[0], _both(mine[0]))
            continue
        best = _choose(X, f, [_both(s) for s in mine])
        again.append((f, f.costs[best], _problem(f, f.costs[best], start=mine[best])))
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
    known = np.isin(val, probe.classes_)
    if not known.all():
        raise ValueError(f"{name}: validation has labels that y lacks: {np.unique(val[~known])}")
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


def _choose(x: Matrix, f: _Fit, found: Sequence[Softmax]) -> int:
    """Return which solution has the lowest validation log-loss."""
    w, b = np.concatenate([s.w for s in found]), np.concatenate([s.b for s in found])
    z = logits(x, f.task.val_rows, w, b).reshape(len(f.val_codes), len(found), -1)
    right = log_softmax(z, axis=2)[np.arange(len(z)), :, f.val_codes]
    f.task.probe.val_losses_ = -right.mean(axis=0)
    return int(np.argmin(f.task.probe.val_losses_))


def _fit_softmax(x: Matrix, f: _Fit) -> None:
    """Fit a task of more than two labels along its values of C, each from the one before."""
    probe, data = f.task.probe, x if f.task.rows is None else x[f.task.rows]
    found: list[Softmax] = []
    for cost in f.costs:
        start = found[-1] if found else None
        found.append(
            fit_softmax(
                data,
                f.codes,
                f.strength(cost),
                squared=probe.squared,
                max_iter=probe.max_iter,
                start=start,
            )
        )
    best = _choose(x, f, found) if len(found) > 1 else 0
    _store(probe, f.costs[best], found[best])


def _store(probe: LinearProbe, cost: float, found: Softmax) -> None:
    probe.cost_ = float(cost)
    probe.coef_, probe.intercept_ = found.w, found.b
    probe.objective_, probe.n_iter_ = found.value, max(found.n_iter, 1)
    probe.collapsed_, probe.converged_ = found.collapsed, found.converged


def logits(x: Matrix, rows: Indices | None, w: Floats, b: Floats) -> Floats:
    """Return x[rows] @ w' + b, float64 (n, len(w)), block by block."""
    n = len(x) if rows is None else len(rows)
    result = np.empty((n, len(w)))
    for i in range(0, n, BLOCK):
        block = x[i : i + BLOCK] if rows is None else x[rows[i : i + BLOCK]]
        result[i : i + BLOCK] = block @ w.T + b
    return result
