"""Metrics against scikit-learn with sample weights, and against their definitions."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    f1_score,
    recall_score,
    roc_auc_score,
)

from probes.scores.metrics import METRICS, best_cut, decide, evaluate

# Scores on a coarse grid, so that ties are common.
rows = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 4)), min_size=4, max_size=60
).filter(lambda r: {y for y, _, w in r if w} == {0, 1})


@given(rows, st.integers(0, 20))
@settings(max_examples=200)
def test_two_labels_as_scikit_learn_weighs_them(rows: Any, cut20: Any) -> None:
    y, score, w = (np.array(c) for c in zip(*rows, strict=True))
    p = np.column_stack((1 - score / 20, score / 20))
    cut = cut20 / 20
    weights = np.stack([w, np.ones_like(w)]).astype(np.float32)
    found = evaluate(y, p, weights, cut)
    taken = (p[:, 1] >= cut).astype(int)
    for k, sample_weight in enumerate(weights):
        kw = {"sample_weight": sample_weight}
        oracle = {
            "auroc": roc_auc_score(y, p[:, 1], **kw),
            "average_precision": average_precision_score(y, p[:, 1], **kw),
            "balanced_accuracy": balanced_accuracy_score(y, p.argmax(1), **kw),
            "f1": f1_score(y, taken, **kw),
            "sensitivity": recall_score(y, taken, **kw),
            "brier": brier_score_loss(y, p[:, 1], **kw),
        }
        for name, value in oracle.items():
            assert found[name][k] == pytest.approx(value, abs=1e-9), name


@given(rows)
def test_calibration_error_by_definition(rows: Any) -> None:
    y, score, w = (np.array(c) for c in zip(*rows, strict=True))
    p = np.column_stack((1 - score / 20, score / 20))
    expected = 0.0
    for b in range(15):
        inside = [i for i in range(len(y)) if min(int(score[i] / 20 * 15), 14) == b and w[i]]
        n = sum(w[i] for i in inside)
        if n:
            accuracy = sum(w[i] * y[i] for i in inside) / n
            confidence = sum(w[i] * score[i] / 20 for i in inside) / n
            expected += n / w.sum() * abs(accuracy - confidence)
    (found,) = evaluate(y, p, w[None].astype(float), 0.5, ["calibration_error"])[
        "calibration_error"
    ]
    assert found == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 10_000), st.integers(3, 5))
@settings(max_examples=40)
def test_more_labels_as_scikit_learn_has_them(seed: Any, k: Any) -> None:
    rng = np.random.default_rng(seed)
    y = np.concatenate((np.arange(k), rng.integers(0, k, 40)))
    p = rng.dirichlet(np.ones(k), size=len(y)).round(2) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    w = np.concatenate((np.ones(k), rng.integers(0, 3, 40)))
    found = {name: v[0] for name, v in evaluate(y, p, w[None], 0.9).items()}
    one_hot = np.eye(k)[y]
    oracle = {
        "auroc": roc_auc_score(y, p, multi_class="ovr", sample_weight=w),
        "average_precision": average_precision_score(one_hot, p, sample_weight=w),
        "balanced_accuracy": balanced_accuracy_score(y, p.argmax(1), sample_weight=w),
        "f1": f1_score(y, p.argmax(1), average="macro", sample_weight=w),
        "sensitivity": recall_score(y, p.argmax(1), average="macro", sample_weight=w),
        "brier": np.average(((p - one_hot) ** 2).sum(1), weights=w),
    }
    for name, value in oracle.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_a_missing_label_has_no_value() -> None:
    p = np.array([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    y = np.array([1, 0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(y, p, np.array([[1.0, 1, 1], [1, 0, 2], [0, 0, 0]]), 0.5)
        none = evaluate(y[:0], p[:0], np.ones((1, 0)), 0.5)
    for name in METRICS:
        assert np.isfinite(found[name][0])
        assert np.isnan(found[name][1:]).all()
        assert np.isnan(none[name]).all()


def test_partial_means_over_the_labels_that_are_there() -> None:
    rng = np.random.default_rng(0)
    y = np.array([0, 1, 1, 0, 3, 3, 0, 1])  # 2 is absent
    p = rng.dirichlet(np.ones(4), size=8)
    w = np.ones((1, 8))
    assert np.isnan(evaluate(y, p, w, 0.5)["auroc"][0])
    found = evaluate(y, p, w, 0.5, partial=True)
    each = [roc_auc_score(y == k, p[:, k]) for k in (0, 1, 3)]
    assert found["auroc"][0] == pytest.approx(np.mean(each))
    recalls = recall_score(y, p.argmax(1), labels=[0, 1, 3], average=None)
    assert found["balanced_accuracy"][0] == pytest.approx(recalls.mean())
    assert np.isnan(evaluate(y[:1], p[:1], w[:, :1], 0.5, partial=True)["auroc"][0])


@given(rows)
def test_the_threshold_has_the_best_f1_of_all(rows: Any) -> None:
    y, score, _ = (np.array(c) for c in zip(*rows, strict=True))
    p = np.column_stack((1 - score / 20, score / 20))
    if len(set(y.tolist())) < 2:
        assert best_cut(y, p) == 0.5
        return
    values = {c: f1_score(y, p[:, 1] >= c) for c in np.unique(p[:, 1])}
    cut = best_cut(y, p)
    assert values[cut] == pytest.approx(max(values.values()))
    assert cut == max(c for c, v in values.items() if v >= max(values.values()) - 1e-12)


def test_decide() -> None:
    p = np.array([[0.7, 0.3], [0.4, 0.6]])
    assert decide(p, 0.3).tolist() == [1, 1]
    assert decide(p, 0.61).tolist() == [0, 0]
    assert decide(np.array([[0.2, 0.5, 0.3]]), 0.9).tolist() == [1]
