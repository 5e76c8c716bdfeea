"""Intervals, DeLong and Holm against leaving out by hand, definitions and worked examples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import norm, spearmanr, t, ttest_1samp
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    roc_auc_score,
)

from probes.scores.classical import delong, holm, spearman
from probes.scores.joint import Fold, paired
from probes.scores.metrics import METRICS, evaluate
from probes.scores.statistics import MAX_BLOCKS, jackknife


def scores(rng: np.random.Generator, y: np.ndarray, strength: float) -> np.ndarray:
    p = 1 / (1 + np.exp(-(strength * (y - 0.5) + rng.normal(size=len(y)))))
    return np.column_stack((1 - p, p))


def student(without: Any, sizes: Any) -> tuple[float, float]:
    """The jackknife written out: the standard error, and how often t takes it at 95 %."""
    n = len(without)
    error = np.sqrt((n - 1) / n * sum((v - np.mean(without)) ** 2 for v in without))
    worth = np.sum(sizes) ** 2 / np.sum(np.square(sizes))
    return error, t.ppf(0.975, max(worth - 1, 1))


def test_an_interval_is_that_of_leaving_out_one_slide_at_a_time() -> None:
    """Oracle: each value without a slide by scikit-learn, on the scale of log-odds, by hand."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 120)
    p = scores(rng, y, 1.5)
    groups = np.array([f"s{k}" for k in rng.choice(9, 120, p=np.arange(1, 10) / 45)])
    found = jackknife(y, p, list(groups), 0.5)
    measures: dict[str, Callable[[Any], float]] = {
        "auroc": lambda at: roc_auc_score(y[at], p[at, 1]),
        "average_precision": lambda at: average_precision_score(y[at], p[at, 1]),
        "balanced_accuracy": lambda at: balanced_accuracy_score(y[at], p[at, 1] >= 0.5),
        "brier": lambda at: brier_score_loss(y[at], p[at, 1]),
    }
    names = np.unique(groups)
    sizes = [(groups == g).sum() for g in names]
    for name, measure in measures.items():
        value = measure(groups != "none")
        error, times = student([logit(measure(groups != g)) for g in names], sizes)
        assert found[name].value == pytest.approx(value)
        bounds = [expit(logit(value) + side * times * error) for side in (-1, 1)]
        assert (found[name].low, found[name].high) == pytest.approx(bounds, rel=1e-6)
    for name in METRICS:
        assert found[name].low < found[name].value < found[name].high


def test_of_many_slides_blocks_are_left_out() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 1500)
    p = scores(rng, y, 1.5)
    groups = np.array([f"s{k:03d}" for k in rng.integers(0, 450, 1500)])
    found = jackknife(y, p, list(groups), 0.5, names=["auroc"])["auroc"]
    names, place = np.unique(groups, return_inverse=True)
    assert len(names) > 2 * MAX_BLOCKS
    block = place % MAX_BLOCKS
    without = [logit(roc_auc_score(y[block != k], p[block != k, 1])) for k in range(MAX_BLOCKS)]
    error, times = student(without, np.bincount(block))
    bounds = [expit(logit(found.value) + side * times * error) for side in (-1, 1)]
    assert (found.low, found.high) == pytest.approx(bounds, rel=1e-6)
    # Blocks or each slide: nearly the same.
    each, often = student(
        [logit(roc_auc_score(y[groups != g], p[groups != g, 1])) for g in names],
        [(groups == g).sum() for g in names],
    )
    assert error * times == pytest.approx(each * often, rel=0.15)


