"""Many fits at once: each against plain minimisers, alone, in any order and company."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from probes.solver import lockstep, packed, solver
from probes.solver.curvature import Moments, Shape
from probes.solver.memory import Memory
from probes.solver.problems import Problem
from probes.solver.solver import fit_many
from probes.solver.sweeps import make_group, sweep


def data(n: Any = 300, d: Any = 80, seed: Any = 0, signal: Any = 1.0, share: Any = 0.5) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    y[:2] = [True, False]
    direction = rng.normal(size=d) / np.sqrt(d)
    scale = np.arange(1, d + 1) ** -0.5
    X = (rng.normal(size=(n, d)) + signal * np.outer(y, direction * np.sqrt(d) / 2)) * scale + 0.3
    return X.astype(np.float32), y


def formula(v: Any, b: Any, X: Any, y: Any, strength: Any, squared: Any) -> Any:
    """The objective in plain float64."""
    z = X.astype(np.float64) @ v + b
    norm = np.sqrt(np.sum(v**2))
    penalty = strength / 2 * norm**2 if squared else strength * norm
    return np.mean(np.logaddexp(0, np.where(y, -z, z))) + penalty


def oracle(X: Any, y: Any, strength: Any, squared: Any) -> Any:
    """A plain minimiser that shares no code: columns standardised, penalty on the original v."""
    X = X.astype(np.float64)
    mean, sd = X.mean(axis=0), X.std(axis=0)
    sd[sd == 0] = 1
    Z = (X - mean) / sd

    def flat(p: Any) -> Any:
        v, z = p[:-1] / sd, Z @ p[:-1] + p[-1]
        norm = np.sqrt(np.sum(v**2))
        r = (1 / (1 + np.exp(-z)) - y) / len(y)
        penalty = strength / 2 * norm**2 if squared else strength * norm
        slope = Z.T @ r + strength * v / sd / (1 if squared else norm)
        return np.mean(np.logaddexp(0, np.where(y, -z, z))) + penalty, np.append(slope, r.sum())

    best = None
    for seed in range(2):
        start = np.random.default_rng(seed).normal(size=X.shape[1] + 1) * 0.01
        found = minimize(
            flat,
            start,
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": 50_000,
                "maxfun": 200_000,
                "maxcor": 100,
                "ftol": 1e-15,
                "gtol": 1e-11,
            },
        )
        best = found if best is None or found.fun < best.fun else best
    v = best.x[:-1] / sd
    return v, best.x[-1] - mean @ v, best.fun


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


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_company_and_order_do_not_matter(draw: Any) -> None:
    X, y = data(240, 60, seed=draw.draw(st.integers(0, 99)))
    problems = []
    for _ in range(draw.draw(st.integers(2, 6))):
        first, n = draw.draw(st.integers(0, 150)), draw.draw(st.integers(12, 200))
        rows = np.arange(first, min(first + n, 240))
        rows = rows[
            np.random.default_rng(n).random(len(rows)) < draw.draw(st.sampled_from([0.5, 1]))
        ]
        rows = np.union1d(rows, [np.flatnonzero(y)[0], np.flatnonzero(~y)[0]])
        rows = np.random.default_rng(n).permutation(rows)
        problems.append(
            Problem(
                rows,
                y[rows] ^ draw.draw(st.booleans()),
                draw.draw(st.sampled_from([0.3, 0.02, 0.002])),
                draw.draw(st.booleans()),
                tol=1e-11,
            )
        )
    old = solver.SMALL_SIDE
    try:
        solver.SMALL_SIDE = draw.draw(st.sampled_from([0, 30]))
        together = fit_many(X, problems)
        turned = fit_many(X, problems[::-1])[::-1]
        alone = [fit_many(X, [p])[0] for p in problems]
    finally:
        solver.SMALL_SIDE = old
    for p, a, b, c in zip(problems, together, turned, alone, strict=True):
        values = [
            formula(s.v, s.b, X[p.rows], p.positive, p.strength, p.squared) for s in (a, b, c)
        ]
        assert max(values) <= min(values) * (1 + 1e-9) + 1e-12
        assert a.collapsed == b.collapsed == c.collapsed
        scores = [X @ s.v + s.b for s in (a, b, c)]
        aurocs = [roc_auc_score(y, s) for s in scores]
        assert max(aurocs) - min(aurocs) <= 1e-4


def test_every_run_gives_the_same_bits_on_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(solver, "SMALL_SIDE", 20)
    X, y = data(5000, 70)
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.permutation(5000)[:m]) for m in (3200, 3200, 400, 400, 15)]
    problems = [Problem(r, y[r], 0.01) for r in rows]
    one, two, three = (fit_many(X, problems, n_threads=k) for k in (1, 2, 3))
    for a, b, c in zip(one, two, three, strict=True):
        np.testing.assert_array_equal(a.v, b.v)
        np.testing.assert_array_equal(a.v, c.v)
        assert a.b == b.b == c.b


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
    slope = np.linalg.norm((X - X.mean(axis=0)).T.astype(float) @ (y - y.mean())) / len(y)
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


def test_folds_form_a_group_and_train_domains_a_lot() -> None:
    n, rng = 4000, np.random.default_rng(0)
    folds = [np.sort(rng.permutation(n)[:2560]) for _ in range(5)]
    tenths = [f[::10] for f in folds]
    domains = [np.arange(k * 1000, (k + 1) * 1000)[rng.random(1000) < 0.64] for k in range(4)]
    rows = [*folds, *tenths, *domains]
    problems = [Problem(r, np.arange(len(r)) % 2 == 0, 1.0) for r in rows]
    families = solver._families(n, problems, range(len(rows)))
    assert sorted(map(sorted, families))[0] == [0, 1, 2, 3, 4]
    assert all(len(f) == 1 for f in families if f[0] >= 5)
    X = np.zeros((n, 3), dtype=np.float32)
    drafts = solver._drafts([make_group(X, problems, f) for f in families])
    lots = [sorted(int(k) for g in draft.groups for k in g.members) for draft in drafts]
    assert sorted(lots) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13]]


@pytest.mark.parametrize("scattered", [False, True])
def test_a_sweep_is_the_sum_over_rows(scattered: bool) -> None:
    X, y = data(5000, 30)
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(rng.random(5000) < (0.2 if scattered else 0.9)) for _ in range(3)]
    problems = [Problem(r, y[r], 1.0) for r in rows]
    group = make_group(X, problems, [0, 1, 2])
    assert isinstance(group.rows, slice) != scattered
    v, b = rng.normal(size=(3, 30)), rng.normal(size=3)
    with solver.ThreadPoolExecutor(2) as run:
        point = sweep([group], [np.array([0, 2])], v, b, dtype=np.float64, shift=None, run=run)[0]
    for at, k in enumerate((0, 2)):
        Z, s = X[rows[k]].astype(float), y[rows[k]]
        z = Z @ v[k] + b[k]
        p = 1 / (1 + np.exp(-z))
        assert point.value[at] == pytest.approx(formula(v[k], b[k], X[rows[k]], s, 0, False))
        np.testing.assert_allclose(point.slope[at], Z.T @ (p - s) / len(s), atol=1e-10)
        assert point.slope_b[at] == pytest.approx((p - s).mean())
        assert point.bend[at] == pytest.approx((p * (1 - p)).mean())


def test_the_shape_is_the_covariance_within_classes_plus_ridge() -> None:
    X, _ = data(3000, 40)
    half = np.arange(3000) < 1500
    X[half] += 3
    with solver.ThreadPoolExecutor(2) as run:
        moments = Moments(X, np.arange(3000), np.column_stack((half, ~half)), run)
        shape = Shape(moments, np.array([0, 1]), 2)
        right = np.random.default_rng(0).normal(size=(2, 40))
        found = shape.solve(np.arange(2), np.array([0.01, 3.0]), right)
    Z = X.astype(float)
    Z[half] -= Z[half].mean(axis=0)
    Z[~half] -= Z[~half].mean(axis=0)
    for k in range(2):
        matrix = Z.T @ Z / 3000 + shape.ridges[k] * np.eye(40)
        np.testing.assert_allclose(matrix @ found[k], right[k], atol=2e-3)
        asked = (0.01, 3.0)[k] * 4
        assert asked / 4 <= shape.ridges[k] <= asked * 4


def test_directions_follow_the_textbook_recursion() -> None:
    rng = np.random.default_rng(0)
    hessian = np.diag(rng.uniform(0.5, 4, 12))
    memory, pairs = Memory(2, 3, 12), []
    for k in range(5):
        s = rng.normal(size=(2, 12))
        y = s @ hessian
        who = np.array([0, 1]) if k != 2 else np.array([1])
        memory.push(who, s[who], y[who])
        pairs.append((s, y, who))
    g = rng.normal(size=(2, 12))
    found = memory.direction(np.arange(2), g, lambda q: 0.5 * q)
    for k in range(2):
        last = [(s[k], y[k]) for s, y, who in pairs[-3:] if k in who]
        q, kept = g[k].copy(), []
        for s, y in reversed(last):
            a = s @ q / (s @ y)
            q -= a * y
            kept.append(a)
        q *= 0.5
        for (s, y), a in zip(last, reversed(kept), strict=True):
            q += (a - y @ q / (s @ y)) * s
        np.testing.assert_allclose(found[k], -q, atol=1e-5)


def test_lockstep_shortens_steps_that_go_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first ridge far too small makes the first steps far too long."""
    monkeypatch.setattr(solver, "SMALL_SIDE", 0)
    monkeypatch.setattr(lockstep, "FIRST_RIDGE", 1e-9)
    X, y = data(300, 250, signal=3.0)
    found = fit_many(X, [Problem(None, y, 0.02)])[0]
    value = oracle(X, y, 0.02, False)[2]
    assert formula(found.v, found.b, X, y, 0.02, False) <= value * (1 + 1e-6)


@pytest.mark.parametrize("d", [1, 2, 7, 8, 41])
def test_packed_matrices_are_factored_and_solved(d: int) -> None:
    rng = np.random.default_rng(d)
    Z, columns = rng.normal(size=(3 * d + 9, d)), 0.1 * rng.normal(size=(d, 2))
    matrix = np.asfortranarray(Z.T @ Z / len(Z), dtype=np.float32)
    held = packed.subtract_outer(packed.pack(matrix), np.asfortranarray(columns, dtype=np.float32))
    held[packed.diagonal(d)] += np.float32(0.5)
    assert packed.factor(held, d)
    right = rng.normal(size=(3, d))
    found = packed.solve(held, right.astype(np.float32))
    dense = matrix - columns @ columns.T + 0.5 * np.eye(d)
    np.testing.assert_allclose(found @ dense, right, atol=1e-4)
    assert not packed.factor(packed.pack(-matrix), d)
