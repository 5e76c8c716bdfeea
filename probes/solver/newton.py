"""One small problem to its optimum: damped Newton with the whole Hessian, in float64.

Where there are fewer rows than columns the optimum lies in the span of the rows (any part of v
outside it costs penalty and changes no logit), so the unknowns are the rows' n coefficients and the
matrix is their n x n Gram matrix. Nothing is inverted, so repeated rows do no harm.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from probes.solver.problems import (
    Floats,
    Matrix,
    Problem,
    Solution,
    check_finite,
    derivatives,
    log_odds,
    losses,
    penalty,
)

SHORTEST = 1e-12
"""Part of a step below which it counts as going nowhere."""


@dataclass(frozen=True)
class Coordinates:
    """Unknowns `a`: v = a over columns (basis: rows, float64 (n, d)), or v = rows' a in row space.

    basis maps unknowns to logits: the centred rows (n, d), or their Gram matrix (n, n).
    """

    basis: Floats
    in_rows: bool

    def pull(self, per_row: Floats) -> Floats:
        """Return the unknowns of rows' per_row: (n,) or (n, m)."""
        return per_row if self.in_rows else self.basis.T @ per_row

    def dot(self, a: Floats, b: Floats) -> float:
        """Return the inner product of two vectors v that are given by their unknowns."""
        return float(a @ (self.basis @ b)) if self.in_rows else float(a @ b)

    def solve(self, weight: Floats, ridge: float, right: Floats) -> Floats:
        """Return (rows' diag(weight) rows + ridge I)^-1 right, all in unknowns; right (len, m)."""
        root = np.sqrt(weight)[:, None]
        if self.in_rows:
            inner = root * self.basis * root.T
            inner.flat[:: len(inner) + 1] += ridge
            inner_part = cho_solve(_factor(inner), root * (self.basis @ right))
            result: Floats = (right - root * inner_part) / ridge
            return result
        scaled = root * self.basis
        normal = scaled.T @ scaled
        normal.flat[:: len(normal) + 1] += ridge
        result = cho_solve(_factor(normal), right)
        return result


def _factor(matrix: Floats) -> tuple[Floats, bool]:
    """Return the Cholesky factor, of a matrix lifted by rounding's size where it must be."""
    lift = np.finfo(float).eps * len(matrix) * float(matrix.diagonal().max())
    while True:
        try:
            factor: tuple[Floats, bool] = cho_factor(matrix, lower=True)
            return factor
        except np.linalg.LinAlgError:
            matrix.flat[:: len(matrix) + 1] += lift
            lift *= 10


def fit_newton(rows: Matrix, problem: Problem) -> Solution:
    """Return the solution for `rows` (n, d), the problem's own rows in its order."""
    n, d = rows.shape
    share = problem.positive.mean()
    with np.errstate(over="ignore", invalid="ignore"):
        mean = rows.mean(axis=0, dtype=np.float64)
        centred = rows - mean
        first = centred.T @ (share - problem.positive) / n
        check_finite(first @ first)
    slope, b = float(np.linalg.norm(first)), log_odds(problem)
    state = _State(
        Coordinates(centred @ centred.T if n < d else centred, n < d),
        np.where(problem.positive, 1.0, -1.0),
        problem,
        np.zeros(min(n, d)),
        b,
    )
    if not problem.squared and slope <= problem.strength:
        return Solution(np.zeros(d), b, state.value, 0, 0.0, collapsed=True, converged=True)
    ridge = problem.strength
    if not problem.squared:
        # v = 0 is the norm's kink: take its curvature at a v as long as one step along the slope.
        bend = float(((centred @ first) ** 2).mean() * share * (1 - share))
        ridge *= bend / (slope**2 * max(slope - problem.strength, 1e-3 * slope))
    gap = np.inf
    for n_iter in range(1, problem.max_iter + 1):
        decrement = state.step(ridge if n_iter == 1 else None)
        gap = decrement / max(state.value, problem.floor)
        # Newton's error squares with every step: the step just taken has done the rest.
        if gap <= min(problem.tol, 1e-6) or state.stuck:
            break
    v = centred.T @ state.a if n < d else state.a
    converged = gap <= max(problem.tol, 1e-9)
    return Solution(v, state.b - float(mean @ v), state.value, n_iter, gap, not v.any(), converged)


class _State:
    """A point and the damped Newton step from it."""

    def __init__(
        self, space: Coordinates, sign: Floats, problem: Problem, a: Floats, b: float
    ) -> None:
        self.space, self.sign, self.problem, self.a, self.b = space, sign, problem, a, b
        self.z = np.full(len(sign), b)
        self.stuck = False
        self.value = float(losses(sign * self.z).mean())

    def step(self, guess: float | None) -> float:
        """Move to a lower point; return half the squared Newton decrement of the point left.

        guess: the penalty's curvature to use at v = 0. Sets `stuck` where no step goes down.
        """
        space, n = self.space, len(self.z)
        pull, weight = derivatives(self.sign, self.z)
        pull, weight = pull / n, weight / n
        norm = np.sqrt(max(space.dot(self.a, self.a), 0.0))
        ridge = guess if guess is not None else penalty(self.problem, norm)[1]
        slope, slope_b = space.pull(pull) + ridge * self.a, float(pull.sum())
        bend = not self.problem.squared and norm > 0
        unit = self.a / norm if bend else np.zeros_like(self.a)
        right = np.column_stack((slope, space.pull(weight), ridge * unit))
        solved = space.solve(weight, ridge, right)
        logit = space.basis @ solved
        # p = -s0 - q s1 + h s2 with q the intercept's step and h = u'p: two equations.
        along = weight @ logit
        h = unit @ (logit if space.in_rows else solved)
        system = np.array([[weight.sum() - along[1], along[2]], [h[1], 1 - h[2]]])
        q, lift = np.linalg.solve(system, [along[0] - slope_b, -h[0]])
        mix = np.array([-1.0, -q, lift])
        p, p_logit = solved @ mix, logit @ mix + q
        descent = space.dot(slope, p) + slope_b * float(q)
        t = 1.0 if descent < 0 else 0.0
        while t > SHORTEST:
            a, z = self.a + t * p, self.z + t * p_logit
            length = np.sqrt(max(space.dot(a, a), 0.0))
            value = float(losses(self.sign * z).mean()) + penalty(self.problem, length)[0]
            if value <= self.value + 1e-4 * t * descent + 4e-16 * self.value:
                self.a, self.b, self.z, self.value = a, self.b + t * float(q), z, value
                return -0.5 * descent
            t /= 2
        self.stuck = True
        return abs(0.5 * descent)
