"""One read of a shared matrix for many problems: values, gradients and curvatures.

Rows go by in spans, of which the second product (the gradient) finds in a near cache what the first
(the logits) has read. Spans are summed in order, so that the result does not depend on the number
of threads.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.solver.problems import Floats, Indices, Matrix, Problem

SPAN, GATHERED = 4096, 1024
"""Most rows per task, and where they must be copied first. Python's lock is held between numpy's
calls, so threads only keep out of each other's way while calls are few and long: one per step of
the formula and span, not per tile."""

TILE, SMALL_PRODUCT, MIN_TILE = 128, 1_000_000, 32
"""Rows per product within a call: 128 (x 1536 float32: 0.8 MB of a core's cache), or so few that
rows x columns x problems stays below what OpenBLAS multiplies without packing a copy first."""

DENSE = 0.8
"""From this share of a range of rows on, the whole range is read rather than its rows gathered."""

Rows = slice | Indices


@dataclass(frozen=True)
class Group:
    """Problems that mostly have their rows in common, and the rows that any of them uses.

    members: positions in the list of problems. sign: int8 (rows, members), +1 or -1 by label and
    0 where a row is not the problem's.
    """

    x: Matrix
    members: Indices
    rows: Rows
    sign: NDArray[np.int8]

    @property
    def n_rows(self) -> int:
        """Rows read in a sweep."""
        return len(self.sign)


@dataclass(frozen=True)
class Point:
    """Mean loss (k,), its gradients by v (k, d) and by b (k,), mean curvature by the logit (k,)."""

    value: Floats
    slope: Floats
    slope_b: Floats
    bend: Floats


def make_group(x: Matrix, problems: Sequence[Problem], members: Sequence[int]) -> Group:
    """Return the group of these of the problems."""
    used = np.zeros(len(x), dtype=bool)
    for k in members:
        used[_rows(problems[k])] = True
    index = np.flatnonzero(used)
    first, last = int(index[0]), int(index[-1]) + 1
    dense = len(index) >= DENSE * (last - first)
    place = np.arange(len(x)) - first if dense else np.cumsum(used) - 1
    sign = np.zeros((last - first if dense else len(index), len(members)), dtype=np.int8)
    for column, k in enumerate(members):
        sign[place[_rows(problems[k])], column] = np.where(problems[k].positive, 1, -1)
    return Group(x, np.array(members), slice(first, last) if dense else index, sign)


def _rows(problem: Problem) -> Rows:
    return slice(None) if problem.rows is None else problem.rows


def take(x: Matrix, rows: Rows, start: int, stop: int) -> Matrix:
    """Return x[rows][start:stop], a view where rows is a slice, else a copy."""
    if isinstance(rows, slice):
        view: Matrix = x[rows.start + start : min(rows.start + stop, rows.stop)]
        return view
    # Indices are in range; "clip" spares numpy a buffered copy.
    return np.take(x, rows[start:stop], axis=0, mode="clip")


def sweep(
    groups: Sequence[Group],
    columns: Sequence[Indices],
    v: Floats,
    b: Floats,
    *,
    dtype: Any,
    shift: Floats | None,
    run: Executor,
) -> list[Point]:
    """Return a Point per group, of its columns `columns[g]`; v (problems, d) and b are by member.

    dtype: of the products, float32 or float64; spans are summed in float64. shift (d,): taken off
    every row first, where the rows lie too far from zero for float32.
    """
    tasks, owner = [], []
    for g, (group, column) in enumerate(zip(groups, columns, strict=True)):
        members = group.members[column]
        w, c = np.ascontiguousarray(v[members].T.astype(dtype)), b[members].astype(dtype)
        sign = group.sign if len(column) == group.sign.shape[1] else group.sign[:, column]
        own = isinstance(group.rows, slice) and group.x.dtype == dtype and shift is None
        spans = _spans(group.n_rows if len(column) else 0, SPAN if own else GATHERED)
        tasks += [_Task(group.x, group.rows, sign, w, c, shift, *span) for span in spans]
        owner += [g] * len(spans)
    d = v.shape[1]
    parts = [
        Point(np.zeros(len(c)), np.zeros((len(c), d)), np.zeros(len(c)), np.zeros(len(c)))
        for c in columns
    ]
    for g, part in zip(owner, run.map(_Task.__call__, tasks), strict=True):
        for name in ("value", "slope", "slope_b", "bend"):
            total = getattr(parts[g], name)
            total += getattr(part, name)
    for group, column, point in zip(groups, columns, parts, strict=True):
        n = np.count_nonzero(group.sign[:, column], axis=0)
        for total in (point.value, point.slope.T, point.slope_b, point.bend):
            total /= n
    return parts


def _spans(n: int, size: int) -> list[tuple[int, int]]:
    """Return an even number of spans (start, stop) of 0..n, alike in size and at most `size`."""
    edges = np.linspace(0, n, 2 * -(-n // (2 * size)) + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(edges) if a < b]


@dataclass(frozen=True)
class _Task:
    """A span of a group's rows."""

    x: Matrix
    rows: Rows
    sign: NDArray[np.int8]
    w: Matrix
    b: Matrix
    shift: Floats | None
    start: int
    stop: int

    def __call__(self) -> Point:
        """Return sums over the span's rows."""
        with np.errstate(over="ignore", invalid="ignore"):  # the sums tell
            return self._sums()

    def _sums(self) -> Point:
        k, dtype = len(self.b), self.w.dtype
        x = take(self.x, self.rows, self.start, self.stop).astype(dtype, copy=False)
        if self.shift is not None:
            x = x - self.shift.astype(dtype)
        sign = self.sign[self.start : self.stop].astype(dtype, copy=False)
        z = self._logits(x) if self.w.any() else np.zeros((len(x), k), dtype=dtype)
        z += self.b
        z *= sign  # the margin; 0 where a row is not the problem's
        e = np.abs(z)
        np.negative(e, out=e)
        np.exp(e, out=e)
        wrong = np.where(z > 0, e, 1)
        np.minimum(z, 0, out=z)
        value = -z.sum(axis=0, dtype=np.float64)
        squares = np.square(sign)
        squares *= np.log1p(e)
        value += squares.sum(axis=0, dtype=np.float64)
        e += 1
        wrong /= e
        wrong *= sign
        slope_b = -wrong.sum(axis=0, dtype=np.float64)
        bend = np.einsum("ij,ij->j", wrong, sign - wrong).astype(np.float64)
        return Point(value, self._slope(x, wrong), slope_b, bend)

    def _tiled(self, x: Matrix) -> tuple[Matrix, Matrix]:
        """Return x as tiles (m, tile, d), and the rows that are left over."""
        tile = SMALL_PRODUCT // self.w.size
        tile = min(tile, TILE) if tile >= MIN_TILE else TILE
        whole = len(x) // tile * tile
        return x[:whole].reshape(-1, tile, x.shape[1]), x[whole:]

    def _logits(self, x: Matrix) -> Matrix:
        tiles, rest = self._tiled(x)
        z = np.empty((len(x), len(self.b)), dtype=self.w.dtype)
        whole = len(x) - len(rest)
        np.matmul(tiles, self.w, out=z[:whole].reshape(*tiles.shape[:2], len(self.b)))
        np.matmul(rest, self.w, out=z[whole:])
        return z

    def _slope(self, x: Matrix, wrong: Matrix) -> Floats:
        tiles, rest = self._tiled(x)
        whole = len(x) - len(rest)
        turned = wrong[:whole].reshape(*tiles.shape[:2], len(self.b)).transpose(0, 2, 1)
        slope = np.matmul(turned, tiles).sum(axis=0)
        slope += wrong[whole:].T @ rest
        return np.asarray(-slope, dtype=np.float64)
