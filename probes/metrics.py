"""Metrics: pure functions of labels and probabilities; a new one is a function and a row here."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
)

Scores = NDArray[np.float64]


def auroc(y: NDArray[np.intp], p: Scores) -> float:
    """Return the area under the ROC curve (Hanley & McNeil 1982); macro one-vs-rest beyond two."""
    if p.shape[1] == 2:
        return float(roc_auc_score(y, p[:, 1]))
    return float(roc_auc_score(y, p, multi_class="ovr", labels=np.arange(p.shape[1])))


def average_precision(y: NDArray[np.intp], p: Scores) -> float:
    """Return average precision of the positive label (macro beyond two); read beside n_pos."""
    if p.shape[1] == 2:
        return float(average_precision_score(y, p[:, 1]))
    return float(average_precision_score(np.eye(p.shape[1])[y], p))


def balanced_accuracy(y: NDArray[np.intp], p: Scores) -> float:
    """Return the mean recall over labels when the most probable label is taken."""
    return float(balanced_accuracy_score(y, p.argmax(axis=1)))


def brier(y: NDArray[np.intp], p: Scores) -> float:
    """Return the Brier score of the positive label (Brier 1950); summed over labels beyond two."""
    if p.shape[1] == 2:
        return float(brier_score_loss(y, p[:, 1]))
    return float(np.mean(np.sum((p - np.eye(p.shape[1])[y]) ** 2, axis=1)))


METRICS: dict[str, Callable[[NDArray[np.intp], Scores], float]] = {
    "auroc": auroc,
    "average_precision": average_precision,
    "balanced_accuracy": balanced_accuracy,
    "brier": brier,
}


def evaluate(
    y: NDArray[np.intp], p: Scores, names: Sequence[str] = tuple(METRICS)
) -> dict[str, float]:
    """Return the named metrics of label codes y (n,) and probabilities p float64 (n, K).

    Column k of p is label code k; for two labels code 1 is the positive one. A set that lacks a
    label has no AUROC: all metrics are NaN there rather than one of them silently defined.
    """
    if len(np.unique(y)) < p.shape[1]:
        return dict.fromkeys(names, float("nan"))
    return {name: METRICS[name](y, p) for name in names}
