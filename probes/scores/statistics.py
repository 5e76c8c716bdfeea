"""Uncertainty: the jackknife over slides or cases; pure.

Annotations of one slide are not independent, so slides (or cases) are left out, not annotations.
Intervals cover the drawing of test slides alone: not the drawing of training sets, nor training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from probes.scores.metrics import METRICS, Codes, Floats, evaluate

Weighted = NDArray[np.floating]

CONFIDENCE = 0.95
KIND = "jackknife"
"""What intervals are, as results record it."""

MAX_BLOCKS = 200
"""Of more groups, so many blocks of them are left out in turn."""

NOTHING = 1e-9
"""A deviation below this is of rounding: slides that all say the same say nothing of how sure."""

CHUNK = 2**22
"""Weights held at a time."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value with the bounds of its interval; NaN where there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Blocks:
    """What is left out in turn: the block of each annotation (n,), and how many each holds (B,).

    n_groups: the slides or cases that the blocks are made of.
    """

    of: NDArray[np.intp]
    sizes: NDArray[np.intp]
    n_groups: int

    @property
    def n(self) -> int:
        """Return how many blocks there are."""
        return len(self.sizes)

    @property
    def freedom(self) -> float:
        """Degrees of freedom: the blocks that these are worth by their sizes (Kish), less one.

        Of a few large slides and many small ones the large ones decide. At least one.
        """
        return max(float(self.sizes.sum() ** 2 / (self.sizes**2).sum()) - 1, 1.0)

    def weights(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return weights (stop - start, n): each row without one block."""
        is_left: NDArray[np.bool_] = self.of != np.arange(start, stop)[:, None]
        return is_left.astype(np.float32)


def blocks_of(groups: Sequence[str]) -> Blocks:
    """Return the blocks of groups (n,): each its own, or MAX_BLOCKS blocks of several."""
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    of = of % min(len(names), MAX_BLOCKS)
    return Blocks(of, np.bincount(of), len(names))


def jackknife(
    y: Codes,
    p: Floats,
    groups: Sequence[str],
    cut: float,
    *,
    names: Sequence[str] | None = None,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Estimate]:
    """Return each metric with its interval: groups left out in turn, on the scale of log-odds.

    y (n,), p (n, K) and groups (n,) are of the same test annotations; partial and decision as in
    `evaluate`. names None: all metrics. The deviation of leaving out one group at a time (Tukey
    1958; of more than MAX_BLOCKS groups, one block of them) times Student's t, with as many degrees
    of freedom as the groups are worth by their sizes. No interval where there are fewer than two
    groups, where one of them holds all of a label, or where the value is 0 or 1: how far off that
    may be the slides do not say.
    """
    names = tuple(METRICS) if names is None else names

    def values(w: Weighted) -> dict[str, Floats]:
        return evaluate(y, p, w, cut, names, partial=partial, decision=decision)

    value, blocks = values(np.ones((1, len(y)))), blocks_of(groups)
    if blocks.n < 2:
        return {name: Estimate(float(value[name][0]), np.nan, np.nan) for name in names}
    step = max(1, CHUNK // len(y))
    parts = [
        values(blocks.weights(start, min(start + step, blocks.n)))
        for start in range(0, blocks.n, step)
    ]
    estimates = {}
    for name in names:
        of_all = float(value[name][0])
        without = np.concatenate([part[name] for part in parts])
        estimates[name] = Estimate(of_all, *interval(of_all, without, blocks, len(y)))
    return estimates


def interval(value: float, without: Floats, blocks: Blocks, n: int) -> tuple[float, float]:
    """Return the bounds around a value between 0 and 1, or of a sum of such; NaN if none."""
    top = 1.0 if max(value, without.max()) <= 1 else 2.0  # a Brier score of several labels
    if not 0 < value < top or not np.isfinite(without).all():
        return float("nan"), float("nan")
    # Without a slide 0 or 1 may be left, taken as half an annotation from it, beyond the value.
    share = value / top
    edge = min(0.5 / n, share / 2, (1 - share) / 2)
    odds = _logit(np.clip(without / top, edge, 1 - edge))
    middle, reach = _logit(np.float64(share)), reach_of(odds, blocks)
    if reach < NOTHING:
        return float("nan"), float("nan")
    low, high = (float(top / (1 + np.exp(-(middle + side * reach)))) for side in (-1, 1))
    return low, high


def _logit(share: Floats | np.float64) -> Floats:
    return np.asarray(np.log(share / (1 - share)))


def deviation_of(without: Floats) -> float:
    """Return the jackknife's standard error of what was found without each block in turn."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def reach_of(without: Floats, blocks: Blocks) -> float:
    """Return how far an interval reaches: the standard error times Student's t."""
    return float(t.ppf((1 + CONFIDENCE) / 2, blocks.freedom)) * deviation_of(without)


@dataclass(frozen=True)
class Comparison:
    """A paired difference a - b: its value, interval, two-sided p-value and standard error."""

    difference: float
    low: float
    high: float
    p_value: float
    error: float = float("nan")
