"""Metrics: one function each, of labels, probabilities and weights; a new one is a row here.

Every metric takes y, label codes (n,); p, probabilities float64 (n, K), column k for code k; w,
weights (B, n); cut, the threshold chosen on validation; and returns float64 (B,), a value for each
row of weights. One that ranks is given, in place of p, what ranks annotations by label and does not
saturate as probabilities do (log-odds), where there is such. Weights of one give the value itself,
weights that leave a slide out what its interval is made of, so a metric and its interval have one
definition. Of two labels code 1 is the positive one. Where a row of weights leaves a label empty
the value is NaN, or, where that is asked for, the mean over the other labels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]
Weights = NDArray[Any]
Function = Callable[[Codes, Floats, Weights, float], Floats]

N_BINS = 15
"""Bins of the calibration error, of equal width."""


def auroc(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return the area under the ROC curve (Hanley & McNeil 1982); macro one-vs-rest beyond two."""

    def area(hits: Floats, misses: Floats) -> Floats:
        steps = np.diff(misses, axis=1, prepend=0)
        below = hits - np.diff(hits, axis=1, prepend=0) / 2  # half of what is tied
        return _ratio((below * steps).sum(axis=1), hits[:, -1] * misses[:, -1])

    return _per_label(area, y, p, w)


def average_precision(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return average precision, not interpolated; macro beyond two labels. Read it with n_pos."""

    def area(hits: Floats, misses: Floats) -> Floats:
        precision = _ratio(hits, hits + misses, empty=0)
        return _ratio((np.diff(hits, axis=1, prepend=0) * precision).sum(axis=1), hits[:, -1])

    return _per_label(area, y, p, w)


def balanced_accuracy(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return the mean recall over labels when the most probable label is taken."""
    hit, _, true = _confusion(y, p.argmax(axis=1), w, p.shape[1])
    return _mean(_ratio(hit, true))


def f1(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return F1 of the positive label at the threshold; beyond two labels macro F1 of argmax."""
    hit, taken, true = _confusion(y, decide(p, cut), w, p.shape[1])
    return _of_labels(np.where(true > 0, _ratio(2 * hit, taken + true), np.nan))


def sensitivity(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return recall of the positive label at the threshold; beyond two labels mean recall."""
    hit, _, true = _confusion(y, decide(p, cut), w, p.shape[1])
    return _of_labels(_ratio(hit, true))


def brier(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return the Brier score of the positive label (Brier 1950); summed over labels beyond two."""
    errors = (p - np.eye(p.shape[1])[y]) ** 2
    return _ratio(w @ (errors[:, 1] if p.shape[1] == 2 else errors.sum(axis=1)), _total(w))


def calibration_error(y: Codes, p: Floats, w: Weights, cut: float) -> Floats:
    """Return the expected calibration error (Guo et al. 2017) in N_BINS bins of equal width.

    Of the positive label's probability for two labels, of the most probable label's beyond two.
    """
    score, hit = (p[:, 1], y == 1) if p.shape[1] == 2 else (p.max(axis=1), p.argmax(axis=1) == y)
    gaps = np.zeros((len(y), N_BINS))
    gaps[np.arange(len(y)), np.minimum((score * N_BINS).astype(np.intp), N_BINS - 1)] = hit - score
    return _ratio(np.abs(w @ gaps).sum(axis=1), _total(w))


@dataclass(frozen=True)
class Metric:
    """A metric as the module says, whether less of it is better, and whether it only ranks."""

    function: Function
    is_lower_better: bool = False
    ranks: bool = False


METRICS: dict[str, Metric] = {
    "auroc": Metric(auroc, ranks=True),
    "average_precision": Metric(average_precision, ranks=True),
    "balanced_accuracy": Metric(balanced_accuracy),
    "f1": Metric(f1),
    "sensitivity": Metric(sensitivity),
    "brier": Metric(brier, is_lower_better=True),
    "calibration_error": Metric(calibration_error, is_lower_better=True),
}


def evaluate(
    y: Codes,
    p: Floats,
    w: Weights,
    cut: float,
    names: Sequence[str] | None = None,
    *,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Floats]:
    """Return the named metrics (None: all) as float64 (B,) for weights w (B, n).

    decision (n, K): what ranks annotations by label; None: p does.
    A row of weights that leaves a label without weight has no AUROC: all metrics are NaN there,
    rather than one of them silently defined. If `partial`, two labels with weight are enough, and
    macro means are over those.
    """
    names = tuple(METRICS) if names is None else names
    if not len(y):
        return {name: np.full(len(w), np.nan) for name in names}
    weight_of = w @ (y[:, None] == np.arange(p.shape[1]))
    n_there = (weight_of > 0).sum(axis=1)
    whole = n_there >= (2 if partial else p.shape[1])
    ranking = p if decision is None else decision
    values = {}
    for name in names:
        metric = METRICS[name]
        each = metric.function(y, ranking if metric.ranks else p, w, cut)
        values[name] = np.where(whole, each, np.nan)
    return values


def decide(p: Floats, cut: float) -> Codes:
    """Return the code taken: of two labels the positive one from `cut` on, else the likeliest."""
    return (p[:, 1] >= cut).astype(np.intp) if p.shape[1] == 2 else p.argmax(axis=1)


def best_cut(y: Codes, p: Floats) -> float:
    """Return the threshold with the highest F1 of the positive label; 0.5 where there is none.

    Candidates are the scores themselves; of equals the highest is taken. 0.5 where y has one label,
    and beyond two labels, where no threshold is used.
    """
    if p.shape[1] != 2 or len(np.unique(y)) < 2:
        return 0.5
    score = p[:, 1]
    hits, misses = _curve(y == 1, score, np.ones((1, len(y))))
    values = 2 * hits[0] / (hits[0] + misses[0] + hits[0, -1])
    cuts = np.unique(score)[::-1]
    return float(cuts[int(values.argmax())])


def _curve(positive: NDArray[np.bool_], score: Floats, w: Weights) -> tuple[Floats, Floats]:
    """Return the weight of positives and of negatives at or above each distinct score, falling.

    Both (B, number of distinct scores). Sums of counts stay exact in float64.
    """
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))
    sorted_w = w[:, order]
    both = np.cumsum(sorted_w, axis=1, dtype=np.float64)[:, last]
    hits = np.cumsum(sorted_w * positive[order], axis=1, dtype=np.float64)[:, last]
    return hits, both - hits


def _per_label(area: Callable[[Floats, Floats], Floats], y: Codes, p: Floats, w: Weights) -> Floats:
    labels = [1] if p.shape[1] == 2 else range(p.shape[1])
    return _mean(np.column_stack([area(*_curve(y == k, p[:, k], w)) for k in labels]))


def _confusion(y: Codes, taken: Codes, w: Weights, n_labels: int) -> tuple[Floats, Floats, Floats]:
    """Return, per label, the weight that is hit, that is taken, and that is true: (B, K) each."""
    labels = np.arange(n_labels)
    is_taken, is_true = taken[:, None] == labels, y[:, None] == labels
    hit, all_taken, true = (
        w @ mask.astype(np.float64) for mask in (is_taken & is_true, is_taken, is_true)
    )
    return hit, all_taken, true


def _of_labels(each: Floats) -> Floats:
    return np.asarray(each[:, 1]) if each.shape[1] == 2 else _mean(each)


def _mean(each: Floats) -> Floats:
    """Return the mean (B,) over labels (B, K), those that are NaN left out; NaN where all are."""
    is_number = ~np.isnan(each)
    return _ratio(np.where(is_number, each, 0).sum(axis=1), is_number.sum(axis=1))


def _total(w: Weights) -> Floats:
    return np.asarray(w.sum(axis=1, dtype=np.float64))


def _ratio(a: Floats, b: Floats, empty: float = np.nan) -> Floats:
    whole = np.full(np.shape(a), float(empty))
    return np.asarray(np.divide(a, b, out=whole, where=b > 0))
