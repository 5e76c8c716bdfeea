"""UNI's probe: its objective against plain minimisers, a published recipe and scikit-learn."""

import math
from unittest import SkipTest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import estimator_checks_generator

from probes.linear import UniProbe
from probes.softmax import cross_entropy


def data(n=200, d=120, k=2, seed=0, signal=3.0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)) + signal * np.eye(k, d)[y] + 0.5
    return X.astype(np.float32), y


def objective(W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """The formula of protocol.md, row by row in plain Python floats."""
    k, d = W.shape
    total = 0.0
    for x, label in zip(X.astype(float), y, strict=True):
        z = [sum(w * v for w, v in zip(W[c], x, strict=True)) + b[c] for c in range(k)]
        top = max(z)
        total += math.log(sum(math.exp(v - top) for v in z)) + top - z[label]
    C = d * k / 100
    return total / len(X) + (1 / C) * 0.5 * math.sqrt(float((W**2).sum()))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_objective_is_the_formula_and_its_minimum(k):
    X, y = data(k=k)
    probe = UniProbe().fit(X, y)
    assert probe.cost_ == X.shape[1] * k / 100
    assert probe.objective_ == pytest.approx(
        objective(probe.coef_, probe.intercept_, X, y), rel=1e-9
    )
    assert probe.converged_

    assert not probe.collapsed_

    # A plain minimiser that shares no code: no gradient given, started elsewhere.
    def flat(p):
        W, b = p[: k * 120].reshape(k, 120), p[k * 120 :]
        z = X.astype(float) @ W.T + b
        loss = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])
        return loss + (100 / (120 * k)) * 0.5 * np.sqrt((W**2).sum())

    start = np.random.default_rng(1).normal(size=k * 121) * 0.02
    found = minimize(flat, start, method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 1e-12})
    assert probe.objective_ <= found.fun + 1e-9
    assert found.fun == pytest.approx(probe.objective_, rel=1e-5)


@pytest.mark.parametrize(("n", "d", "k"), [(40, 164, 2), (500, 164, 2), (300, 120, 4)])
def test_unis_own_recipe_finds_the_same(n, d, k):
    """torch LBFGS with strong Wolfe over nn.Linear from zero, as UNI's public code has it."""
    X, y = data(n, d, k, signal=2.0)
    linear = torch.nn.Linear(d, k).double()
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(linear.parameters(), max_iter=1000, history_size=100,
                                  line_search_fn="strong_wolfe", tolerance_grad=1e-7,
                                  tolerance_change=1e-9)  # fmt: skip
    inputs, targets = torch.from_numpy(X).double(), torch.from_numpy(y)

    def closure():
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(linear(inputs), targets)
        loss = loss + (1 / (d * k / 100)) * 0.5 * linear.weight.norm(p=2)
        loss.backward()
        return loss

    optimiser.step(closure)
    theirs = closure().item()
    probe = UniProbe().fit(X, y)
    assert not probe.collapsed_
    assert probe.objective_ == pytest.approx(theirs, rel=1e-6)
    assert probe.objective_ <= theirs * (1 + 1e-9)
    with torch.no_grad():
        p = linear(inputs).softmax(1).numpy()
    np.testing.assert_allclose(probe.predict_proba(X), p, atol=2e-3)


def test_scikit_learn_at_the_matching_c():
    X, y = data(400, 130, signal=1.5)
    probe = UniProbe().fit(X, y)
    v = probe.coef_[1] - probe.coef_[0]
    # Where the gradients of ||v|| / (2 sqrt(2) C) and of ||v||^2 / (2 n C_sk) agree.
    c_sk = 2 * math.sqrt(2) * np.linalg.norm(v) * probe.cost_ / len(X)
    sk = LogisticRegression(C=c_sk, tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    np.testing.assert_allclose(v, sk.coef_[0], atol=2e-4)
    ours, theirs = probe.predict_proba(X)[:, 1], sk.predict_proba(X.astype(float))[:, 1]
    assert roc_auc_score(y, ours) == pytest.approx(roc_auc_score(y, theirs), abs=1e-4)


def test_two_classes_are_antisymmetric():
    X, y = data()
    probe = UniProbe().fit(X, y)
    np.testing.assert_allclose(probe.coef_[0], -probe.coef_[1], atol=1e-6)
    logit = probe.decision_function(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), probe.predict_proba(X)[:, 1], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(4, 60), d=st.integers(1, 300), k=st.integers(2, 4), seed=st.integers(0, 999),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)  # fmt: skip
def test_at_the_minimum_no_direction_goes_down(n, d, k, seed, scale):
    X, y = data(n, d, k, seed)
    y[:k] = np.arange(k)
    X = X * np.float32(scale)
    probe = UniProbe().fit(X, y)
    _, grad_w, grad_b = cross_entropy(probe.coef_, probe.intercept_, X, y)
    weight = 0.5 / probe.cost_
    if probe.collapsed_:
        assert (probe.coef_ == 0).all()
        assert np.linalg.norm(grad_w) <= weight * (1 + 1e-9)  # the subgradient holds zero
    else:
        slope = grad_w + weight * probe.coef_ / np.linalg.norm(probe.coef_)
        assert np.abs(slope).max() < 1e-4 * max(scale, 1)
    assert np.abs(grad_b).max() < 1e-4
    assert probe.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(n))


def test_noise_collapses_to_the_label_frequencies():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 3)).astype(np.float32), (rng.random(4000) < 0.25).astype(int)
    probe = UniProbe().fit(X, y)
    assert probe.collapsed_
    assert probe.converged_
    assert (probe.coef_ == 0).all()
    assert probe.predict_proba(X)[0, 1] == pytest.approx(y.mean())
    assert roc_auc_score(y, probe.predict_proba(X)[:, 1]) == 0.5


def test_row_order_and_label_names_do_not_matter():
    X, y = data(k=3)
    order = np.random.default_rng(0).permutation(len(X))
    one = UniProbe().fit(X, y)
    two = UniProbe().fit(X[order], np.array(["a", "b", "c"])[y[order]])
    assert list(two.classes_) == ["a", "b", "c"]
    assert one.objective_ == pytest.approx(two.objective_, rel=1e-9)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-4)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="one class"):
        UniProbe().fit(np.zeros((4, 2)), np.zeros(4))


# Checks that ask for more than the objective gives: on two or three numbers a row C is so small
# that W = 0 is UNI's optimum, so no accuracy can be asked of it there.
BEYOND = {"check_classifiers_train"}
# Checks of what is not installed here.
OPTIONAL = {"check_array_api_input", "check_classifier_data_not_an_array"}


def test_scikit_learns_checks_pass_where_they_apply():
    failed, skipped, n = set(), set(), 0
    for estimator, check in estimator_checks_generator(UniProbe()):
        n += 1
        try:
            check(estimator)
        except SkipTest:
            skipped.add(check.func.__name__)
        except AssertionError:
            failed.add(check.func.__name__)
    assert failed == BEYOND
    assert skipped <= OPTIONAL
    assert n > 40
