"""Many fits at once: each against plain minimisers, alone, in any order and company."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from probes.solver import solver
from probes.solver.problems import Problem
from probes.solver.solver import fit_many
from tests.making.problems import data, formula, oracle


@pytest.fixture(params=["newton", "lockstep"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways to solve, on the same problems."""
    if request.param == "lockstep":
        monkeypatch.setattr(solver, "SMALL_SIDE", 0)
    return request.param


def awkward(case: Any) -> Any:
    """A problem of each kind that has broken a solver before, and rows to score."""
    shape = {"more columns": (60, 164), "tiny": (6, 200)}.get(case, (400, 90))
    n, d = shape
    X, y = data(n + 500, d, share=0.06 if case == "imbalanced" else 0.4)
    rng = np.random.default_rng(1)
    if case == "separable":
        X = X + 4 * np.outer(y - 0.5, np.ones(d)).astype(np.float32)
    elif case == "repeated rows":
        X[n // 2 : n], y[n // 2 : n] = X[: n // 2], y[: n // 2]
    elif case == "constant columns":
        X[:, ::3] = [7.0]
    elif case == "scales":
        X = X * (10 ** rng.uniform(-3, 3, d)).astype(np.float32)
    elif case == "offset":
        X = X + 100 * X.std(axis=0) * rng.choice([-1, 1], d).astype(np.float32)
    elif case == "half precision":
        X = X.astype(np.float16).astype(np.float32)
    return X, y, n


CASES = [
    "more columns",
    "more rows",
    "tiny",
    "imbalanced",
    "separable",
    "repeated rows",
    "constant columns",
    "scales",
    "offset",
    "half precision",
]


@functools.cache
def solved(case: Any, squared: Any, strength: Any) -> Any:
    """The oracle's answer, which is the same whichever way ours is found."""
    X, y, n = awkward(case)
    return oracle(X[:n], y[:n], strength, squared)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("squared", "strength"), [(False, 0.02), (True, 1e-3)])
def test_no_plain_minimiser_does_better(
    route: Any, case: Any, squared: bool, strength: float
) -> None:
    X, y, n = awkward(case)
    found = fit_many(X, [Problem(np.arange(n), y[:n], strength, squared)])[0]
    v, b, value = solved(case, squared, strength)
    mine = formula(found.v, found.b, X[:n], y[:n], strength, squared)
    assert found.converged
    assert mine <= value * (1 + 1e-6)
    assert value <= mine * (1 + 1e-6)
    assert found.value == pytest.approx(mine, rel=1e-6)
    ours, theirs = (
        roc_auc_score(y[n:], X[n:].astype(float) @ w + c) for w, c in ((found.v, found.b), (v, b))
    )
    assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(1500, 600), (700, 900)])
def test_at_sizes_that_go_in_lockstep_by_themselves(n: int, d: int) -> None:
    X, y = data(n, d)
    assert not solver._is_small(Problem(None, y, 0.01), d)
    found = fit_many(X, [Problem(None, y, 0.01), Problem(None, y, 1e-3, squared=True)])
    for solution, strength, squared in zip(found, (0.01, 1e-3), (False, True), strict=True):
        value = oracle(X, y, strength, squared)[2]
        assert formula(solution.v, solution.b, X, y, strength, squared) <= value * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(4, 90),
    d=st.integers(1, 120),
    seed=st.integers(0, 999),
    squared=st.booleans(),
    strength=st.sampled_from([1e-3, 0.03, 1.0]),
    small=st.sampled_from([0, 512]),
)
def test_at_the_minimum_no_direction_goes_down(
    n: Any, d: Any, seed: Any, squared: Any, strength: Any, small: Any
) -> None:
    X, y = data(n, d, seed)
    old = solver.SMALL_SIDE
    try:
        solver.SMALL_SIDE = small
        found = fit_many(X, [Problem(None, y, strength, squared, tol=1e-12)])[0]
    finally:
        solver.SMALL_SIDE = old
    Z = X.astype(np.float64)
    r = (1 / (1 + np.exp(-(Z @ found.v + found.b))) - y) / n
    slope, norm = Z.T @ r, np.linalg.norm(found.v)
    assert abs(r.sum()) < 1e-6
    assert found.collapsed == (norm == 0)
    if found.collapsed:
        assert np.linalg.norm(slope) <= strength * (1 + 1e-6)  # the subgradient holds zero
        assert not squared
    else:
        slope += strength * found.v / (1 if squared else norm)
        assert np.linalg.norm(slope) < 1e-5


def test_collapse_is_found_on_both_routes(route: Any) -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3000, 4)).astype(np.float32), rng.random(3000) < 0.25
    slope = float(np.linalg.norm((X - X.mean(axis=0)).T.astype(float) @ (y - y.mean()))) / len(y)
    stays, goes = fit_many(X, [Problem(None, y, slope * (1 + k)) for k in (1e-3, -1e-3)])
    assert stays.collapsed
    assert stays.converged
    assert not stays.v.any()
    assert stays.b == pytest.approx(np.log(y.mean() / (1 - y.mean())))
    assert not goes.collapsed
    assert goes.value < formula(np.zeros(4), goes.b, X, y, 0, False)
    assert goes.converged


def test_rows_far_from_zero_need_no_help_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "SMALL_SIDE", 0)
    X, y = data(2000, 50)
    far = X + np.float32(1000) * X.std(axis=0).astype(np.float32)
    found = fit_many(far, [Problem(None, y, 0.01)])[0]
    assert formula(found.v, found.b, far, y, 0.01, False) <= oracle(far, y, 0.01, False)[2] * (
        1 + 1e-6
    )


def test_where_float32_finds_no_step_down_float64_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "SMALL_SIDE", 0)
    monkeypatch.setattr(solver, "FAR", np.inf)
    X, y = data(2000, 50)
    X = X + np.float32(3000)
    found = fit_many(X, [Problem(None, y, 0.01, tol=1e-8)])[0]
    assert found.converged
    assert formula(found.v, found.b, X, y, 0.01, False) <= oracle(X, y, 0.01, False)[2] * (1 + 1e-6)


def test_a_start_near_the_optimum_saves_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "SMALL_SIDE", 0)
    X, y = data(3000, 100)
    problem = Problem(None, y, 1e-4, squared=True)
    cold = fit_many(X, [problem])[0]
    warm = fit_many(X, [Problem(None, y, 1e-4, squared=True, start=(cold.v, cold.b))])[0]
    assert warm.n_iter < cold.n_iter / 2
    assert warm.value <= cold.value * (1 + 1e-7)


def test_too_few_steps_are_reported(route: Any) -> None:
    X, y = data()
    found = fit_many(X, [Problem(None, y, 1e-3, max_iter=2)])[0]
    assert found.n_iter == 2
    assert not found.converged
    assert found.gap > 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_what_is_not_finite_is_refused(route: Any, bad: Any) -> None:
    X, y = data()
    X[7, 3] = bad
    if bad == 1e38 and route == "newton":  # which is at home in float64
        assert np.isfinite(fit_many(X, [Problem(None, y, 0.01)])[0].v).all()
        return
    with pytest.raises(ValueError, match="NaN"):
        fit_many(X, [Problem(None, y, 0.01)])


def test_progress_counts_problems() -> None:
    X, y = data(1200, 600)
    rows = np.arange(40)
    seen = []
    fit_many(
        X,
        [Problem(None, y, 0.01), Problem(rows, y[rows], 0.01)],
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(0, 2), (1, 2), (2, 2)]
