"""Vectors as other tools leave them: Parquet, npz, npy or text, and what names each row."""

import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.vector_files import VECTOR_NAMES
from embedstore.files.claims import check_zip
from embedstore.files.tables import MALFORMED, is_delimited, table_rows

ENDINGS = (".parquet", ".npz", ".npy", ".csv", ".tsv")
FEWEST = 4
"""Numbered columns that are taken for a vector: fewer may be anything."""


@dataclass(frozen=True)
class LooseVectors:
    """Vectors float (n, d), as they were read, and the texts that stand beside each row.

    texts: by column, n each; name: what they were read from.
    """

    name: str
    vectors: NDArray[Any]
    texts: Mapping[str, Sequence[str]]


def read_loose(path: Path, column: str | None = None) -> LooseVectors:
    """Return the vectors of a file: of one column of lists, of numbered columns, or of one array.

    column: the column or array that holds them, where there are several. EmbedstoreError where none
    or several may be meant.
    """
    if not path.is_file():
        raise EmbedstoreError(f"no file of vectors at {path}")
    ending = path.suffix.lower()
    try:
        if ending == ".parquet":
            return of_table(path.name, pq.read_table(path), column)
        if ending in (".npz", ".npy"):
            return _of_arrays(path, column)
        if is_delimited(path):
            return of_table(path.name, _typed(table_rows(path)), column)
    except EmbedstoreError:
        raise
    except (*MALFORMED, pa.ArrowException, zipfile.BadZipFile, zlib.error) as e:
        raise EmbedstoreError(f"{path} cannot be read as vectors: {e}") from e
    raise UsageError(f"{path}: vectors are read from {', '.join(ENDINGS)}")


def of_table(name: str, table: pa.Table, column: str | None = None) -> LooseVectors:
    """Return the vectors and texts of an Arrow table: see `read_loose`."""
    if doubled := [c for c in table.column_names if table.column_names.count(c) > 1]:
        raise EmbedstoreError(f"{name} has column '{doubled[0]}' twice")
    lists = [f.name for f in table.schema if _is_vector(f.type)]
    numbered = _numbered(table.schema)
    usual = [n for n in VECTOR_NAMES if n in lists]
    if column is not None:
        column = f"{column}*" if f"{column}*" in numbered else column
        if column not in lists and column not in numbered:
            raise EmbedstoreError(
                f"{name} has no vectors '{column}'; there: "
                f"{', '.join([*lists, *numbered]) or 'none'}"
            )
        chosen = column
    elif len(candidates := usual[:1] or [*lists, *numbered]) == 1:
        chosen = candidates[0]
    elif candidates:
        raise EmbedstoreError(
            f"{name} has vectors in several columns, {', '.join(candidates)}; say which with "
            "--vectors-from"
        )
    else:
        raise EmbedstoreError(
            f"{name} has no vectors: a column of lists of numbers, or columns 0, 1, ... or "
            f"f_0, f_1, ...; its columns: {', '.join(table.column_names[:12])}"
        )
    of = [chosen] if chosen in lists else numbered[chosen]
    values = _of_lists(name, table[chosen]) if chosen in lists else _of_columns(table, of)
    rest = [c for c in table.column_names if c not in of and not _is_vector(table[c].type)]
    return LooseVectors(name, values, texts_of(table, rest))


def texts_of(table: pa.Table, columns: Sequence[str]) -> dict[str, list[str]]:
    """Return columns as text, n each: what is empty, null or NaN is empty."""
    return {c: _texts(table[c]) for c in columns}


def _is_vector(kind: pa.DataType) -> bool:
    is_list = bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return is_list and _is_number(kind.value_type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numbered(schema: pa.Schema) -> dict[str, list[str]]:
    """Return columns of numbers whose names count on from 0 or 1, as PREFIX*."""
    found = defaultdict[str, dict[int, str]](dict)
    for f in schema:
        match = re.fullmatch(r"(.*?)(\d{1,6})", f.name)
        if match and _is_number(f.type):
            found[match[1]][int(match[2])] = f.name
    return {
        f"{prefix}*": [of[k] for k in sorted(of)]
        for prefix, of in found.items()
        if len(of) >= FEWEST and sorted(of) == list(range(min(of), min(of) + len(of)))
        if min(of) in (0, 1)
    }


def _of_lists(name: str, column: pa.ChunkedArray) -> NDArray[Any]:
    widths = sorted(set(pc.fill_null(pc.list_value_length(column), 0).unique().to_pylist()))
    if len(widths) != 1 or widths == [0] or column.null_count:
        raise EmbedstoreError(
            f"{name}: vectors are {', '.join(map(str, widths[:4])) or '0'} wide, "
            f"{column.null_count} are null; give one width, and a vector for every row"
        )
    flat = pa.concat_arrays([c.flatten() for c in column.chunks])
    return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(len(column), -1)


def _of_columns(table: pa.Table, columns: Sequence[str]) -> NDArray[Any]:
    values = [table[c].to_numpy() for c in columns]
    return np.stack(values, axis=1).astype(np.result_type(*values, np.float32), copy=False)


def _texts(column: pa.ChunkedArray) -> list[str]:
    """Return values as text, as tables of annotations have them: whole numbers without a point."""
    values = column.to_pylist()
    if pa.types.is_floating(column.type):
        values = [int(v) if v is not None and v == v and v == int(v) else v for v in values]
    return ["" if v is None or v != v else str(v) for v in values]


def _typed(rows: Sequence[Mapping[str, str]]) -> pa.Table:
    """Return rows of text as an Arrow table; a column that is all numbers holds numbers."""
    columns: dict[str, Any] = {}
    for name in rows[0] if rows else ():
        texts = [row[name] for row in rows]
        try:
            columns[name] = np.array(texts, dtype=np.float64)
        except ValueError:
            columns[name] = texts
    return pa.table(columns)


def _of_arrays(path: Path, column: str | None) -> LooseVectors:
    if path.suffix.lower() == ".npz":
        check_zip(path)
    with path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            arrays = {"": loaded}
        else:
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    matrices = [k for k, a in arrays.items() if a.ndim == 2 and a.dtype.kind in "fiu"]
    usual = [n for n in VECTOR_NAMES if n in matrices]
    candidates = [column] if column is not None else usual[:1] or matrices
    if len(candidates) != 1 or candidates[0] not in matrices:
        raise EmbedstoreError(
            f"{path} holds {', '.join(f'{k} {a.dtype} {a.shape}' for k, a in arrays.items())}; "
            "give one matrix of numbers, a row a cell"
            + ", or say which with --vectors-from"
            * (len(matrices) > 1)
        )
    values = arrays[candidates[0]]
    texts = {
        k: [str(v) for v in (np.char.decode(a, "utf-8") if a.dtype.kind == "S" else a).tolist()]
        for k, a in arrays.items()
        if a.ndim == 1 and len(a) == len(values) and a.dtype.kind in "USiu"
    }
    return LooseVectors(path.name, values, texts)
