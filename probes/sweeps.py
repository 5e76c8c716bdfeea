"""One read of a shared matrix for many problems: values, gradients and curvatures.

Rows go by in tiles small enough to stay in a core's cache between the two products that use them
(logits, then gradient). Tiles are summed in fixed spans and spans in order, so that the result does
not depend on the number of threads.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.problems import Floats, Indices, Matrix, Problem

SMALL_PRODUCT, MIN_TILE, MAX_TILE = 1_000_000, 32, 128
"""Rows per product: at most 128 (x 1536 float32: 0.8 MB of a core's cache), and so few that
rows x columns x problems stays below what OpenBLAS multiplies without packing a copy."""

SPAN = 2048
"""Rows per task."""

DENSE = 0.8
"""From this share of a range of rows on, the whole range is read rather than its rows gathered."""

Rows = slice | Indices


@dataclass(frozen=True)
class Group:
    """Problems that mostly have their rows in common, and the rows that any of them uses.

    members: positions in the list of problems. sign: float32 (rows, members), +1 or -1 by label and
    0 where a row is not the problem's.
    """

    x: Matrix
    members: Indices
    rows: Rows
    sign: NDArray[np.float32]

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
    sign = np.zeros((last - first if dense else len(index), len(members)), dtype=np.float32)
    for column, k in enumerate(members):
        sign[place[_rows(problems[k])], column] = np.where(problems[k].positive, 1, -1)
    return Group(x, np.array(members), slice(first, last) if dense else index, sign)


def _rows(problem: Problem) -> Rows:
    return slice(None) if problem.rows is None else problem.rows


def take(x: Matrix, rows: Rows, start: int, stop: int, buffer: Matrix | None = None) -> Matrix:
    """Return x[rows][start:stop], a view where rows is a slice, else a copy (in buffer)."""
    if isinstance(rows, slice):
        view: Matrix = x[rows.start + start : min(rows.start + stop, rows.stop)]
        return view
    index = rows[start:stop]
    # Indices are in range; "clip" spares numpy a buffered copy.
    out = None if buffer is None else buffer[: len(index)]
    return np.take(x, index, axis=0, mode="clip", out=out)


def sweep(
    groups: Sequence[Group], columns: Sequence[Indices], v: Floats, b: Floats, *,
    dtype: Any, shift: Floats | None, run: Executor,
) -> list[Point]:  # fmt: skip
    """Return a Point per group, of its columns `columns[g]`; v (problems, d) and b are by member.

    dtype: of the products, float32 or float64; spans are summed in float64. shift (d,): taken off
    every row first, where the rows lie too far from zero for float32.
    """
    tasks, owner = [], []
    for g, (group, column) in enumerate(zip(groups, columns, strict=True)):
        mine = group.members[column]
        w, c = np.ascontiguousarray(v[mine].T.astype(dtype)), b[mine].astype(dtype)
        sign = group.sign if len(column) == group.sign.shape[1] else group.sign[:, column]
        starts = range(0, group.n_rows if len(column) else 0, SPAN)
        tasks += [_Task(group.x, group.rows, sign, w, c, shift, i) for i in starts]
        owner += [g] * len(starts)
    d = v.shape[1]
    found = [
        Point(np.zeros(len(c)), np.zeros((len(c), d)), np.zeros(len(c)), np.zeros(len(c)))
        for c in columns
    ]
    for g, part in zip(owner, run.map(_Task.__call__, tasks), strict=True):
        for name in ("value", "slope", "slope_b", "bend"):
            total = getattr(found[g], name)
            total += getattr(part, name)
    for group, column, point in zip(groups, columns, found, strict=True):
        n = np.count_nonzero(group.sign[:, column], axis=0)
        for total in (point.value, point.slope.T, point.slope_b, point.bend):
            total /= n
    return found


@dataclass(frozen=True)
class _Task:
    """A span of a group's rows, from start on."""

    x: Matrix
    rows: Rows
    sign: NDArray[np.float32]
    w: Matrix
    b: Matrix
    shift: Floats | None
    start: int

    def __call__(self) -> Point:
        """Return sums over the span's rows."""
        with np.errstate(over="ignore", invalid="ignore"):  # the sums tell
            return self._sums()

    def _sums(self) -> Point:
        (d, k), dtype = self.w.shape, self.w.dtype
        value, slope_b, bend = np.zeros(k), np.zeros(k), np.zeros(k)
        slope = np.zeros((k, d), dtype=dtype)
        tile = int(np.clip(SMALL_PRODUCT // (k * d), MIN_TILE, MAX_TILE))
        buffer = np.empty((tile, d), dtype=self.x.dtype)
        moved = bool(self.w.any())
        end = min(self.start + SPAN, len(self.sign))
        for i in range(self.start, end, tile):
            j = min(i + tile, end)
            x = take(self.x, self.rows, i, j, buffer).astype(dtype, copy=False)
            if self.shift is not None:
                x = x - self.shift.astype(dtype)
            sign = self.sign[i:j].astype(dtype, copy=False)
            z = x @ self.w + self.b if moved else np.tile(self.b, (j - i, 1))
            z *= sign  # the margin; 0 where a row is not the problem's
            e = np.abs(z)
            np.negative(e, out=e)
            np.exp(e, out=e)
            wrong = np.where(z > 0, e, 1)
            np.minimum(z, 0, out=z)
            value -= z.sum(axis=0, dtype=np.float64)
            mine = np.square(sign)
            mine *= np.log1p(e)
            value += mine.sum(axis=0, dtype=np.float64)
            e += 1
            wrong /= e
            wrong *= sign
            slope_b -= wrong.sum(axis=0, dtype=np.float64)
            bend += np.einsum("ij,ij->j", wrong, sign - wrong)
            slope -= wrong.T @ x
        return Point(value, slope.astype(np.float64), slope_b, bend)
