"""Corrections of embeddings by slide, case, domain or scanner, fitted on training rows alone.

What a group's vectors have in common is taken off them. Of groups that training has seen, training
rows say what that is; of others nothing is known (they are treated as training is as a whole), or,
transductively, their own unlabelled rows say it. Labels have no say in either.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from embedstore.errors import UsageError

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

COLUMNS = {"slide": "slide", "case": "case_id", "domain": "domain", "scanner": "scanner"}
"""By what vectors can be corrected, and which fact of a matrix says it."""
FEWEST = 5
"""A group of fewer rows says too little of itself; it is treated as one that is not known."""
ROUNDS, NEAR = 500, 1e-4
"""Of ComBat's iteration: its most steps, and the relative change it ends at (neuroCombat's)."""


@dataclass(frozen=True)
class Correction:
    """A kind of correction and the column it goes by.

    transductive: groups that training has not seen speak for themselves.
    """

    kind: str
    column: str
    transductive: bool = False

    @classmethod
    def parse(cls, text: str | None, *, transductive: bool) -> "Correction | None":
        """Return the correction that KIND:COLUMN names; UsageError where it is none."""
        if text is None:
            if transductive:
                raise UsageError("--transductive goes with --correct KIND:COLUMN")
            return None
        kind, _, column = text.partition(":")
        if kind not in CORRECTIONS or column not in COLUMNS:
            raise UsageError(
                f"unknown --correct '{text}'; allowed: {', '.join(CORRECTIONS)}, each with a colon "
                f"and {', '.join(COLUMNS)}, for example centre:slide"
            )
        return cls(kind, column, transductive)

    @property
    def params(self) -> dict[str, Any]:
        """Return what a run records of it."""
        said: dict[str, Any] = {"correct": f"{self.kind}:{self.column}"}
        return said | ({"transductive": True} if self.transductive else {})


def corrected(
    x: NDArray[np.floating],
    groups: NDArray[Any],
    train: Rows,
    others: Rows,
    correction: Correction,
) -> NDArray[np.float32]:
    """Return a copy of x (n, d) whose rows in train and others are corrected; the rest as they are.

    groups (n,) names each row's group, None where it has none: such a row is of no known group.
    Only train, and of the transductive kind rows of others in groups that training has not seen,
    decide anything.
    """
    out = np.array(x, dtype=np.float32)
    fit = CORRECTIONS[correction.kind](np.asarray(x[train], dtype=np.float64), groups[train])
    both = np.concatenate((train, others))
    of = _members(groups[both])
    for name, places in of.items():
        rows = both[places]
        data = np.asarray(x[rows], dtype=np.float64)
        if name in fit.of:
            out[rows] = fit.apply(data, fit.of[name])
        elif correction.transductive and name is not None and len(rows) >= FEWEST:
            out[rows] = fit.apply(data, fit.learn(data))
        else:
            out[rows] = fit.apply(data, fit.unknown)
    return out


@dataclass
class Fitted:
    """What training says: learn makes a group's statistics of its rows, apply takes them off.

    of: the statistics of each group that training knows; unknown: those of any other.
    """

    learn: Callable[[Floats], Any]
    apply: Callable[[Floats, Any], Floats]
    unknown: Any
    of: dict[Any, Any] = field(default_factory=dict)


def _members(groups: NDArray[Any]) -> dict[Any, Rows]:
    places: dict[Any, list[int]] = {}
    for n, name in enumerate(groups.tolist()):
        places.setdefault(name, []).append(n)
    return {name: np.array(of, dtype=np.intp) for name, of in places.items()}


def _learnt(fit: Fitted, x: Floats, groups: NDArray[Any]) -> Fitted:
    for name, places in _members(groups).items():
        if name is not None and len(places) >= FEWEST:
            fit.of[name] = fit.learn(x[places])
    return fit


def _centre(x: Floats, groups: NDArray[Any]) -> Fitted:
    fit = Fitted(lambda rows: rows.mean(axis=0), lambda rows, mean: rows - mean, x.mean(axis=0))
    return _learnt(fit, x, groups)


def _within(x: Floats, groups: NDArray[Any]) -> Floats:
    """Return rows less their group's mean, those of small groups less the whole mean."""
    out = x - x.mean(axis=0)
    for places in _members(groups).values():
        if len(places) >= FEWEST:
            out[places] = x[places] - x[places].mean(axis=0)
    return np.asarray(out)