def test_slides_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(1)
    slide = np.repeat(np.arange(12), 50)
    y = rng.integers(0, 2, 600)
    shift = rng.normal(0, 2, 12)[slide]
    p = 1 / (1 + np.exp(-(1.5 * (y - 0.5) + shift + rng.normal(size=600))))
    p = np.column_stack((1 - p, p))
    by_slide = jackknife(y, p, [str(s) for s in slide], 0.5)["auroc"]
    by_row = jackknife(y, p, [str(k) for k in range(600)], 0.5)["auroc"]
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
        groups = [str(k // 4) for k in range(160)]
        found = jackknife(y, p, groups, 0.5, names=["auroc"])["auroc"]
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def test_what_slides_do_not_say_has_no_interval() -> None:
    rng = np.random.default_rng(2)
    y = np.tile([0, 1], 20)
    p = scores(rng, y, 1.0)
    groups = [f"s{k // 8}" for k in range(40)]

    def bounds(y: Any, p: Any, groups: Any) -> list[float]:
        found = jackknife(y, p, groups, 0.5, names=["auroc"])["auroc"]
        return [found.low, found.high]

    assert np.isfinite(bounds(y, p, groups)).all()
    assert np.isnan(bounds(y, p, ["a"] * 40)).all()  # one slide
    perfect = np.column_stack((1 - y, y)).astype(float)
    assert np.isnan(bounds(y, perfect, groups)).all()
    lonely = np.where(np.arange(40) < 8, y, 0)  # one slide holds all of a label
    assert np.isnan(bounds(lonely, p, groups)).all()
    alike = [f"s{k // 8}" for k in range(40)], np.tile(p[:8], (5, 1))
    assert np.isnan(bounds(np.tile(y[:8], 5), alike[1], alike[0])).all()  # slides that are copies
    # Taken as positives throughout, F1 is the same without any slide, but for rounding.
    always = jackknife(y, np.column_stack((0 * y, 0 * y + 1.0)), groups, 0.5, names=["f1"])["f1"]
    assert always.value == pytest.approx(2 / 3)
    assert np.isnan([always.low, always.high]).all()
    # One pair of 324 is won: the bounds hold it, though it is less than half an annotation.
    last = np.where(np.arange(36) == 35, 2.0, np.tile([1.0, -1.0], 18))
    few = jackknife(np.tile([0, 1], 18), np.column_stack((-last, last)), groups[:36], 0.5)["auroc"]
    assert 0 < few.low < few.value < few.high
    lacking = jackknife(np.ones(40, dtype=int), p, groups, 0.5)["auroc"]
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
    below = {"delong": 0, "jackknife": 0}
    for _ in range(300):
        y = np.tile([0, 1], 40)
        p = [scores(rng, y, 1.0) for _ in range(2)]
        below["delong"] += delong(y, p[0][:, 1], p[1][:, 1]).p_value < 0.05
        fold = Fold(y, p[0], p[1], [str(k // 2) for k in range(80)])
        below["jackknife"] += paired([fold]).p_value < 0.05
    assert 0.02 <= below["delong"] / 300 <= 0.09
    assert 0.015 <= below["jackknife"] / 300 <= 0.09


def test_a_slide_is_left_out_of_every_fold_that_holds_it() -> None:
    """Oracle: the same, written out; and folds that repeat add no certainty."""
    rng = np.random.default_rng(3)
    slide = np.array([f"s{k}" for k in rng.integers(0, 10, 200)])
    y = rng.integers(0, 2, 200)
    a, b = scores(rng, y, 2.0), scores(rng, y, 1.0)
    parts = [rng.permutation(200)[:80] for _ in range(3)]
    folds = [Fold(y[i], a[i], b[i], list(slide[i])) for i in parts]
    found = paired(folds)

    def difference(at: Any) -> float:
        return float(roc_auc_score(y[at], a[at, 1]) - roc_auc_score(y[at], b[at, 1]))

    held = slide[np.concatenate(parts)]
    names = np.unique(held)
    without = [np.mean([difference(i[slide[i] != g]) for i in parts]) for g in names]
    error, times = student(without, [(held == g).sum() for g in names])
    observed = np.mean([difference(i) for i in parts])
    assert found.difference == pytest.approx(observed)
    reach = times * error
    assert (found.low, found.high) == pytest.approx((observed - reach, observed + reach))
    assert found.p_value < 0.05 or found.low < 0 < found.high
    one, five = paired(folds[:1]), paired(folds[:1] * 5)
    assert (five.low, five.high, five.p_value) == pytest.approx((one.low, one.high, one.p_value))
    mirrored = paired([Fold(f.y, f.b, f.a, f.groups) for f in folds])
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert mirrored.p_value == pytest.approx(found.p_value)
    same = paired([Fold(f.y, f.a, f.a, f.groups) for f in folds])
    assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_any_metric_can_be_compared() -> None:
    rng = np.random.default_rng(6)
    y = rng.integers(0, 2, 100)
    a, b = scores(rng, y, 3.0), scores(rng, y, 0.5)
    fold = Fold(y, a, b, [str(k) for k in range(100)], 0.5, 0.4)
    for metric in METRICS:
        found = paired([fold], metric)
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


def test_folds_of_one_case_each_are_students_test_of_the_cases() -> None:
    """Without a case its fold is gone: the mean over the others, as for one number a case."""
    rng = np.random.default_rng(0)
    folds = []
    for case in "abc":
        y = np.arange(20) % 2
        a, b = (np.column_stack((1 - s, s)) for s in rng.random((2, 20)))
        folds.append(Fold(y, a, b, [case] * 20))
    found = paired(folds)
    each = [roc_auc_score(f.y, f.a[:, 1]) - roc_auc_score(f.y, f.b[:, 1]) for f in folds]
    test = ttest_1samp(each, 0)
    assert found.difference == pytest.approx(np.mean(each))
    assert found.p_value == pytest.approx(test.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(test.confidence_interval(0.95)))
    alone = paired(folds[:1])
    assert np.isfinite(alone.difference)
    assert np.isnan([alone.low, alone.high, alone.p_value]).all()


def test_a_metric_added_later_is_recorded_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from probes.scores import metrics

    monkeypatch.setitem(
        metrics.METRICS, "half", metrics.Metric(lambda y, p, w, cut: np.full(len(w), 0.5))
    )
    y, p = np.arange(10) % 2, np.full((10, 2), 0.5)
    assert jackknife(y, p, [str(k) for k in range(10)], 0.5)["half"].value == 0.5


def test_a_rank_correlation_is_scipys_and_its_interval_covers() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    y[3] = y[4]
    assert spearman(x, y).value == pytest.approx(spearmanr(x, y).statistic)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]).value)
    few = spearman([1, 2, 3], [1, 3, 2])
    assert few.value == pytest.approx(0.5)
    assert np.isnan([few.low, few.high]).all()
    # Oracle of the interval: normal pairs, whose rank correlation is 6 / pi * arcsin(r / 2).
    r, hits = 0.6, 0
    truth = 6 / np.pi * np.arcsin(r / 2)
    for seed in range(500):
        a, b = np.random.default_rng(seed).multivariate_normal([0, 0], [[1, r], [r, 1]], 12).T
        found = spearman(a, b)
        hits += found.low <= truth <= found.high
    assert 0.92 <= hits / 500 <= 0.98
