"""Many fits on one matrix at once: tiny ones by Newton, the rest in lockstep.

Lockstep needs an order: problems that share most of their rows form a group (the folds of one
fraction, of one train domain); groups without common rows form a lot (all train domains). A lot is
what one sweep serves, and has one shape of the Hessian.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from probes.curvature import Moments, Shape
from probes.lockstep import Lot
from probes.newton import fit_newton
from probes.problems import Indices, Matrix, Problem, Solution
from probes.sweeps import Group, make_group, take

SMALL_SIDE, SMALL_SIZE = 512, 2**22
"""A problem whose shorter side and whole size are within these is solved by Newton, alone."""

SAMPLE = 8
"""Sampled rows per column: half of it costs half again as many reads, twice as much saves less than
it takes."""

COPIED = 0.1
"""Scattered rows that a lot may hold as copies rather than gather again and again, as a share of
the matrix."""

FAR = 100.0
"""Squared distance of the rows from zero, in total variances, from which on float32 needs help."""


def fit_many(
    x: Matrix, problems: Sequence[Problem], *, n_threads: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Solution]:  # fmt: skip
    """Return the solution of each problem on x (n, d), float32 or float64.

    Each is solved to its own tolerance whatever travels along. Float32 rows are multiplied in
    float32 (float64 where a tolerance is below 1e-8, or where float32 finds no step down).
    on_progress(done, total) counts problems. ValueError where x is not finite.
    """
    found: dict[int, Solution] = {}
    on_progress(0, len(problems))
    small = [k for k, p in enumerate(problems) if _is_small(p, x.shape[1])]
    large = sorted(set(range(len(problems))) - set(small))

    def alone(k: int) -> Solution:
        rows = problems[k].rows
        return fit_newton(x if rows is None else x[rows], problems[k])

    # One thread per core and task; BLAS threads would wait for each other at every small product.
    n_threads = n_threads or len(os.sched_getaffinity(0))
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as run:
        for k, solution in zip(small, run.map(alone, small), strict=True):
            found[k] = solution
            on_progress(len(found), len(problems))
        for lot, names in _lots(x, problems, large, run):
            found |= dict(zip(names, lot.fit(), strict=True))
            on_progress(len(found), len(problems))
    return [found[k] for k in range(len(problems))]


def _is_small(problem: Problem, d: int) -> bool:
    n = len(problem.positive)
    return min(n, d) <= SMALL_SIDE and n * d <= SMALL_SIZE


@dataclass
class _Draft:
    """Groups of a lot to be, and the rows they use."""

    used: NDArray[np.bool_]
    groups: list[Group] = field(default_factory=list)


def _lots(
    x: Matrix, problems: Sequence[Problem], large: Sequence[int], run: Executor
) -> Iterator[tuple[Lot, list[int]]]:
    """Yield lots and which problems they hold; all on one sample's moments."""
    if not large:
        return
    drafts = _drafts([make_group(x, problems, m) for m in _families(len(x), problems, large)])
    index = np.flatnonzero(np.logical_or.reduce([draft.used for draft in drafts]))
    n_sample = min(len(index), SAMPLE * x.shape[1])
    sample = index[np.arange(n_sample) * len(index) // n_sample]
    # A class of sampled rows per group, and one for the rest: a row counts for its first group.
    classes, spans = [], []
    for draft in drafts:
        free = np.ones(len(x), dtype=bool)
        for group in draft.groups:
            mine = np.zeros(len(x), dtype=bool)
            mine[group.rows] = True
            classes.append((mine & free)[sample])
            free &= ~mine
        classes.append(free[sample])
        spans.append(np.arange(len(classes) - len(draft.groups) - 1, len(classes)))
    moments = Moments(x, sample, np.column_stack(classes), run)
    for draft, span in zip(drafts, spans, strict=True):
        yield _lot(problems, draft.groups, moments, span, run)


def _lot(
    problems: Sequence[Problem], groups: Sequence[Group], moments: Moments, span: Indices,
    run: Executor,
) -> tuple[Lot, list[int]]:  # fmt: skip
    names = [int(k) for group in groups for k in group.members]
    mine = [problems[k] for k in names]
    sizes = [len(group.members) for group in groups]
    ends = np.cumsum(sizes)
    own = [
        replace(group, members=np.arange(end - size, end))
        for group, size, end in zip(groups, sizes, ends, strict=True)
    ]
    room = COPIED * len(groups[0].x)
    for i, group in enumerate(own):
        if not isinstance(group.rows, slice) and group.n_rows <= room:
            room -= group.n_rows
            rows = slice(0, group.n_rows)
            own[i] = replace(group, x=take(group.x, group.rows, 0, group.n_rows), rows=rows)
    means = np.repeat(moments.origin + moments.means[span[:-1]], sizes, axis=0)
    exact = groups[0].x.dtype == np.float64 or any(p.tol < 1e-8 for p in mine)
    dtype: Any = np.float64 if exact else np.float32
    spread = moments.scale * len(moments.origin)
    far = not exact and float(moments.origin @ moments.origin) > FAR * spread
    lot = Lot(
        mine, own, means, Shape(moments, span, len(mine)),
        dtype=dtype, shift=moments.origin if far else None, run=run,
    )  # fmt: skip
    return lot, names


def _families(n: int, problems: Sequence[Problem], large: Sequence[int]) -> list[list[int]]:
    """Return the problems of each group: at least half of a problem's rows are the others' too."""
    families: list[tuple[list[int], NDArray[np.bool_]]] = []
    for k in sorted(large, key=lambda k: (-len(problems[k].positive), k)):
        mine = np.zeros(n, dtype=bool)
        rows = problems[k].rows
        mine[slice(None) if rows is None else rows] = True
        size = len(problems[k].positive)
        for members, used in families:
            both = int((mine & used).sum())
            if 2 * both >= size and size >= 0.4 * (int(used.sum()) + size - both):
                members.append(k)
                used |= mine
                break
        else:
            families.append(([k], mine))
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
