"""Parts of the lockstep solver: groups, sweeps, shapes, directions, shorter steps."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from probes.solver import lockstep, solver
from probes.solver.curvature import Moments, Shape
from probes.solver.memory import Memory
from probes.solver.problems import Problem
from probes.solver.solver import fit_many
from probes.solver.sweeps import make_group, sweep
from tests.making.problems import data, formula, oracle


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
    with ThreadPoolExecutor(2) as run:
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
    with ThreadPoolExecutor(2) as run:
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
