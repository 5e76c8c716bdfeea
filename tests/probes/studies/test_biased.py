"""Biased probes: croma's reductions, what trains each, and a planted confounder."""

from typing import Any

import croma
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from probes.methods.linear import UniProbe
from probes.methods.together import fit_many
from probes.studies import biased
from probes.studies.biased import STRENGTHS, Sweep, biased_sweep


def planted(confounder: float, seed: int = 0, n: int = 1600) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 40, n)
    factor = groups % 2
    labels = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 120))
    x[:, 0] += 1.5 * labels
    x[:, 1] += confounder * factor
    return x, labels, factor, groups


def test_the_reductions_are_cromas() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        accuracies = np.clip(0.8 - rng.random((len(STRENGTHS), 7)) * 0.3, 0.51, 1)
        sweep = Sweep(accuracies, 100)
        assert sweep.apd == pytest.approx(croma.apd(accuracies), abs=1e-12)
        expected = croma.nipd(accuracies, STRENGTHS, 0.5)
        assert sweep.nipd == pytest.approx(expected, abs=1e-12)
    chance = Sweep(np.full((len(STRENGTHS), 3), 0.5), 100)
    assert np.isnan(chance.nipd)
    assert chance.apd == 0


def test_a_planted_confounder_costs_and_none_does_not() -> None:
    strong, none = biased_sweep(*planted(3.0)), biased_sweep(*planted(0.0))
    assert strong is not None
    assert none is not None
    assert strong.apd < -0.1
    assert strong.nipd < -0.2
    assert abs(none.apd) < 0.04
    # Accuracy falls with the strength.
    mean = strong.accuracies.mean(axis=1)
    assert mean[0] > mean[2] > mean[4]
    again = biased_sweep(*planted(3.0))
    assert again is not None
    assert again.accuracies.tolist() == strong.accuracies.tolist()


def test_training_sets_are_as_bound_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: Cramer's V counted, each probe fitted alone, its accuracy by scikit-learn."""
    x, labels, factor, groups = planted(2.0)
    seen: list[Any] = []

    def watched(matrix: Any, tasks: Any) -> Any:
        seen.extend(tasks)
        return fit_many(matrix, tasks)

    monkeypatch.setattr(biased, "fit_many", watched)
    sweep = biased_sweep(x, labels, factor, groups)
    assert sweep is not None
    for k, task in enumerate(seen[:10]):
        rows = task.rows
        table = np.array(
            [[((labels[rows] == a) & (factor[rows] == b)).sum() for b in (0, 1)] for a in (0, 1)]
        )
        v = (table[0, 0] * table[1, 1] - table[0, 1] * table[1, 0]) / np.sqrt(
            table.sum(0).prod() * table.sum(1).prod()
        )
        assert v == pytest.approx(STRENGTHS[k % len(STRENGTHS)], abs=0.02)
        assert len(rows) == sweep.n_train
        # What is tested lies on slides that trained nothing: about as well on all of those.
        trained = np.concatenate(
            [t.rows for t in seen[:5]] if k < 5 else [t.rows for t in seen[5:10]]
        )
        outside = ~np.isin(groups, groups[trained])
        alone = UniProbe().fit(x[rows].astype(np.float32), labels[rows])
        accuracy = balanced_accuracy_score(
            labels[outside], alone.predict(x[outside].astype(np.float32))
        )
        draw, step = divmod(k, len(STRENGTHS))
        assert accuracy == pytest.approx(sweep.accuracies[step, draw], abs=0.05)


def test_too_few_rows_give_nothing() -> None:
    x, labels, factor, groups = planted(1.0, n=80)
    assert biased_sweep(x, labels, factor, groups) is None
    x, labels, factor, groups = planted(1.0)
    assert biased_sweep(x, labels, np.zeros_like(factor), groups) is None
    # A probe that collapses loses nothing, and that is no robustness.
    flat = biased_sweep(x[:, 2:6], labels, factor, groups)
    assert flat is not None
    assert np.isnan(flat.nipd)
