"""AUROC by ranks against scikit-learn's, as a whole and without each block."""

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from probes.scores.joint import Fold, Test, joint, jointly, paired
from probes.scores.metrics import evaluate
from probes.scores.ranking import auroc_without


@given(st.integers(0, 100_000), st.integers(4, 60), st.integers(1, 8), st.integers(2, 30))
@settings(max_examples=150)
def test_each_value_is_scikit_learns(seed: int, n: int, n_blocks: int, n_scores: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n).astype(bool)
    score = rng.integers(0, n_scores, n).astype(float)  # many ties
    blocks = rng.integers(0, n_blocks, n)
    whole, without = auroc_without(y, score, blocks, n_blocks)

    def expected(at: Any) -> float:
        if len(np.unique(y[at])) < 2:
            return float("nan")
        return float(roc_auc_score(y[at], score[at]))

    assert whole == pytest.approx(expected(np.ones(n, bool)), nan_ok=True)
    each = [expected(blocks != b) for b in range(n_blocks)]
    assert without == pytest.approx(np.array(each), nan_ok=True)


def auroc_of(t: Test, w: Any) -> Any:
    return evaluate(t.y, t.p, w, 0.5, ["auroc"])["auroc"]


def test_jointly_it_is_what_weights_say() -> None:
    """The quick way of AUROC and the one of all other metrics are one definition."""
    rng = np.random.default_rng(0)
    tests = []
    for n in (40, 70):
        y = rng.integers(0, 2, n)
        s = rng.normal(size=n).round(1)
        groups = [f"s{k}" for k in rng.integers(0, 9, n)]
        tests.append(Test(y, np.column_stack((-s, s)), groups))
    quick = joint(tests)
    slow = jointly(
        [t.groups for t in tests],
        [functools.partial(auroc_of, t) for t in tests],
    )
    assert quick.values == pytest.approx(slow.values)
    assert quick.without == pytest.approx(slow.without, nan_ok=True)
    f = Fold(tests[0].y, tests[0].p, -tests[0].p, tests[0].groups)
    assert paired([f]).difference == pytest.approx(2 * quick.values[0] - 1)
