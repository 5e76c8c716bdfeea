"""The shape of many Hessians from one sample: covariance plus ridge, factored in float32.

A problem's Hessian is near c * (covariance + ridge * I), with c its mean curvature of the loss. All
problems of a matrix draw on one Gram matrix of sampled rows; what differs between lots is the
centring (each sampled row about the mean of its own group) and between problems the ridge.
"""

from concurrent.futures import Executor
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from probes.solver import packed
from probes.solver.problems import Floats, Indices, Matrix, check_finite
from probes.solver.sweeps import take

Single = packed.Single

PANEL = 384
"""Columns of one block of the Gram matrix; only blocks on and above the diagonal are computed."""

CHUNK = 512
"""Sampled rows in memory at a time."""

RIDGE_STEP = 4.0
"""A factored matrix serves ridges up to this many times larger or smaller than its own."""

SHRINK = 4.0
"""How much larger a ridge to use than the penalty's: a sample's smallest eigenvalues are too small,
a problem's own covariance strays from the sample's, and too steep a shape costs more than too flat
a one. Of 1, 2, 4, 8, 16 it needs the fewest reads: a quarter fewer than 1 where rows are few."""


class Moments:
    """Moments of sampled rows about a point near their mean.

    origin: float64 (d,), that point. square: float32, the mean outer product, packed. scale: the
    mean of its diagonal. shares, means: float64 (q,) and (q, d): each class's part of the sample,
    and its mean less origin (zero for a class without rows).
    """

    def __init__(
        self, x: Matrix, sample: Indices, classes: NDArray[np.bool_], run: Executor
    ) -> None:
        """Take x's rows `sample`; classes (len(sample), q): which of them count for each mean."""
        d = x.shape[1]
        self.origin = take(x, sample, 0, CHUNK).mean(axis=0, dtype=np.float64)
        upper: Single = np.zeros((d, d), dtype=np.float32)
        self.means = np.zeros((classes.shape[1], d))
        panels = [slice(i, min(i + PANEL, d)) for i in range(0, d, PANEL)]
        blocks = [(a, b) for k, a in enumerate(panels) for b in panels[k:]]
        shift = self.origin.astype(x.dtype)

        def chunk(i: int) -> Single:
            with np.errstate(over="ignore", invalid="ignore"):  # found below
                rows = take(x, sample, i, i + CHUNK)
                rows -= shift
                return np.asarray(rows, dtype=np.float32)

        def add(block: tuple[slice, slice], rows: Single) -> None:
            a, b = block
            with np.errstate(over="ignore", invalid="ignore"):
                upper[a, b] += rows[:, a].T @ rows[:, b]

        following = run.submit(chunk, 0)
        for i in range(0, len(sample), CHUNK):
            rows = following.result()
            following = run.submit(chunk, i + CHUNK)
            list(run.map(add, blocks, repeat(rows)))
            check_finite(upper.diagonal())
            self.means += classes[i : i + CHUNK].T.astype(np.float32) @ rows
        n = classes.sum(axis=0)
        upper /= np.float32(len(sample))
        self.means /= np.maximum(n, 1)[:, None]
        self.shares = n / len(sample)
        self.scale = float(upper.diagonal().mean())
        self.square: Single = packed.pack(upper.T)


class Shape:
    """Solves with (covariance + ridge I) for the problems of one lot, each with its own ridge."""

    def __init__(self, moments: Moments, classes: Indices, n_problems: int) -> None:
        """Centre the covariance by these classes of the moments, which share no row."""
        self.square, self.scale = moments.square, moments.scale
        weights = np.sqrt(moments.shares[classes])[:, None]
        self.between: Single = np.asfortranarray((weights * moments.means[classes]).T, np.float32)
        self.ridges = np.zeros(n_problems)
        self._factors: dict[float, Single] = {}

    def solve(self, who: Indices, ridges: Floats, right: Floats) -> Floats:
        """Return (covariance + ridge I)^-1 right, float64 (k, d), for the problems `who`.

        The ridge used is up to RIDGE_STEP times off SHRINK times the one asked for: self.ridges.
        """
        asked = np.maximum(SHRINK * ridges, 1e-6 * self.scale + float(np.finfo(np.float32).tiny))
        own_ridges = self.ridges[who]
        off = (asked > RIDGE_STEP * own_ridges) | (asked < own_ridges / RIDGE_STEP)
        own_ridges[off] = (RIDGE_STEP ** np.round(np.log(asked) / np.log(RIDGE_STEP)))[off]
        self.ridges[who] = own_ridges
        for ridge in set(self._factors) - set(self.ridges.tolist()):
            del self._factors[ridge]
        result = np.empty_like(right)
        for ridge in sorted({float(r) for r in own_ridges}):
            if ridge not in self._factors:
                self._factors[ridge] = self._factor(ridge)
            some = own_ridges == ridge
            result[some] = packed.solve(self._factors[ridge], right[some].astype(np.float32))
        return result

    def _factor(self, ridge: float) -> Single:
        lift, d = ridge, len(self.between)
        while True:
            matrix = packed.subtract_outer(self.square, self.between)
            matrix[packed.diagonal(d)] += np.float32(lift)
            if packed.factor(matrix, d):
                return matrix
            lift = max(4 * lift, 1e-6 * self.scale)  # rounding ate the smallest eigenvalues
