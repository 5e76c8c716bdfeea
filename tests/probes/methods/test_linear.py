"""The probes: objectives against plain minimisers, a published recipe and scikit-learn."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from probes.methods.linear import LogRegProbe, UniProbe
from probes.methods.together import Task, fit_many
from probes.solver.softmax import cross_entropy
from tests.making.linear import data


def objective(W: np.ndarray, b: np.ndarray, X: np.ndarray, y: np.ndarray) -> float:
    """The formula of protocol.md, row by row in plain Python floats."""
    k, d = W.shape
    total = 0.0
    for x, label in zip(X.astype(float), y, strict=True):
        z = [sum(w * v for w, v in zip(W[c], x, strict=True)) + b[c] for c in range(k)]
        top = max(z)
        total += math.log(sum(math.exp(v - top) for v in z)) + top - z[label]
    C = d * k / 100
    return float(total / len(X) + (1 / C) * 0.5 * math.sqrt(float((W**2).sum())))


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_objective_is_the_formula_and_its_minimum(k: int) -> None:
    X, y = data(k=k)
    probe = UniProbe().fit(X, y)
    assert probe.cost_ == X.shape[1] * k / 100
    assert probe.objective_ == pytest.approx(
        objective(probe.coef_, probe.intercept_, X, y), rel=1e-9
    )
    assert probe.converged_

    assert not probe.collapsed_

    # A plain minimiser that shares no code: no gradient given, started elsewhere.
    def flat(p: Any) -> Any:
        W, b = p[: k * 120].reshape(k, 120), p[k * 120 :]
        z = X.astype(float) @ W.T + b
        loss = np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y])
        return loss + (100 / (120 * k)) * 0.5 * np.sqrt((W**2).sum())

    start = np.random.default_rng(1).normal(size=k * 121) * 0.02
    found = minimize(flat, start, method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 1e-12})
    assert probe.objective_ <= found.fun + 1e-9
    assert found.fun == pytest.approx(probe.objective_, rel=1e-5)


@pytest.mark.parametrize(("n", "d", "k"), [(40, 164, 2), (500, 164, 2), (300, 120, 4)])
def test_unis_own_recipe_finds_the_same(n: int, d: int, k: int) -> None:
    """torch LBFGS with strong Wolfe over nn.Linear from zero, as UNI's public code has it."""
    X, y = data(n, d, k, signal=2.0)
    linear = torch.nn.Linear(d, k).double()
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimiser = torch.optim.LBFGS(
        linear.parameters(),
        max_iter=1000,
        history_size=100,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-7,
        tolerance_change=1e-9,
    )
    inputs, targets = torch.from_numpy(X).double(), torch.from_numpy(y)

    def closure() -> float:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(linear(inputs), targets)
        loss = loss + (1 / (d * k / 100)) * 0.5 * linear.weight.norm(p=2)
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)
    theirs = closure()
    probe = UniProbe().fit(X, y)
    assert not probe.collapsed_
    assert probe.objective_ == pytest.approx(theirs, rel=1e-6)
    assert probe.objective_ <= theirs * (1 + 1e-9)
    with torch.no_grad():
        p = linear(inputs).softmax(1).numpy()
    np.testing.assert_allclose(probe.predict_proba(X), p, atol=2e-3)


def test_scikit_learn_at_the_matching_c() -> None:
    X, y = data(400, 130, signal=1.5)
    probe = UniProbe().fit(X, y)
    v = probe.coef_[1] - probe.coef_[0]
    # Where the gradients of ||v|| / (2 sqrt(2) C) and of ||v||^2 / (2 n C_sk) agree.
    c_sk = 2 * math.sqrt(2) * np.linalg.norm(v) * probe.cost_ / len(X)
    sk = LogisticRegression(C=c_sk, tol=1e-10, max_iter=10_000).fit(X.astype(float), y)
    np.testing.assert_allclose(v, sk.coef_[0], atol=2e-4)
    ours, theirs = probe.predict_proba(X)[:, 1], sk.predict_proba(X.astype(float))[:, 1]
    assert roc_auc_score(y, ours) == pytest.approx(roc_auc_score(y, theirs), abs=1e-4)


