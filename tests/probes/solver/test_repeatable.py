"""The same bits in any company, in any order, on any number of threads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from probes.solver import solver
from probes.solver.problems import Problem
from probes.solver.solver import fit_many
from tests.making.problems import data, formula


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