def _whiten(x: Floats, groups: NDArray[Any]) -> Fitted:
    def learn(rows: Floats) -> tuple[Floats, Floats, Floats, float]:
        mean = rows.mean(axis=0)
        return mean, *_root(rows - mean)

    def apply(rows: Floats, of: tuple[Floats, Floats, Floats, float]) -> Floats:
        mean, directions, scales, rest = of
        less = rows - mean
        along = less @ directions.T
        return np.asarray(less * rest + (along * (scales - rest)) @ directions)

    return _learnt(Fitted(learn, apply, (x.mean(axis=0), *_root(_within(x, groups)))), x, groups)


def _root(less: Floats) -> tuple[Floats, Floats, float]:
    """Return the inverse root of a covariance: directions (r, d), scales (r,), and the rest's.

    Covariance of centred rows as Ledoit & Wolf (2004) shrink it towards its mean variance. Of fewer
    rows than dimensions all other directions have that variance, and one scale.
    """
    n, d = less.shape
    share = float(ledoit_wolf_shrinkage(less, assume_centered=True))
    level = float((less**2).mean())
    if level <= 0:
        return np.empty((0, d)), np.empty(0), 1.0
    _, lengths, directions = np.linalg.svd(less, full_matrices=False)
    variances = (1 - share) * lengths**2 / n + share * level
    floor = max(share * level, 1e-6 * level)
    return directions, 1 / np.sqrt(np.maximum(variances, floor)), float(1 / np.sqrt(floor))


def _combat(x: Floats, groups: NDArray[Any]) -> Fitted:
    """Return ComBat (Johnson et al. 2007), parametric, without covariates.

    As neuroCombat has it: standardised by the whole mean and the variance within groups, each
    group's shift and scale by empirical Bayes over the dimensions.
    """
    less = _within(x, groups)
    mean, spread = x.mean(axis=0), np.sqrt((less**2).mean(axis=0))
    spread = np.where(spread > 0, spread, 1.0)

    def learn(rows: Floats) -> tuple[Floats, Floats]:
        return _bayes((rows - mean) / spread)

    def apply(rows: Floats, of: tuple[Floats, Floats]) -> Floats:
        shift, variance = of
        return np.asarray(((rows - mean) / spread - shift) / np.sqrt(variance) * spread + mean)

    nothing = np.zeros(x.shape[1]), np.ones(x.shape[1])
    return _learnt(Fitted(learn, apply, nothing), x, groups)


def _bayes(z: Floats) -> tuple[Floats, Floats]:
    """Return the shift and variance of each dimension (d,) of standardised rows (n, d)."""
    n = len(z)
    shift, variance = z.mean(axis=0), z.var(axis=0, ddof=1)
    prior, wide = shift.mean(), shift.var(ddof=1)
    m, s2 = variance.mean(), variance.var(ddof=1)
    if wide <= 0 or s2 <= 0:
        return shift, np.where(variance > 0, variance, 1.0)
    a, b = (2 * s2 + m**2) / s2, (m * s2 + m**3) / s2
    g_old, d_old = shift, variance
    for _ in range(ROUNDS):
        g_new = (wide * n * shift + d_old * prior) / (wide * n + d_old)
        d_new = (0.5 * ((z - g_new) ** 2).sum(axis=0) + b) / (n / 2 + a - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = max(
                float(np.max(np.abs(g_new - g_old) / np.abs(g_old))),
                float(np.max(np.abs(d_new - d_old) / d_old)),
            )
        g_old, d_old = g_new, d_new
        if moved <= NEAR:
            break
    return g_old, d_old


CORRECTIONS: dict[str, Callable[[Floats, NDArray[Any]], Fitted]] = {
    "centre": _centre,
    "whiten": _whiten,
    "combat": _combat,
}
"""Kinds of correction by name; a new one is a function and a row here."""
