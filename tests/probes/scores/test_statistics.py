"""Bootstrap, DeLong and Holm against resampling by hand, definitions and worked examples."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from probes.scores.metrics import METRICS, evaluate
from probes.scores.statistics import (
    Fold,
    bootstrap,
    delong,
    holm,
    interval,
    paired_bootstrap,
    resample,
)


def scores(rng: np.random.Generator, y: np.ndarray, strength: float) -> np.ndarray:
    p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(size=len(y)))))
    return np.column_stack((1 - p, p))


def test_resampling_is_that_of_drawing_with_replacement_and_the_same_everywhere() -> None:
    counts = resample(7, 4000, 3)
    assert counts.shape == (4000, 7)
    assert (counts.sum(axis=1) == 7).all()
    # Multinomial: mean 1, variance 1 - 1/7, covariance -1/7.
    assert counts.mean(axis=0) == pytest.approx(np.ones(7), abs=0.06)
    covariance = np.cov(counts.T)
    assert np.diag(covariance) == pytest.approx(np.full(7, 6 / 7), abs=0.08)
    assert covariance[0, 1:] == pytest.approx(np.full(6, -1 / 7), abs=0.06)
    assert resample(6, 3, 42).tolist() == STORED
    assert (resample(5, 9, 1) == resample(5, 9, 1)).all()


STORED = [[1, 0, 1, 0, 2, 2], [1, 0, 2, 0, 2, 1], [1, 1, 1, 2, 1, 0]]


def test_weights_are_what_repeating_the_rows_gives() -> None:
    """Oracle: each replicate computed by scikit-learn on rows repeated as the groups were drawn."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    p = scores(rng, y, 1.5)
    groups = [f"s{k}" for k in rng.integers(0, 9, 120)]
    found = bootstrap(y, p, groups, 0.5, n_resamples=200, seed=5)
    names, codes = np.unique(groups, return_inverse=True)
    values = []
    for row in resample(len(names), 200, 5):
        chosen = np.repeat(np.arange(120), row[codes])
        values.append(roc_auc_score(y[chosen], p[chosen, 1]))
    assert found["auroc"].value == pytest.approx(roc_auc_score(y, p[:, 1]))
    assert (found["auroc"].low, found["auroc"].high) == pytest.approx(
        tuple(np.quantile(values, [0.025, 0.975]))
    )
    for name in METRICS:
        assert (
            found[name].low <= found[name].value <= found[name].high or name == "calibration_error"
        )


def test_slides_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    slide = np.repeat(np.arange(12), 50)
    y = rng.integers(0, 2, 600)
    shift = rng.normal(0, 2, 12)[slide]
    p = 1 / (1 + np.exp(-(1.5 * (y - 0.5) + shift + rng.normal(size=600))))
    p = np.column_stack((1 - p, p))
    by_slide = bootstrap(y, p, [str(s) for s in slide], 0.5)["auroc"]
    by_row = bootstrap(y, p, [str(k) for k in range(600)], 0.5)["auroc"]
    assert by_slide.high - by_slide.low > 1.5 * (by_row.high - by_row.low)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """400 datasets of 40 independent slides: the 95% interval holds the true AUROC 95% of the time."""
    truth = norm.cdf(1 / np.sqrt(2))
    hits = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        y = np.tile([0, 1], 80)
        s = y * 1.0 + rng.normal(size=160)
        p = np.column_stack((-s, s))
        found = bootstrap(
            y,
            p,
            [str(k // 4) for k in range(160)],
            0.5,
            names=["auroc"],
            n_resamples=300,
            seed=seed,
        )["auroc"]
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_too_few_groups_have_no_interval() -> None:
    y, p = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    one = bootstrap(y, p, ["a"] * 3, 0.5)["auroc"]
    assert one.value == 1
    assert np.isnan([one.low, one.high]).all()
    assert np.isnan(interval(np.array([np.nan, 0.5]))).all()
    lacking = bootstrap(np.ones(3, dtype=int), p, ["a", "b", "c"], 0.5)["auroc"]
    assert np.isnan([lacking.value, lacking.low, lacking.high]).all()


def brute_delong(y: Any, a: Any, b: Any) -> Any:
    """DeLong's covariance by the definition, one pair of annotations at a time."""
    pos, neg = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    psi = [
        [[1.0 if s[i] > s[j] else 0.5 if s[i] == s[j] else 0.0 for j in neg] for i in pos]
        for s in (a, b)
    ]
    v10 = [np.mean(m, axis=1) for m in psi]
    v01 = [np.mean(m, axis=0) for m in psi]
    s10, s01 = np.cov(v10), np.cov(v01)
    s = s10 / len(pos) + s01 / len(neg)
    difference = np.mean(psi[0]) - np.mean(psi[1])
    return difference, s[0, 0] + s[1, 1] - 2 * s[0, 1]


@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(2, 12))
@settings(max_examples=60)
def test_delong_is_its_definition(seed: Any, m: Any, n: Any) -> None:
    rng = np.random.default_rng(seed)
    y = np.array([1] * m + [0] * n)
    a, b = rng.integers(0, 8, (2, m + n)).astype(float)
    difference, variance = brute_delong(y, a, b)
    found = delong(y, a, b)
    assert found.difference == pytest.approx(difference, abs=1e-12)
    assert found.difference == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b), abs=1e-12)
    if variance > 1e-12:
        assert found.p_value == pytest.approx(
            2 * norm.sf(abs(difference) / np.sqrt(variance)), abs=1e-9
        )
        assert found.high - found.difference == pytest.approx(
            1.959964 * np.sqrt(variance), rel=1e-5
        )
    mirrored = delong(y, b, a)
    assert mirrored.difference == -found.difference
    assert mirrored.p_value == pytest.approx(found.p_value)


