"""Tests as they are published: DeLong's, Holm's correction, rank correlation; all pure."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, rankdata

from probes.scores.metrics import Codes, Floats
from probes.scores.statistics import CONFIDENCE, Comparison, Estimate

FEWEST = 4
"""Pairs of which a rank correlation has an interval: its standard error has n - 3 under it."""


def delong(y: Codes, a: Floats, b: Floats, confidence: float = CONFIDENCE) -> Comparison:
    """Return DeLong's test of AUROC(a) - AUROC(b) on the same annotations (DeLong et al. 1988).

    y (n,) is 1 for positives, a and b (n,) are the scores. Components come from mid-ranks (Sun & Xu
    2014). Annotations are taken as independent: read it beside `paired`.
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


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, step down (Holm 1979); NaN ones stay out."""
    p = np.asarray(p_values, dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(p))
    corrected = np.full(len(p), np.nan)
    order = finite[np.argsort(p[finite], kind="stable")]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return [float(v) for v in corrected]


def spearman(x: Floats | Sequence[float], y: Floats | Sequence[float]) -> Estimate:
    """Return Spearman's rank correlation of x and y (n,) with its 95% interval.

    Fisher's z with the standard error sqrt((1 + r^2 / 2) / (n - 3)) of Bonett & Wright 2000: it
    covers the drawing of the n pairs (of models, say), not how sure each one's values are. NaN with
    fewer than two pairs or where all of one side are equal; no interval with fewer than FEWEST
    pairs, nor at -1 and 1.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    nan = float("nan")
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return Estimate(nan, nan, nan)
    r = float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
    if len(a) < FEWEST or abs(r) > 1 - 1e-9:
        return Estimate(r, nan, nan)
    reach = float(norm.ppf((1 + CONFIDENCE) / 2)) * np.sqrt((1 + r**2 / 2) / (len(a) - 3))
    low, high = (float(np.tanh(np.arctanh(r) + side * reach)) for side in (-1, 1))
    return Estimate(r, low, high)
