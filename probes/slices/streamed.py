"""A matrix larger than memory: its rows in a file, read where a fit asks for them.

The file is a copy on the local disk, float32 as the vectors are: a fit reads all of it dozens of
times, in spans of a few thousand rows, and comes out as if the matrix were in memory. What a read
returns is a NumPy array of its own. The file has no name, so that nothing stays of a process that
is killed.
"""

import os
import tempfile
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError

ROW_BYTES = 1_800
"""What a fit holds in memory of each annotation beside its vector: id, label, slide and the like,
its places in the splits, its scores. Measured by `benchmarks/bench_memory.py`."""

BASE_BYTES = 600_000_000
"""What a process takes before it has read a row: Python, NumPy, Lance and DuckDB."""

SPARSE = 16
"""Rows that are looked for in a range this many times as long are read one by one."""


class Streamed:
    """A float32 matrix (n, d) in a file: it has what a fit asks of an array, and no more.

    most: bytes of vectors that may be in memory at once.
    """

    dtype = np.dtype(np.float32)
    ndim = 2

    def __init__(self, n: int, d: int, most: int) -> None:
        """Make the file; EmbedstoreError where the disk has no room for it."""
        self.shape, self.most = (n, d), most
        self._row_bytes = 4 * d
        try:
            self._file = tempfile.TemporaryFile(prefix="embedstore-")  # noqa: SIM115
            weakref.finalize(self, self._file.close)
            os.posix_fallocate(self._file.fileno(), 0, max(n * self._row_bytes, 1))
        except OSError as e:
            raise EmbedstoreError(
                f"a copy of the vectors, {n * self._row_bytes / 1e9:,.1f} GB, finds no room in "
                f"{tempfile.gettempdir()} ({e.strerror or e}); TMPDIR names another folder, a "
                "larger --max-memory needs no copy"
            ) from e

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __setitem__(self, rows: slice, values: NDArray[np.float32]) -> None:
        """Write rows that follow one another."""
        start, stop, _ = rows.indices(len(self))
        data = np.ascontiguousarray(values, dtype=np.float32).data.cast("B")
        at, end = start * self._row_bytes, stop * self._row_bytes
        while at < end:
            at += os.pwrite(self._file.fileno(), data[at - start * self._row_bytes :], at)

    def __getitem__(self, rows: slice | NDArray[Any]) -> NDArray[np.float32]:
        """Return rows, float32 (m, d), as an array of their own."""
        if not isinstance(rows, slice):
            return self.take(rows)
        start, stop, step = rows.indices(len(self))
        if step != 1:
            return self.take(np.arange(start, stop, step))
        return self._read(start, max(stop - start, 0))

    def take(
        self, indices: NDArray[Any], axis: int = 0, out: None = None, mode: str = "raise"
    ) -> NDArray[np.float32]:
        """Return rows by number, as `numpy.take` along the first axis."""
        wanted = np.asarray(indices)
        result = np.empty((len(wanted), self.shape[1]), dtype=np.float32)
        if not len(wanted):
            return result
        order = np.argsort(wanted, kind="stable")
        ordered = wanted[order]
        # Blocks of rows that lie near each other are read whole, what lies between them is not.
        ends = np.flatnonzero(np.diff(ordered) > SPARSE) + 1
        for block in np.split(np.arange(len(ordered)), ends):
            for part in np.array_split(block, -(-len(block) // 4096)):
                first, last = int(ordered[part[0]]), int(ordered[part[-1]])
                read = self._read(first, last - first + 1)
                result[order[part]] = read[ordered[part] - first]
        return result

    def chosen(self, rows: NDArray[Any]) -> "Chosen":
        """Return some rows as a matrix of their own, which is streamed as well."""
        return Chosen(self, rows)

    def _read(self, start: int, n: int) -> NDArray[np.float32]:
        rows = np.empty((n, self.shape[1]), dtype=np.float32)
        view = rows.data.cast("B") if rows.size else memoryview(b"")
        at = start * self._row_bytes
        while view:
            got = os.preadv(self._file.fileno(), [view], at)
            if not got:
                raise EmbedstoreError("the copy of the vectors on disk is cut short; run again")
            view, at = view[got:], at + got
        return rows


class Chosen:
    """Rows of a streamed matrix, by number, that are read where a slice of them is asked for."""

    dtype = Streamed.dtype

    def __init__(self, matrix: Streamed, rows: NDArray[Any]) -> None:
        """Hold which rows; none is read."""
        self._matrix, self._rows = matrix, rows
        self.shape = (len(rows), matrix.shape[1])
        self.size = self.shape[0] * self.shape[1]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        return self._matrix.take(self._rows[part])


def room(n: int, d: int, max_memory: int | None) -> NDArray[np.float32] | Streamed:
    """Return a matrix to be filled, in memory where max_memory (bytes of the process) allows it.

    EmbedstoreError where not even what is held beside the vectors fits. None allows all.
    """
    if max_memory is None:
        return np.empty((n, d), dtype=np.float32)
    left = max_memory - BASE_BYTES - n * ROW_BYTES
    if n * d * 4 <= left:
        return np.empty((n, d), dtype=np.float32)
    if left <= 0:
        needed = BASE_BYTES + n * ROW_BYTES
        raise EmbedstoreError(
            f"--max-memory {max_memory / 1e9:.2f}GB is too little for {n:,} annotations: without "
            f"their vectors they take about {needed / 1e9:.2f} GB; give more, or fewer with --where"
        )
    return Streamed(n, d, left)
