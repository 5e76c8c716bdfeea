"""Probes trained where a factor goes with the label: what it costs on a test set where it does not.

The protocol of PathoROB (Kömen et al. 2025): training sets from balanced to wholly confounded, a
test set that stays, as many rows each. Its reductions as croma 1.0.0 has them: APD, the mean change
of accuracy relative to the balanced one, and nIPD, the area under its loss above chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.methods.linear import UniProbe
from probes.methods.together import Task, fit_many

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""How strongly the factor goes with the label in training: Cramér's V of each step."""
DRAWS = 10
"""Train and test sets that are drawn anew, by slides."""
FEWEST = 10
"""Rows that the scarcest of label and value must have for training, and as test."""


@dataclass(frozen=True)
class Sweep:
    """Balanced accuracies of each strength and draw, (S, R), and how many rows trained each."""

    accuracies: Floats
    n_train: int

    @property
    def apd(self) -> float:
        """Return the mean over draws and strengths of accuracy against the balanced one, less 1."""
        if not (self.accuracies[0] > 0).all():
            return float("nan")
        return float((self.accuracies[1:] / self.accuracies[0]).mean() - 1)

    @property
    def nipd(self) -> float:
        """Return the area under the loss of skill above chance, over STRENGTHS; NaN without skill.

        0: nothing is lost; -0.5: skill falls evenly to chance.
        """
        mean = self.accuracies.mean(axis=1)
        skill = mean[0] - 0.5
        if skill <= 0:
            return float("nan")
        lost = (mean - mean[0]) / skill
        return float(np.trapezoid(lost, STRENGTHS))


def biased_sweep(
    x: NDArray[np.floating], labels: Codes, factor: Codes, groups: Codes, seed: int = 0
) -> Sweep | None:
    """Return the sweep over two labels and two values of a factor; None where rows are too few.

    x (n, d) float; labels and factor (n,) are 0 or 1; groups (n,) say which rows stay on one side.
    The probe is UNI's, which has nothing to choose, so that all rows drawn train it.
    """
    rng = np.random.default_rng(seed)
    matrix = np.ascontiguousarray(x, dtype=np.float32)
    draws = [_draw(rng, labels, factor, groups) for _ in range(DRAWS)]
    sizes = [(min(map(len, train)), min(map(len, test))) for train, test in draws]
    # Of a wholly confounded set two of four cells train, with twice as many rows each.
    n_half = min(train for train, _ in sizes) // 2
    n_test = min(test for _, test in sizes)
    if n_half < FEWEST or n_test < FEWEST:
        return None
    tasks, tests = [], []
    for train, test in draws:
        tests.append(np.concatenate([cell[:n_test] for cell in test]))
        tasks += [_task(train, labels, n_half, v) for v in STRENGTHS]
    probes = fit_many(matrix, tasks)
    accuracies = np.empty((len(STRENGTHS), DRAWS))
    for k, probe in enumerate(probes):
        draw, step = divmod(k, len(STRENGTHS))
        at = tests[draw]
        right = probe.predict(matrix[at]) == labels[at]
        accuracies[step, draw] = np.mean([right[labels[at] == c].mean() for c in (0, 1)])
    return Sweep(accuracies, 4 * n_half)


def _draw(
    rng: np.random.Generator, labels: Codes, factor: Codes, groups: Codes
) -> tuple[list[Codes], list[Codes]]:
    """Return rows of the four cells of label and factor to train on, and to test: by group."""
    names = rng.permutation(np.unique(groups))
    # Groups of each value in turn, so that a third of each is tested.
    value_of = {g: int(factor[groups == g][0]) for g in names}
    tested = {g for v in (0, 1) for g in [n for n in names if value_of[n] == v][::3]}
    in_test = np.array([g in tested for g in groups], dtype=bool)
    cells: tuple[list[Codes], list[Codes]] = ([], [])
    for side, mine in zip(cells, (~in_test, in_test), strict=True):
        for label in (0, 1):
            for value in (0, 1):
                rows = np.flatnonzero(mine & (labels == label) & (factor == value))
                side.append(rng.permutation(rows))
    return cells


def _task(train: Sequence[Codes], labels: Codes, n_half: int, strength: float) -> Task:
    """Return the fit of one strength: cells (0, 0) and (1, 1) grow as the others shrink."""
    more, fewer = round(n_half * (1 + strength)), round(n_half * (1 - strength))
    parts = [cell[:size] for cell, size in zip(train, (more, fewer, fewer, more), strict=True)]
    rows = np.concatenate(parts)
    return Task(UniProbe(), rows, labels[rows])