def test_two_classes_are_antisymmetric() -> None:
    X, y = data()
    probe = UniProbe().fit(X, y)
    np.testing.assert_allclose(probe.coef_[0], -probe.coef_[1], atol=1e-6)
    logit = probe.decision_function(X)
    np.testing.assert_allclose(1 / (1 + np.exp(-logit)), probe.predict_proba(X)[:, 1], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(4, 60),
    d=st.integers(1, 300),
    k=st.integers(2, 4),
    seed=st.integers(0, 999),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
def test_at_the_minimum_no_direction_goes_down(
    n: Any, d: Any, k: Any, seed: Any, scale: Any
) -> None:
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


def test_noise_collapses_to_the_label_frequencies() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4000, 3)).astype(np.float32), (rng.random(4000) < 0.25).astype(int)
    probe = UniProbe().fit(X, y)
    assert probe.collapsed_
    assert probe.converged_
    assert (probe.coef_ == 0).all()
    assert probe.predict_proba(X)[0, 1] == pytest.approx(y.mean())
    assert roc_auc_score(y, probe.predict_proba(X)[:, 1]) == 0.5


def test_row_order_and_label_names_do_not_matter() -> None:
    X, y = data(k=3)
    order = np.random.default_rng(0).permutation(len(X))
    one = UniProbe().fit(X, y)
    two = UniProbe().fit(X[order], np.array(["a", "b", "c"])[y[order]])
    assert list(two.classes_) == ["a", "b", "c"]
    assert one.objective_ == pytest.approx(two.objective_, rel=1e-9)
    np.testing.assert_allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-4)


def test_one_label_is_refused() -> None:
    with pytest.raises(ValueError, match="one class"):
        UniProbe().fit(np.zeros((4, 2)), np.zeros(4))


def test_all_kinds_of_probe_are_fitted_together_as_alone() -> None:
    X, y = data(500, 40, 3, signal=1.5)
    two = np.flatnonzero(y < 2)
    tasks = [
        Task(UniProbe(), two, y[two]),
        Task(LogRegProbe(C=0.5), two[::2], y[two[::2]]),
        Task(
            LogRegProbe(),
            two[::2],
            np.array(["b", "a"])[y[two[::2]]],
            two[1::2],
            np.array(["b", "a"])[y[two[1::2]]],
        ),
        Task(UniProbe(), None, y),
        Task(LogRegProbe(), np.arange(300), y[:300], np.arange(300, 500), y[300:]),
    ]
    seen = []
    fitted = fit_many(X, tasks, on_progress=lambda done, total: seen.append((done, total)))
    assert fitted == [t.probe for t in tasks]
    assert seen[-1][0] == seen[-1][1]
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)
    assert list(fitted[2].classes_) == ["a", "b"]
    for task in tasks:
        rows = slice(None) if task.rows is None else task.rows
        again = type(task.probe)(**task.probe.get_params())
        if isinstance(again, LogRegProbe):
            again.set_params(C=task.probe.cost_)
        again.fit(X[rows], task.y)
        assert task.probe.objective_ == pytest.approx(again.objective_, rel=1e-6)
        assert task.probe.n_features_in_ == 40


def test_wrong_tasks_are_refused_before_anything_is_fitted() -> None:
    X, y = data(50, 10)
    good = UniProbe()

    def fails(
        message: Any, rows: Any, labels: Any, val_rows: Any = None, y_val: Any = None
    ) -> None:
        with pytest.raises(ValueError, match=message):
            bad = Task(LogRegProbe(), rows, labels, val_rows, y_val)
            fit_many(X, [Task(good, None, y), bad])
        assert not hasattr(good, "coef_")

    fails("one class", None, np.zeros(50))
    fails("named twice", np.array([0, 1, 1, 2]), np.array([0, 1, 1, 0]))
    fails("outside 0..49", np.array([0, 50]), np.array([0, 1]))
    fails("2 rows, but 3 labels", np.array([0, 1]), np.array([0, 1, 0]))
    fails("labels that y lacks", None, y, np.array([0, 1]), np.array([0, 7]))


def test_nothing_to_fit_is_no_error() -> None:
    assert fit_many(np.zeros((3, 2), dtype=np.float32), []) == []
