"""L-BFGS directions for many problems at once (compact form: Byrd, Nocedal and Schnabel 1994)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from probes.solver.problems import Floats, Indices

Single = NDArray[np.float32]


class Memory:
    """The last `size` steps and turns (changes of slope) of each problem, in order of time.

    A problem that takes no part in a push gets a pair of zeros, which changes nothing.
    """

    def __init__(self, n_problems: int, size: int, dim: int) -> None:
        """Start empty."""
        self.steps: Single = np.zeros((n_problems, size, dim), dtype=np.float32)
        self.turns: Single = np.zeros((n_problems, size, dim), dtype=np.float32)
        self.lengths = np.zeros((n_problems, size))  # each step's product with its own turn
        # Each step's product with every turn; ones stand for pairs of zeros.
        self.products = np.tile(np.eye(size), (n_problems, 1, 1))

    def push(self, who: Indices, steps: Floats, turns: Floats) -> None:
        """Add a pair for the problems `who`, where it is convex; the oldest pair of all goes."""
        for array in (self.steps, self.turns, self.lengths):
            array[:, :-1] = array[:, 1:]
            array[:, -1] = 0
        self.products[:, :-1, :-1] = self.products[:, 1:, 1:]
        self.products[:, -1, :] = self.products[:, :, -1] = 0
        self.products[:, -1, -1] = 1
        length = np.einsum("ij,ij->i", steps, turns)
        convex = length > 1e-12 * np.einsum("ij,ij->i", turns, turns)
        who, steps, turns, length = who[convex], steps[convex], turns[convex], length[convex]
        self.steps[who, -1], self.turns[who, -1] = steps, turns
        self.products[who, :, -1] = _times(self.steps[who], turns)
        self.products[who, -1, -1] = self.lengths[who, -1] = length

    def direction(self, who: Indices, slopes: Floats, solve: Callable[[Floats], Floats]) -> Floats:
        """Return -H slopes (k, dim); solve applies the inverse of the shape H starts from."""
        every = len(who) == len(self.steps)  # who is sorted: no copies
        steps, turns = (self.steps, self.turns) if every else (self.steps[who], self.turns[who])
        upper = np.triu(self.products[who])
        w = _divided(upper, _times(steps, slopes))
        rest = solve(slopes - _times(turns.transpose(0, 2, 1), w))
        a = _divided(upper.transpose(0, 2, 1), self.lengths[who] * w - _times(turns, rest))
        result: Floats = -(rest + _times(steps.transpose(0, 2, 1), a))
        return result


def _times(matrices: Single, vectors: Floats) -> Floats:
    """Return each problem's matrix times its vector: (k, a, b) by (k, b)."""
    product = matrices @ vectors[:, :, None].astype(np.float32)
    result: Floats = product[..., 0].astype(np.float64)
    return result


def _divided(matrices: Floats, vectors: Floats) -> Floats:
    """Return the solution of each problem's equations: (k, a, a) and right sides (k, a)."""
    return np.asarray(np.linalg.solve(matrices, vectors[:, :, None])[..., 0], dtype=np.float64)
