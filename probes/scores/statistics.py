"""Uncertainty: the jackknife over slides or cases, of one test set or jointly of several; pure.

Annotations of one slide are not independent, so slides (or cases) are left out, not annotations.
Intervals cover the drawing of test slides alone: not the drawing of training sets, nor training.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
        estimates[name] = Estimate(of_all, *_interval(of_all, without, blocks, len(y)))
    return estimates


def _interval(value: float, without: Floats, blocks: Blocks, n: int) -> tuple[float, float]:
    """Return the bounds around a value between 0 and 1, or of a sum of such; NaN if none."""
    top = 1.0 if max(value, without.max()) <= 1 else 2.0  # a Brier score of several labels
    if not 0 < value < top or not np.isfinite(without).all():
        return float("nan"), float("nan")
    # Without a slide 0 or 1 may be left, taken as half an annotation from it, beyond the value.
    share = value / top
    edge = min(0.5 / n, share / 2, (1 - share) / 2)
    odds = _logit(np.clip(without / top, edge, 1 - edge))
    middle, reach = _logit(np.float64(share)), _reach(odds, blocks)
    if reach < NOTHING:
        return float("nan"), float("nan")
    low, high = (float(top / (1 + np.exp(-(middle + side * reach)))) for side in (-1, 1))
    return low, high


def _logit(share: Floats | np.float64) -> Floats:
    return np.asarray(np.log(share / (1 - share)))


def _deviation(without: Floats) -> float:
    """Return the jackknife's standard error of what was found without each block in turn."""
    n = len(without)
    return float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


def _reach(without: Floats, blocks: Blocks) -> float:
    return float(t.ppf((1 + CONFIDENCE) / 2, blocks.freedom)) * _deviation(without)


@dataclass(frozen=True)
class Comparison:
    """A paired difference a - b: its value, interval, two-sided p-value and standard error."""

    difference: float
    low: float
    high: float
    p_value: float
    error: float = float("nan")


@dataclass(frozen=True)
class Fold:
    """One test set scored by two methods: codes (n,), probabilities (n, K) of each, groups (n,).

    rank_a and rank_b (n, K) are what ranks its annotations; None: the probabilities.
    """

    y: Codes
    a: Floats
    b: Floats
    groups: Sequence[str]
    cut_a: float = 0.5
    cut_b: float = 0.5
    rank_a: Floats | None = None
    rank_b: Floats | None = None


def paired(folds: Sequence[Fold], metric: str = "auroc") -> Comparison:
    """Return the mean over folds of metric(a) - metric(b), groups left out jointly in all folds.

    Test sets of folds overlap, so a slide is left out of every fold that holds it, and no fold
    counts as a repetition of its own. Interval and two-sided p-value by Student's t, as for
    `jackknife`, on the scale of the metric. A fold that lacks a label without a group is left out
    with it; neither is given where no fold is left, with fewer than two groups, or where sides that
    differ do so alike without each.
    """
    tests = [
        test
        for f in folds
        for test in (
            Test(f.y, f.a, f.groups, f.cut_a, f.rank_a),
            Test(f.y, f.b, f.groups, f.cut_b, f.rank_b),
        )
    ]
    top = 2.0 if metric == "brier" and folds[0].a.shape[1] > 2 else 1.0
    return joint(tests, metric).contrast(lambda each: mean_of_folds(each[::2] - each[1::2]), top)


@dataclass(frozen=True)
class Test:
    """One test set scored by one method: codes (n,), probabilities (n, K), groups (n,).

    rank (n, K) is what ranks its annotations; None: the probabilities.
    """

    __test__: ClassVar[bool] = False  # none of pytest's

    y: Codes
    p: Floats
    groups: Sequence[str]
    cut: float = 0.5
    rank: Floats | None = None


@dataclass(frozen=True)
class Joint:
    """Values of several sets, float64 (F,), and without each block of their groups, (F, B).

    A group is left out of every set that holds it. sizes (F,): how many rows each set has.
    """

    values: Floats
    without: Floats
    blocks: Blocks
    sizes: NDArray[np.intp]

    def beside(self, other: "Joint") -> "Joint":
        """Return both values one above the other, (2F, B), of the same sets and groups."""
        assert np.array_equal(self.blocks.of, other.blocks.of)
        return Joint(
            np.concatenate((self.values, other.values)),
            np.concatenate((self.without, other.without)),
            self.blocks,
            np.concatenate((self.sizes, other.sizes)),
        )

    def contrast(self, of: Callable[[Floats], Floats], top: float = np.inf) -> Comparison:
        """Return what `of` makes of values (F, B) -> (B,), a difference between -top and top.

        NaN bounds and p-value where there are fewer than two groups, where it has no value without
        one of them, or where a difference is the same without each.
        """
        value, each = float(of(self.values[:, None])[0]), of(self.without)
        if self.blocks.n < 2 or not np.isfinite(each).all() or not np.isfinite(value):
            return Comparison(value, *(float("nan"),) * 3)
        deviation, reach = _deviation(each), _reach(each, self.blocks)
        if deviation < NOTHING:  # the same side twice, or nothing to tell how sure a difference is
            same = 1.0 if abs(value) < NOTHING else float("nan")
            return Comparison(value, value * same, value * same, same)
        p_value = float(2 * t.sf(abs(value) / deviation, self.blocks.freedom))
        bounds = max(value - reach, -top), min(value + reach, top)
        return Comparison(value, *bounds, p_value, deviation)

    def share(self, of: Callable[[Floats], Floats]) -> Estimate:
        """Return what `of` makes of values, between 0 and 1, with an interval as `jackknife`'s."""
        value, each = float(of(self.values[:, None])[0]), of(self.without)
        if self.blocks.n < 2 or not np.isfinite(value):
            return Estimate(value, np.nan, np.nan)
        return Estimate(value, *_interval(value, each, self.blocks, int(self.sizes.sum())))


def joint(tests: Sequence[Test], metric: str = "auroc") -> Joint:
    """Return a metric of each test set, and the same without each group of all of them."""

    def metric_of(test: Test) -> Callable[[Weighted], Floats]:
        return lambda w: evaluate(test.y, test.p, w, test.cut, [metric], decision=test.rank)[metric]

    return jointly([t.groups for t in tests], [metric_of(t) for t in tests])


def jointly(
    groups: Sequence[Sequence[str]], values: Sequence[Callable[[Weighted], Floats]]
) -> Joint:
    """Return each set's value of weights of one, and without each group of all sets.

    groups: of each set those of its rows (n,); values: of each set what makes float64 (B,) of
    weights (B, n).
    """
    rows = np.cumsum([0, *map(len, groups)])
    blocks = blocks_of([g for of_set in groups for g in of_set])
    observed, without = [], []
    for k, value in enumerate(values):
        n = len(groups[k])
        own = Blocks(blocks.of[rows[k] : rows[k + 1]], blocks.sizes, blocks.n_groups)
        step = max(1, CHUNK // max(n, 1))
        observed.append(float(value(np.ones((1, n)))[0]))
        starts = range(0, blocks.n, step)
        parts = [value(own.weights(s, min(s + step, blocks.n))) for s in starts]
        without.append(np.concatenate(parts))
    return Joint(np.array(observed), np.array(without), blocks, np.diff(rows))


def mean_of_folds(each: Floats) -> Floats:
    """Return the mean (B,) over folds (F, B) that have a value; NaN where none has."""
    is_there = np.isfinite(each)
    n = is_there.sum(axis=0)
    total = np.where(is_there, each, 0).sum(axis=0)
    return np.asarray(np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0))
