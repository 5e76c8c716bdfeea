"""Uncertainty: the bootstrap over slides or cases, DeLong's test, Holm's correction; all pure.

Annotations of one slide are not independent, so slides (or cases) are resampled, not annotations.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from probes.scores.metrics import METRICS, Codes, Floats, evaluate

N_RESAMPLES = 1000
CONFIDENCE = 0.95
CHUNK = 2**22
"""Weights held at a time."""


MIN_SHARE = 0.5
"""Which share of the resamples must give a number for there to be an interval."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value with the bounds of its bootstrap interval; NaN where there is none."""

    value: float
    low: float
    high: float


def resample(n_groups: int, n_resamples: int, seed: int) -> NDArray[np.int32]:
    """Return how often each group is drawn, (n_resamples, n_groups); each row sums to n_groups.

    Made of PCG64's raw bits, which numpy keeps the same in every version.
    """
    bits = np.random.PCG64(seed).random_raw(n_resamples * n_groups)
    # The high 32 bits scaled to 0..n_groups - 1: the bias is below n_groups / 2**32.
    drawn = ((bits >> np.uint64(32)) * np.uint64(n_groups)) >> np.uint64(32)
    row = np.repeat(np.arange(n_resamples), n_groups)
    flat = np.bincount(row * n_groups + drawn.astype(np.int64), minlength=n_resamples * n_groups)
    return flat.reshape(n_resamples, n_groups).astype(np.int32)


def bootstrap(
    y: Codes,
    p: Floats,
    groups: Sequence[str],
    cut: float,
    *,
    names: Sequence[str] | None = None,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Estimate]:
    """Return each metric with its percentile interval over resampled groups (Efron 1979).

    y (n,), p (n, K) and groups (n,) are of the same test annotations; partial and decision as in
    `evaluate`. names None: all metrics. Replicates in which a label is absent are left out; with
    fewer than two groups, or if that leaves fewer than half of them, there is no interval.
    """
    names = tuple(METRICS) if names is None else names

    def values(w: NDArray[np.floating]) -> dict[str, Floats]:
        return evaluate(y, p, w, cut, names, partial=partial, decision=decision)

    value = values(np.ones((1, len(y))))
    replicates = _replicates(groups, n_resamples, seed, values)
    return {name: Estimate(float(value[name][0]), *interval(replicates[name])) for name in names}


def interval(replicates: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the percentile bounds of bootstrap replicates, NaN ones left out.

    NaN where fewer than MIN_SHARE of them are a number: those are the resamples that hold nearly
    all groups, so they resemble the sample and each other, and would promise too much.
    """
    finite = replicates[np.isfinite(replicates)]
    if len(finite) < max(2, MIN_SHARE * len(replicates)):
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _replicates(
    groups: Sequence[str],
    n_resamples: int,
    seed: int,
    values: Callable[[NDArray[np.float32]], Mapping[str, Floats]],
) -> dict[str, Floats]:
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        return {
            k: np.full(n_resamples, np.nan) for k in values(np.ones((1, len(codes)), np.float32))
        }
    counts = resample(len(names), n_resamples, seed).astype(np.float32)
    step = max(1, CHUNK // max(len(codes), 1))
    parts = [values(counts[i : i + step][:, codes]) for i in range(0, n_resamples, step)]
    return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


@dataclass(frozen=True)
class Comparison:
    """A paired difference a - b: its value, interval and two-sided p-value."""

    difference: float
    low: float
    high: float
    p_value: float


def delong(y: Codes, a: Floats, b: Floats, confidence: float = CONFIDENCE) -> Comparison:
    """Return DeLong's test of AUROC(a) - AUROC(b) on the same annotations (DeLong et al. 1988).

    y (n,) is 1 for positives, a and b (n,) are the scores. Components come from mid-ranks (Sun & Xu
    2014). Annotations are taken as independent: read it beside the bootstrap over slides.
    """
    positive = y == 1
    m, n = int(positive.sum()), int((~positive).sum())
    if m < 2 or n < 2:
        return Comparison(*(float("nan"),) * 4)
    over_negatives, over_positives = [], []
    for score in (a, b):
        rank = rankdata(score)
        over_negatives.append((rank[positive] - rankdata(score[positive])) / n)
        over_positives.append(1 - (rank[~positive] - rankdata(score[~positive])) / m)
    difference = float(over_negatives[0].mean() - over_negatives[1].mean())
    variance = (
        np.var(over_negatives[0] - over_negatives[1], ddof=1) / m
        + np.var(over_positives[0] - over_positives[1], ddof=1) / n
    )
    deviation = float(np.sqrt(variance))
    if deviation == 0:
        p_value = 1.0 if difference == 0 else 0.0
    else:
        p_value = float(2 * norm.sf(abs(difference) / deviation))
    reach = float(norm.ppf((1 + confidence) / 2)) * deviation
    return Comparison(difference, difference - reach, difference + reach, p_value)


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


def paired_bootstrap(
    folds: Sequence[Fold],
    metric: str = "auroc",
    *,
    n_resamples: int = N_RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Return the mean over folds of metric(a) - metric(b), groups resampled jointly in all folds.

    Test sets of folds overlap, so a resample draws each slide as often in every fold that holds it,
    and no fold counts as a repetition of its own. The p-value is twice the smaller share of
    replicates beyond zero, never below 2 / (n_resamples + 1). Neither is given where most resamples
    leave a fold without one of its labels, as with a case or two a fold.
    """
    names = sorted({g for fold in folds for g in fold.groups})
    place = {g: k for k, g in enumerate(names)}
    counts = resample(len(names), n_resamples, seed).astype(np.float32)
    observed, replicates = [], []
    for fold in folds:
        codes = np.array([place[g] for g in fold.groups], dtype=np.intp)
        step = max(1, CHUNK // max(len(codes), 1))

        def difference(w: NDArray[np.floating], fold: Fold = fold) -> Floats:
            one = evaluate(fold.y, fold.a, w, fold.cut_a, [metric], decision=fold.rank_a)
            two = evaluate(fold.y, fold.b, w, fold.cut_b, [metric], decision=fold.rank_b)
            return np.asarray(one[metric] - two[metric])

        observed.append(float(difference(np.ones((1, len(codes))))[0]))
        parts = [difference(counts[i : i + step][:, codes]) for i in range(0, n_resamples, step)]
        replicates.append(np.concatenate(parts))
    value, spread = float(np.mean(observed)), np.mean(replicates, axis=0)
    low, high = interval(spread, confidence)
    if len(names) < 2 or np.isnan(low):
        return Comparison(value, *(float("nan"),) * 3)
    spread = spread[np.isfinite(spread)]
    beyond = min((spread <= 0).sum(), (spread >= 0).sum())
    return Comparison(value, low, high, float(min(1.0, 2 * (beyond + 1) / (len(spread) + 1))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, step down (Holm 1979); NaN ones stay out."""
    p = np.asarray(p_values, dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(p))
    corrected = np.full(len(p), np.nan)
    order = finite[np.argsort(p[finite], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(v) for v in corrected]
