"""The boundary to Lance's file format: vectors that lie plain in a file, read straight into place.

A scan reads each page into one buffer and decodes it into another, all of it new memory. A page
that holds nothing but rows of float32, as those of embeddings do, can be read to where it belongs
in one copy. What lies in any other way is left to the scan.
"""

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lance.file import LanceFileReader
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]

CHUNK_BYTES = 2 * 2**20
"""What is read and checked at a time: it stays in a core's cache between the two."""

MIN_RUN = 32
"""Rows that must lie together on average; below that the scan is as fast."""

_PLAIN = re.sub(
    r"\s",
    "",
    """
PageLayout { layout: Some( FullZipLayout( FullZipLayout { bits_rep: 0, bits_def: 0, num_items: ROWS,
num_visible_items: ROWS, value_compression: Some( CompressiveEncoding { compression: Some(
FixedSizeList( FixedSizeList { items_per_value: DIM, has_validity: false, values: Some(
CompressiveEncoding { compression: Some( Flat( Flat { bits_per_value: 32, data: None, }, ), ), },
), }, ), ), }, ), layers: [ RepdefAllValidItem, ], details: Some( BitsPerValue( BITS, ),
), }, ), ), }
""",
)
"""How Lance describes such a page: no nulls, no compression, nothing between the rows."""


@dataclass(frozen=True)
class _Page:
    """Rows start..start + n of a table, and where they lie in a file."""

    path: str
    offset: int
    start: int
    n: int


def read_plain(
    lance: Any, column: str, rows: Rows, out: Vectors, check: Callable[[Vectors], None]
) -> bool:
    """Read a column's rows (by number, ascending) into out (len(rows), dim); False if it cannot.

    check is called with each part of out once it is there, from several threads, and may raise.
    Then, and where this returns False, what out holds is void. EmbedstoreError where a file ends
    too soon.
    """
    dim = out.shape[1]
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(rows) < MIN_RUN * (len(breaks) + 1):
        return False
    if (pages := _pages(lance, column, dim)) is None:
        return False
    jobs, size = [], max(1, CHUNK_BYTES // (4 * dim))
    edges = np.concatenate(([0], breaks, [len(rows)])).tolist()
    for first, last in pairwise(edges):
        shift = int(rows[first]) - first
        for page in pages:
            low, high = max(first + shift, page.start), min(last + shift, page.start + page.n)
            jobs += [(page, k, min(k + size, high), shift) for k in range(low, high, size)]
    handles: dict[str, int] = {}

    def read(job: tuple[_Page, int, int, int]) -> None:
        page, low, high, shift = job
        part = out[low - shift : high - shift]
        at = page.offset + (low - page.start) * 4 * dim
        if os.preadv(handles[page.path], [part.data.cast("B")], at) != part.nbytes:
            raise EmbedstoreError(f"{page.path} ends before its vectors do; restore a copy of it")
        check(part)

    try:
        for path in {page.path for page in pages}:
            handles[path] = os.open(path, os.O_RDONLY)
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as run:
            list(run.map(read, jobs))
    except OSError:  # what is wrong with it the scan tells
        return False
    finally:
        for handle in handles.values():
            os.close(handle)
    # The format is Lance's to change: what it reads itself must be the same.
    some = sorted({0, len(rows) // 2, len(rows) - 1})
    asked = lance.take(rows[some].tolist(), columns=[column])[column].combine_chunks()
    return bool((asked.flatten().to_numpy().reshape(-1, dim) == out[some]).all())


def _pages(lance: Any, column: str, dim: int) -> list[_Page] | None:
    """Return where all rows of a table lie, in their order; None if any of them lies otherwise."""
    root = Path(str(lance.uri).removeprefix("file://"))
    if "://" in str(root) or not root.is_dir():
        return None
    field = next(f.id() for f in lance.lance_schema.fields() if f.name() == column)
    pages: list[_Page] = []
    start = 0
    for fragment in lance.get_fragments():
        files = [f for f in fragment.data_files() if field in f.fields]
        if fragment.num_deletions or len(files) != 1:
            return None
        path = root / "data" / files[0].path
        if not path.is_file():
            return None
        try:
            known = LanceFileReader(str(path)).metadata()
        except (OSError, ValueError, RuntimeError):
            return None
        index = files[0].column_indices[files[0].fields.index(field)]
        end = start
        for page in known.columns[index].pages:
            n = sum(b.size for b in page.buffers) // (4 * dim)
            wanted = _PLAIN.replace("ROWS", str(n)).replace("DIM", str(dim))
            if (
                re.sub(r"\s", "", str(page.encoding)) != wanted.replace("BITS", str(32 * dim))
                or len(page.buffers) != 1
                or page.buffers[0].size != n * 4 * dim
            ):
                return None
            pages.append(_Page(str(path), int(page.buffers[0].position), end, n))
            end += n
        if end - start != fragment.physical_rows:
            return None
        start = end
    return pages
