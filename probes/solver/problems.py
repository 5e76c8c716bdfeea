"""What is solved: two labels, logistic loss, a penalty on v; and its parts, row by row.

f(v, b) = mean log(1 + exp(-s (x v + b))) + penalty(v), s = +1 for the positive rows, else -1. The
penalty is strength * ||v|| (UNI's, not squared) or strength / 2 * ||v||^2. b is free.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = NDArray[np.floating]
Indices = NDArray[np.intp]

TOLERANCE = 3e-7
"""How far above its minimum f may end, as a part of it."""

FLOOR = 1e-6
"""Where f is lower than this, its tolerance is a part of this: rows that separate without a penalty
have their minimum, zero, at infinity."""

MAX_ITER = 1000


@dataclass(frozen=True)
class Problem:
    """One fit on rows of a matrix that it shares with others.

    rows: positions in the matrix, each at most once; None stands for all. positive: bool, in the
    order of rows, both values present. tol: how far above the minimum to end, as a part of f, or of
    floor where f is lower. start: (v, b) to begin at, for a squared penalty; small
    problems need none and take none.
    """

    rows: Indices | None
    positive: NDArray[np.bool_]
    strength: float
    squared: bool = False
    tol: float = TOLERANCE
    floor: float = FLOOR
    max_iter: int = MAX_ITER
    start: tuple[Floats, float] | None = None


@dataclass(frozen=True)
class Solution:
    """v float64 (d,), b, f(v, b), iterations, and how far above the minimum f still may be.

    gap is an estimate, relative to f (or the floor). collapsed: v = 0 is optimal, the penalty
    outweighs every direction. converged: the gap is within the tolerance.
    """

    v: Floats
    b: float
    value: float
    n_iter: int
    gap: float
    collapsed: bool
    converged: bool


def log_odds(problem: Problem) -> float:
    """Return the optimal b where v = 0."""
    share = float(problem.positive.mean())
    return float(np.log(share / (1 - share)))


def losses(margin: Floats) -> Floats:
    """Return log(1 + exp(-margin)), stable at both ends."""
    result: Floats = np.log1p(np.exp(-np.abs(margin))) - np.minimum(margin, 0)
    return result


def derivatives(sign: Floats, z: Floats) -> tuple[Floats, Floats]:
    """Return the loss's first and second derivative by the logit z, row by row."""
    e = np.exp(-np.abs(sign * z))
    wrong = np.where(sign * z > 0, e, 1.0) / (1 + e)
    return -sign * wrong, wrong * (1 - wrong)


def penalty(problem: Problem, norm: float) -> tuple[float, float]:
    """Return the penalty at ||v|| = norm, and r, its gradient being r * v (norm > 0)."""
    if problem.squared:
        return 0.5 * problem.strength * norm**2, problem.strength
    return problem.strength * norm, problem.strength / max(norm, np.finfo(float).tiny)


def check_finite(sums: NDArray[np.floating]) -> None:
    """Raise ValueError where sums over rows show that the rows are not finite."""
    if not np.isfinite(sums).all():
        raise ValueError("X holds NaN, infinity, or values too large for float32 products")
