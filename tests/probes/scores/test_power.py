"""The power calculator, against simulated studies and the textbook's normal approximation."""

import numpy as np
import pytest
from scipy.stats import norm

from probes.scores.joint import Fold, paired
from probes.scores.power import groups_needed, power_of


def study(rng: np.random.Generator, n_slides: int, better: float) -> Fold:
    """Slides of 20 cells; both models see a cell's signal and the slide's own shift, a more."""
    n = 20 * n_slides
    slide = np.repeat(np.arange(n_slides), 20)
    y = np.tile([0, 1], n // 2)
    shift = rng.normal(0, 0.5, (2, n_slides))[:, slide]
    a = y * (1.0 + better) + shift[0] + rng.normal(size=n)
    b = y * 1.0 + shift[1] + rng.normal(size=n)
    p = [np.column_stack((-s, s)) for s in (a, b)]
    return Fold(y, p[0], p[1], [str(s) for s in slide])


def test_as_many_slides_as_it_says_find_a_difference_that_often() -> None:
    """Oracle: what 40 pilot slides say on average, then studies of that many slides."""
    rng = np.random.default_rng(0)
    pilots = [paired([study(rng, 40, 0.25)]) for _ in range(60)]
    difference = float(np.mean([p.difference for p in pilots]))
    error = float(np.sqrt(np.mean([p.error**2 for p in pilots])))
    n = groups_needed(difference, error, 40)
    assert n is not None
    assert n > 40
    found = np.mean([paired([study(rng, n, 0.25)]).p_value < 0.05 for _ in range(200)])
    assert 0.7 <= found <= 0.9
    half = np.mean([paired([study(rng, n // 2, 0.25)]).p_value < 0.05 for _ in range(200)])
    assert half == pytest.approx(power_of(difference, error, 40, n // 2), abs=0.1)


def test_many_slides_are_the_normal_approximation() -> None:
    n = groups_needed(0.01, 0.01, 400)
    textbook = 400 * (norm.ppf(0.975) + norm.ppf(0.8)) ** 2
    assert n == pytest.approx(textbook, rel=0.01)
    assert groups_needed(0.5, 0.001, 10) == 2  # nothing smaller can be tested
    assert groups_needed(0.02, 0.02, 30, 0.9) > groups_needed(0.02, 0.02, 30)  # type: ignore[operator]


def test_what_cannot_be_reckoned_is_not() -> None:
    assert groups_needed(0.0, 0.1, 10) is None
    assert groups_needed(0.1, 0.0, 10) is None
    assert groups_needed(float("nan"), 0.1, 10) is None
    assert groups_needed(1e-6, 0.5, 10) is None
