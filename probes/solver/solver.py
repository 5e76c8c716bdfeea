"""Many fits on one matrix at once: tiny ones by Newton, the rest in lockstep.

Lockstep needs an order: problems that share most of their rows form a group (the folds of one
fraction, of one train domain); groups without common rows form a lot (all train domains). A lot is
what one sweep serves, and has one shape of the Hessian.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from probes.solver.curvature import Moments, Shape
from probes.solver.lockstep import Lot
from probes.solver.newton import fit_newton
from probes.solver.problems import Indices, Matrix, Problem, Solution
from probes.solver.sweeps import Group, make_group

SMALL_SIDE, SMALL_SIZE = 512, 2**22
"""A problem whose shorter side and whole size are within these is solved by Newton, alone."""

SAMPLE = 8
"""Sampled rows per column: half of it costs half again as many reads, twice as much saves less than
it takes."""

BESIDE = 0.08
"""Memory for lots that are fitted side by side, each with a factored covariance, as a share of the
matrix."""

FAR = 100.0
"""Squared distance of the rows from zero, in total variances, from which on float32 needs help."""


def fit_many(
    x: Matrix,
    problems: Sequence[Problem],
    *,
    n_threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Solution]:
    """Return the solution of each problem on x (n, d), float32 or float64.

    Each is solved to its own tolerance whatever travels along. Float32 rows are multiplied in
    float32 (float64 where a tolerance is below 1e-8, or where float32 finds no step down).
    on_progress(done, total) counts problems. ValueError where x is not finite.
    """
    solutions: dict[int, Solution] = {}
    on_progress(0, len(problems))
    small = [k for k, p in enumerate(problems) if _is_small(p, x.shape[1])]
    large = sorted(set(range(len(problems))) - set(small))

    def alone(k: int) -> dict[int, Solution]:
        rows = problems[k].rows
        return {k: fit_newton(x[:] if rows is None else x[rows], problems[k])}

    # One thread per core and task; BLAS threads would wait for each other at every small product.
    n_threads = n_threads or len(os.sched_getaffinity(0))
    # Small ones go beside the large ones, in what time those leave of the cores.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(n_threads) as run,
        ThreadPoolExecutor(1 if large else n_threads) as tiny,
    ):
        waiting = [tiny.submit(alone, k) for k in small]
        lots = _lots(x, problems, large, run) if large else []
        # Side by side, so that cores have work while one lot chooses its next steps.
        n_side = int(2 * BESIDE * len(x) / x.shape[1])
        with ThreadPoolExecutor(min(max(n_side, 1), max(len(lots), 1))) as side:
            waiting += [side.submit(lot) for lot in lots]
            for future in waiting:
                solutions |= future.result()
                on_progress(len(solutions), len(problems))
    return [solutions[k] for k in range(len(problems))]


def _is_small(problem: Problem, d: int) -> bool:
    n = len(problem.positive)
    return min(n, d) <= SMALL_SIDE and n * d <= SMALL_SIZE


@dataclass
class _Draft:
    """Groups of a lot to be, the rows they use, and their classes of the sample."""

    used: NDArray[np.bool_]
    groups: list[Group] = field(default_factory=list)
    classes: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.intp))


def _lots(
    x: Matrix, problems: Sequence[Problem], large: Sequence[int], run: Executor
) -> list[Callable[[], dict[int, Solution]]]:
    """Return functions that fit a lot each; all lots draw on one sample's moments."""
    lots = _drafts([make_group(x, problems, m) for m in _families(len(x), problems, large)])
    index = np.flatnonzero(np.logical_or.reduce([lot.used for lot in lots]))
    n_sample = min(len(index), SAMPLE * x.shape[1])
    sample = index[np.arange(n_sample) * len(index) // n_sample]
    # A class of sampled rows per group, and one for the rest: a row counts for its first group.
    classes = []
    for lot in lots:
        free = np.ones(len(x), dtype=bool)
        for group in lot.groups:
            is_member = np.zeros(len(x), dtype=bool)
            is_member[group.rows] = True
            classes.append((is_member & free)[sample])
            free &= ~is_member
        classes.append(free[sample])
        lot.classes = np.arange(len(classes) - len(lot.groups) - 1, len(classes))
    moments = Moments(x, sample, np.column_stack(classes), run)
    return [partial(_fit_lot, lot, problems, moments, run) for lot in lots]


def _fit_lot(
    lot: _Draft, problems: Sequence[Problem], moments: Moments, run: Executor
) -> dict[int, Solution]:
    """Return the solutions of a lot's problems."""
    names = [int(k) for group in lot.groups for k in group.members]
    of_lot = [problems[k] for k in names]
    sizes = [len(group.members) for group in lot.groups]
    x = lot.groups[0].x
    own = []
    for group, size, end in zip(lot.groups, sizes, np.cumsum(sizes), strict=True):
        own.append(replace(group, members=np.arange(end - size, end)))
    means = np.repeat(moments.origin + moments.means[lot.classes[:-1]], sizes, axis=0)
    exact = x.dtype == np.float64 or any(p.tol < 1e-8 for p in of_lot)
    dtype: Any = np.float64 if exact else np.float32
    far = float(moments.origin @ moments.origin) > FAR * moments.scale * x.shape[1]
    made = Lot(
        of_lot,
        own,
        means,
        Shape(moments, lot.classes, len(of_lot)),
        dtype=dtype,
        shift=moments.origin if far and not exact else None,
        run=run,
    ).fit()
    return dict(zip(names, made, strict=True))


def _families(n: int, problems: Sequence[Problem], large: Sequence[int]) -> list[list[int]]:
    """Return the problems of each group: at least half of a problem's rows are the others' too."""
    families: list[tuple[list[int], NDArray[np.bool_]]] = []
    for k in sorted(large, key=lambda k: (-len(problems[k].positive), k)):
        is_member = np.zeros(n, dtype=bool)
        rows = problems[k].rows
        is_member[slice(None) if rows is None else rows] = True
        size = len(problems[k].positive)
        for members, used in families:
            both = int((is_member & used).sum())
            if 2 * both >= size and size >= 0.4 * (int(used.sum()) + size - both):
                members.append(k)
                used |= is_member
                break
        else:
            families.append(([k], is_member))
    return [members for members, _ in families]


def _drafts(groups: Sequence[Group]) -> list[_Draft]:
    """Return the groups as lots, in each of which they have (nearly) no row in common."""
    drafts: list[_Draft] = []
    for group in groups:
        for draft in drafts:
            if draft.used[group.rows].sum() <= 0.3 * group.n_rows:
                break
        else:
            draft = _Draft(np.zeros(len(group.x), dtype=bool))
            drafts.append(draft)
        draft.groups.append(group)
        draft.used[group.rows] = True
    return drafts
