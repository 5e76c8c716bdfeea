"""Several test sets with slides (or cases) left out of all of them at once: differences, means.

Folds overlap, splits share slides, and two models score the same annotations: what is left out is
left out of everything, so that what they share is not taken for certainty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from probes.scores.metrics import Codes, Floats, evaluate
from probes.scores.ranking import auroc_without
from probes.scores.statistics import (
    CHUNK,
    NOTHING,
    Blocks,
    Comparison,
    Estimate,
    Weighted,
    blocks_of,
    deviation_of,
    interval,
    reach_of,
)


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
        deviation, reach = deviation_of(each), reach_of(each, self.blocks)
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
        return Estimate(value, *interval(value, each, self.blocks, int(self.sizes.sum())))


def joint(tests: Sequence[Test], metric: str = "auroc") -> Joint:
    """Return a metric of each test set, and the same without each group of all of them."""
    if metric == "auroc" and all(t.p.shape[1] == 2 for t in tests):
        return _by_ranks(tests)

    def metric_of(test: Test) -> Callable[[Weighted], Floats]:
        return lambda w: evaluate(test.y, test.p, w, test.cut, [metric], decision=test.rank)[metric]

    return jointly([t.groups for t in tests], [metric_of(t) for t in tests])


def _by_ranks(tests: Sequence[Test]) -> Joint:
    """Return what `jointly` does of AUROC of two labels, in a few sorts a test set."""
    sizes = np.array([len(t.y) for t in tests])
    blocks = blocks_of([g for t in tests for g in t.groups])
    values, without = [], []
    for one, of in zip(tests, np.split(blocks.of, np.cumsum(sizes)[:-1]), strict=True):
        score = (one.p if one.rank is None else one.rank)[:, 1]
        value, each = auroc_without(one.y == 1, score, of, blocks.n)
        values.append(value)
        without.append(each)
    return Joint(np.array(values), np.array(without), blocks, sizes)


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
