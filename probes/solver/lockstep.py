"""Problems in lockstep: every read of the matrix moves all of them one step.

Each problem runs L-BFGS (Nocedal and Wright 2006, ch. 7) that starts from the shape of its Hessian
(probes.solver.curvature) rather than from the identity. A step is tried at full length, at the
price of one read; what the read gives is value and slope both, so a step that is accepted has cost
one read.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.solver.curvature import Shape
from probes.solver.memory import Memory
from probes.solver.problems import Floats, Indices, Problem, Solution, check_finite, log_odds
from probes.solver.sweeps import Group, sweep

MEMORY = 10
"""Steps remembered; 20 saves one read in thirty."""

FIRST_RIDGE = 0.05
"""The first step's ridge, in mean variances: about what it will be at the optimum."""

LOOK_BACK = 4
"""The pace of convergence is what this many steps gained against as many before them."""

SHORTEST = 1e-8
"""Part of a step below which it counts as going nowhere."""


class Lot:
    """Problems 0..k-1, their points (v and, last, b about the group's mean) and next steps."""

    def __init__(
        self,
        problems: Sequence[Problem],
        groups: Sequence[Group],
        means: Floats,
        shape: Shape,
        *,
        dtype: Any,
        shift: Floats | None,
        run: Executor,
    ) -> None:
        """Take the problems; groups' members index them; means (k, d) are those of their groups.

        shift: taken off rows and means alike where the rows are read.
        """
        self.problems, self.groups, self.shape, self.means = problems, groups, shape, means
        self.dtype, self.shift, self.run = dtype, shift, run
        self.centre = means if shift is None else means - shift
        k, d = means.shape
        self.squared = np.array([p.squared for p in problems])
        self.strength = np.array([p.strength for p in problems])
        self.tol = np.array([p.tol for p in problems])
        self.floor = np.array([p.floor for p in problems])
        self.collapsed = np.zeros(len(problems), dtype=bool)
        self.at = np.zeros((k, d + 1))
        for i, p in enumerate(problems):
            self.at[i, -1] = log_odds(p)
            if p.start is not None:
                self.at[i, :-1], self.at[i, -1] = p.start[0], p.start[1] + means[i] @ p.start[0]
        self.value, self.slope, self.bend = np.zeros(k), np.zeros((k, d + 1)), np.zeros(k)
        self.step, self.length, self.scale = np.zeros((k, d + 1)), np.ones(k), np.ones(k)
        self.gap, self.values = np.full(k, np.inf), np.full((k, 2 * LOOK_BACK + 1), np.inf)
        self.pace, self.n_iter = np.zeros(k), np.zeros(k, dtype=int)
        self.memory = Memory(k, MEMORY, d + 1)

    def fit(self) -> list[Solution]:
        """Return the solutions, in the order of the problems."""
        who = self._begin(np.arange(len(self.problems)))
        limit = np.array([p.max_iter for p in self.problems])
        while len(who):
            who = self._advance(who)
            who = who[self.n_iter[who] < limit[who]]
        return [self._solution(k) for k in range(len(self.problems))]

    def _evaluate(self, who: Indices, where: Floats) -> tuple[Floats, Floats, Floats]:
        """Return values (k,), slopes (k, d + 1) and mean curvatures (k,) of `who` at `where`."""
        k, d = self.means.shape
        v, b = np.zeros((k, d)), np.zeros(k)
        v[who] = where[:, :-1]
        b[who] = where[:, -1] - _dot(self.centre[who], where[:, :-1])
        columns = [np.flatnonzero(np.isin(g.members, who)) for g in self.groups]
        points = sweep(self.groups, columns, v, b, dtype=self.dtype, shift=self.shift, run=self.run)
        value, slope, bend = np.zeros(k), np.zeros((k, d + 1)), np.zeros(k)
        for group, column, point in zip(self.groups, columns, points, strict=True):
            members = group.members[column]
            value[members], bend[members] = point.value, point.bend
            slope[members, :-1] = point.slope - self.centre[members] * point.slope_b[:, None]
            slope[members, -1] = point.slope_b
        norm, strength = np.linalg.norm(where[:, :-1], axis=1), self.strength[who]
        value[who] += np.where(self.squared[who], 0.5 * strength * norm**2, strength * norm)
        slope[who, :-1] += self._ridge(who, where)[:, None] * where[:, :-1]
        return value[who], slope[who], bend[who]

    def _ridge(self, who: Indices, points: Floats) -> Floats:
        """Return r, the penalty's gradient being r v; it is the penalty's curvature across v."""
        norm = np.linalg.norm(points[:, :-1], axis=1)
        r = np.where(self.squared[who], 1, 1 / np.maximum(norm, np.finfo(float).tiny))
        return np.where(norm > 0, self.strength[who] * r, 0)

    def _solve(self, who: Indices, right: Floats, ridge: Floats) -> Floats:
        """Return the inverse of the shape c (covariance + ridge / c I) times right (k, d + 1)."""
        c = np.maximum(self.bend[who], np.finfo(np.float32).tiny)
        inner = self.shape.solve(who, ridge / c, right[:, :-1])
        return np.column_stack((inner, right[:, -1])) / c[:, None]

    def _begin(self, who: Indices) -> Indices:
        """Evaluate the starts, choose first steps; return the problems not solved by v = 0."""
        self.value[who], self.slope[who], self.bend[who] = self._evaluate(who, self.at[who])
        check_finite(self.slope)
        steep = np.linalg.norm(self.slope[who, :-1], axis=1)
        stays = who[~self.squared[who] & (steep <= self.strength[who])]
        self.collapsed[stays], self.gap[stays] = True, 0
        who = np.setdiff1d(who, stays)
        slope, squared = self.slope[who], self.squared[who]
        kink = np.where(squared, 0, self.strength[who])
        rough = FIRST_RIDGE * self.shape.scale * self.bend[who]
        ridge = np.where(squared, self.strength[who], rough)
        while True:
            step = -self._solve(who, slope, ridge)
            norm, descent = np.linalg.norm(step[:, :-1], axis=1), -_dot(slope, step)
            # A larger ridge turns the step towards the slope, which the norm does not outweigh.
            if (fits := descent > kink * norm * (1 + 1e-9)).all():
                break
            ridge = np.where(fits, ridge, 16 * ridge)
        used = np.where(squared, 0, self.shape.ridges[who] * self.bend[who])
        # The model's minimum along the step, with the norm instead of the ridge that stood for it.
        bent = np.maximum(descent - used * norm**2, 1e-3 * descent)
        self.step[who] = step
        self.length[who] = np.where(squared, 1, (descent - kink * norm) / bent)
        # From here on the norm's slope along the step counts as part of the slope.
        unit = step[:, :-1] / np.maximum(norm, np.finfo(float).tiny)[:, None]
        self.slope[who, :-1] += kink[:, None] * unit
        return np.asarray(who)

    def _advance(self, who: Indices) -> Indices:
        """Try each problem's step, choose the next; return the problems that are not done."""
        points = self.at[who] + self.length[who, None] * self.step[who]
        if self.dtype == np.float32:  # the products see v in float32: let v be what they see
            points[:, :-1] = points[:, :-1].astype(np.float32)
        value, slope, bend = self._evaluate(who, points)
        self.n_iter[who] += 1
        fall = _dot(self.slope[who], self.step[who])
        lower = value <= self.value[who] + 1e-4 * self.length[who] * fall
        # Where rounding hides whether f fell, its slope along the step tells (Hager, Zhang 2005).
        level = np.abs(_dot(slope, self.step[who])) <= 0.8 * np.abs(fall)
        level &= value <= self.value[who] * (1 + 1e-12)
        good = np.isfinite(value) & (lower | level)
        self._shorten(who[~good], value[~good], fall[~good])
        self._accept(who[good], points[good], value[good], slope[good], bend[good])
        stuck = who[self.length[who] < SHORTEST]
        if self.dtype == np.float32:
            # So near the optimum full steps are right: what looks too long is rounding.
            blurred = (self.length[who] < 0.3) & (self.gap[who] < 1e-3)
            if len(stuck) or blurred.any():
                self._refine(who)
            stuck = stuck[:0]
        done = self.gap <= self.tol
        done[stuck] = True
        return who[~done[who]]

    def _accept(
        self, who: Indices, points: Floats, value: Floats, slope: Floats, bend: Floats
    ) -> None:
        taken, turns = points - self.at[who], slope - self.slope[who]
        self.memory.push(who, taken, turns)
        # A step of the right length turns the slope along it to nothing: s'y = -s'g.
        bent, wanted = _dot(taken, turns), -_dot(taken, self.slope[who])
        ratio = np.divide(wanted, bent, out=np.ones(len(who)), where=bent > 0)
        self.scale[who] = np.clip(self.scale[who] * np.clip(ratio, 0.5, 1.1), 0.05, 1.5)
        self.values[who, :-1] = self.values[who, 1:]
        self.values[who, -1] = value
        self.at[who], self.value[who], self.slope[who], self.bend[who] = points, value, slope, bend
        self._turn(who)

    def _turn(self, who: Indices) -> None:
        """Choose the next step and estimate what is left to gain."""
        ridge = self._ridge(who, self.at[who])
        self.step[who] = self.memory.direction(
            who,
            self.slope[who],
            lambda right: self.scale[who, None] * self._solve(who, right, ridge),
        )
        self.length[who] = 1
        left = -0.5 * _dot(self.slope[who], self.step[who])
        # At a steady pace what is left to gain is a geometric series.
        with np.errstate(invalid="ignore", divide="ignore"):
            earlier, later = -np.diff(self.values[who, ::LOOK_BACK]).T
            pace = np.clip(later / earlier, 0, 0.99)
            slower = np.fmax(pace, self.pace[who])
            series = later * slower / (1 - slower)
        self.pace[who] = pace
        finite = np.isfinite(later) & np.isfinite(earlier)
        # While no pace shows: early on a problem is fast; where float32 gave out it has been slow.
        late = self.n_iter[who] > 2 * LOOK_BACK + 1
        series[~finite] = np.where(late, 100 * left, 0)[~finite]
        self.gap[who] = np.maximum(left, series) / np.maximum(self.value[who], self.floor[who])

    def _shorten(self, who: Indices, value: Floats, fall: Floats) -> None:
        length = self.length[who]
        rise = value - self.value[who] - length * fall
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            best = np.nan_to_num(-0.5 * fall * length**2 / rise)
        self.length[who] = np.clip(best, 0.1 * length, 0.5 * length)

    def _refine(self, who: Indices) -> None:
        """Go on in float64: float32 no longer tells a better point from a worse one."""
        self.dtype = np.float64
        at_kink = ~self.squared[who] & ~self.at[who, :-1].any(axis=1)
        self._begin(who[at_kink])
        who = who[~at_kink]
        self.values[who] = np.inf
        self.value[who], self.slope[who], self.bend[who] = self._evaluate(who, self.at[who])
        self._turn(who)

    def _solution(self, k: int) -> Solution:
        v = self.at[k, :-1].copy()
        b, gap = float(self.at[k, -1] - self.means[k] @ v), float(self.gap[k])
        converged = bool(gap <= self.tol[k])
        return Solution(
            v, b, float(self.value[k]), int(self.n_iter[k]), gap, bool(self.collapsed[k]), converged
        )


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> Floats:
    """Return row by row products (k,)."""
    result: Floats = np.einsum("ij,ij->i", a, b)
    return result
