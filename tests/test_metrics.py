"""Metrics against their definitions, counted out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.metrics import METRICS, evaluate

LABELS_AND_SCORES = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0])),
    min_size=2, max_size=40,
).filter(lambda rows: len({y for y, _ in rows}) == 2)  # fmt: skip


def arrays(rows):
    y = np.array([int(label) for label, _ in rows])
    p = np.array([score for _, score in rows])
    return y, np.column_stack((1 - p, p))


@settings(max_examples=100, deadline=None)
@given(rows=LABELS_AND_SCORES)
def test_two_labels_by_definition(rows):
    y, p = arrays(rows)
    found = evaluate(y, p)
    pos, neg = p[y == 1, 1], p[y == 0, 1]
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in pos for b in neg]
    assert found["auroc"] == pytest.approx(sum(pairs) / len(pairs))
    # Average precision: precision at each distinct threshold times the recall it adds.
    expected, recall = 0.0, 0.0
    for t in sorted(set(p[:, 1]), reverse=True):
        taken = p[:, 1] >= t
        now = (taken & (y == 1)).sum() / len(pos)
        expected += (now - recall) * (taken & (y == 1)).sum() / taken.sum()
        recall = now
    assert found["average_precision"] == pytest.approx(expected)
    predicted = [int(q > 1 - q) for q in p[:, 1]]
    recalls = [
        np.mean([a == b for a, b in zip(predicted, y, strict=True) if b == c]) for c in (0, 1)
    ]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["brier"] == pytest.approx(
        np.mean([(q - t) ** 2 for q, t in zip(p[:, 1], y, strict=True)])
    )


def test_three_labels_by_definition():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    p = rng.dirichlet(np.ones(3), 60)
    found = evaluate(y, p)
    per_label = [evaluate((y == k).astype(int), np.column_stack((1 - p[:, k], p[:, k])))
                 for k in range(3)]  # fmt: skip
    for name in ("auroc", "average_precision"):
        assert found[name] == pytest.approx(np.mean([m[name] for m in per_label]))
    assert found["brier"] == pytest.approx(sum(m["brier"] for m in per_label))
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([(p.argmax(1)[y == k] == k).mean() for k in range(3)]))  # fmt: skip


def test_one_label_in_test_has_no_value():
    found = evaluate(np.zeros(5, int), np.full((5, 2), 0.5))
    assert found.keys() == METRICS.keys()
    assert all(math.isnan(v) for v in found.values())