def test_delong_of_the_same_scores_and_of_too_few() -> None:
    y = np.array([1, 1, 0, 0])
    same = delong(y, np.arange(4.0), np.arange(4.0))
    assert (same.difference, same.p_value) == (0, 1)
    assert np.isnan(delong(np.array([1, 0, 0]), np.arange(3.0), np.arange(3.0)).p_value)


def test_under_the_null_p_values_are_uniform_enough() -> None:
    rng = np.random.default_rng(2)
    below = {"delong": 0, "bootstrap": 0}
    for seed in range(300):
        y = np.tile([0, 1], 40)
        p = [scores(rng, y, 1.0) for _ in range(2)]
        below["delong"] += delong(y, p[0][:, 1], p[1][:, 1]).p_value < 0.05
        fold = Fold(y, p[0], p[1], [str(k // 2) for k in range(80)])
        below["bootstrap"] += paired_bootstrap([fold], n_resamples=300, seed=seed).p_value < 0.05
    assert 0.02 <= below["delong"] / 300 <= 0.09
    assert 0.015 <= below["bootstrap"] / 300 <= 0.09


def test_folds_share_their_slides_in_every_replicate() -> None:
    """Oracle: the same joint resampling, written out; and folds that repeat add no certainty."""
    rng = np.random.default_rng(3)
    slide = np.array([f"s{k}" for k in rng.integers(0, 10, 200)])
    y = rng.integers(0, 2, 200)
    a, b = scores(rng, y, 2.0), scores(rng, y, 1.0)
    parts = [rng.permutation(200)[:80] for _ in range(3)]
    folds = [Fold(y[i], a[i], b[i], list(slide[i])) for i in parts]
    found = paired_bootstrap(folds, n_resamples=150, seed=4)
    names = sorted(set(slide[np.concatenate(parts)]))
    replicates = []
    for row in resample(len(names), 150, 4):
        times = dict(zip(names, row, strict=True))
        each = []
        for i in parts:
            chosen = np.repeat(i, [times[s] for s in slide[i]])
            each.append(
                roc_auc_score(y[chosen], a[chosen, 1]) - roc_auc_score(y[chosen], b[chosen, 1])
            )
        replicates.append(np.mean(each))
    observed = np.mean([roc_auc_score(y[i], a[i, 1]) - roc_auc_score(y[i], b[i, 1]) for i in parts])
    assert found.difference == pytest.approx(observed)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(replicates, [0.025, 0.975])))
    one = paired_bootstrap(folds[:1], n_resamples=150, seed=4)
    five = paired_bootstrap(folds[:1] * 5, n_resamples=150, seed=4)
    assert (five.low, five.high, five.p_value) == pytest.approx((one.low, one.high, one.p_value))


def test_any_metric_can_be_compared() -> None:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 100)
    a, b = scores(rng, y, 3.0), scores(rng, y, 0.5)
    fold = Fold(y, a, b, [str(k) for k in range(100)], 0.5, 0.4)
    for metric in METRICS:
        found = paired_bootstrap([fold], metric, n_resamples=100)
        ones = np.ones((1, 100))
        expected = evaluate(y, a, ones, 0.5)[metric] - evaluate(y, b, ones, 0.4)[metric]
        assert found.difference == pytest.approx(expected[0])


def test_holm_of_a_worked_example() -> None:
    """Four hypotheses with p 0.01, 0.04, 0.03, 0.005: adjusted 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1, 1])
    assert holm([]) == []
    found = holm([0.02, float("nan"), 0.03])
    assert found[::2] == pytest.approx([0.04, 0.04])
    assert np.isnan(found[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_its_definition(p: Any) -> None:
    m = len(p)
    ordered = sorted(p)
    for value, corrected in zip(p, holm(p), strict=True):
        rank = ordered.index(value)
        assert corrected == pytest.approx(
            min(1, max((m - k) * ordered[k] for k in range(rank + 1)))
        )


def test_a_case_or_two_a_fold_give_no_interval_instead_of_a_sure_one() -> None:
    """Three folds of one case each: only resamples that hold all three cases give a number."""
    rng = np.random.default_rng(0)
    folds = []
    for case in "abc":
        y = np.arange(20) % 2
        a, b = (np.column_stack((1 - s, s)) for s in rng.random((2, 20)))
        folds.append(Fold(y, a, b, [case] * 20))
    found = paired_bootstrap(folds, n_resamples=500)
    assert np.isfinite(found.difference)
    assert np.isnan([found.low, found.high, found.p_value]).all()
    many = [Fold(f.y, f.a, f.b, [f"{k}{i}" for i in range(20)]) for k, f in enumerate(folds)]
    found = paired_bootstrap(many, n_resamples=500)
    assert found.low < found.difference < found.high
    assert 0 < found.p_value <= 1


def test_a_metric_added_later_is_recorded_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.scores import metrics

    monkeypatch.setitem(
        metrics.METRICS, "half", metrics.Metric(lambda y, p, w, cut: np.full(len(w), 0.5))
    )
    y, p = np.arange(10) % 2, np.full((10, 2), 0.5)
    assert bootstrap(y, p, [str(k) for k in range(10)], 0.5, n_resamples=20)["half"].value == 0.5
