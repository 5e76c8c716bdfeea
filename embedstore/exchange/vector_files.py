"""Files of embeddings, Parquet and npz: one table of formats, a writer and a reader each."""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.exchange.narrow import narrow, notes_on
from embedstore.files.claims import check_zip
from embedstore.files.tables import MALFORMED
from embedstore.store.records import shared

ID = "annotation_id"
TEXTS = (ID, "dataset", "slide", "case_id", "domain", "label")
CENTRE = ("x_l0", "y_l0")
VECTOR_NAMES = ("vector", "embedding", "features")
"""What the column of vectors may be called in a file that others wrote; ours is the first."""

MODEL_KEY = b"embedstore.model"
MODEL_ARRAY = "model_json"
"""Where Parquet (a key of the schema's metadata) and npz (an array) hold the model's row."""

_CHUNK = 1024  # rows looked at together: of Parquet, more take more memory and more time


@dataclass(frozen=True)
class VectorFile:
    """What a file holds: a row an id, vectors float32 (n, dim), dtype that of the file.

    centres is x_l0, y_l0 as float64 (n, 2), NaN where unknown, or None; model the row of the
    models view the file was exported with, or None. faults: what is wrong -> where (ids, files).
    """

    ids: list[str]
    vectors: NDArray[np.float32]
    dtype: str
    centres: NDArray[np.float64] | None = None
    model: dict[str, Any] | None = None
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class Format(NamedTuple):
    """write(stream, schema, number of rows, batches in its order); read(path)."""

    write: Callable[[Any, pa.Schema, int, Iterator[pa.Table]], None]
    read: Callable[[Path], VectorFile]


def export_schema(dim: int, model: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of an exported file; its metadata holds the model's row as JSON."""
    fields = [pa.field(n, pa.string()) for n in TEXTS] + [pa.field(n, pa.float64()) for n in CENTRE]
    fields.append(pa.field(VECTOR_NAMES[0], pa.list_(pa.float32(), dim)))
    return pa.schema(fields, metadata={MODEL_KEY: json.dumps(model, ensure_ascii=False).encode()})


# --------------------------------------------------------------------------------- Parquet


def write_parquet(sink: Any, schema: pa.Schema, n_rows: int, batches: Iterator[pa.Table]) -> None:
    """Write batches of rows as they come, one row group each."""
    # Embeddings neither repeat nor compress: a dictionary or zstd on them costs time only.
    packed = dict.fromkeys((*TEXTS, *CENTRE), "zstd")
    packed[f"{VECTOR_NAMES[0]}.list.element"] = "none"
    with pq.ParquetWriter(sink, schema, compression=packed, use_dictionary=list(TEXTS)) as writer:
        for batch in batches:
            writer.write_table(batch)


def read_parquet(path: Path) -> VectorFile:
    """Return the rows of a Parquet file; EmbedstoreError where it is none or lacks a column."""
    try:
        with pq.ParquetFile(path) as file:
            return _from_parquet(path, file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:
        raise EmbedstoreError(f"{path} cannot be read as Parquet: {e}") from e


def _from_parquet(path: Path, file: Any) -> VectorFile:
    schema = file.schema_arrow
    name = _vector_name(path, schema.names)
    kind = schema.field(name).type
    if not (_is_list(kind) and pa.types.is_floating(kind.value_type)):
        raise EmbedstoreError(
            f"{path}: column '{name}' is {kind}; give lists of floating point numbers"
        )
    if not pa.types.is_string(id_type := _plain_text(schema.field(ID).type)):
        raise EmbedstoreError(f"{path}: column '{ID}' is {id_type}; give text")
    has_centres = all(n in schema.names for n in CENTRE)
    n = file.metadata.num_rows
    ids: list[str] = []
    faults: dict[str, list[str]] = {}
    small: list[str] = []
    vectors = np.empty((n, 0), dtype=np.float32)
    centres = np.full((n, 2), np.nan) if has_centres else None
    columns = [ID, name, *(CENTRE if has_centres else ())]
    for batch in file.iter_batches(batch_size=_CHUNK, columns=columns):
        part = slice(len(ids), len(ids) + len(batch))
        batch_ids = _ids_of(shared(batch.column(ID).cast(pa.string())), part.start, faults)
        ids += batch_ids
        if centres is not None:
            for i, c in enumerate(CENTRE):
                numbers = batch.column(c).cast(pa.float64())
                centres[part, i] = numbers.to_numpy(zero_copy_only=False)
        column = batch.column(name)
        lengths = pc.list_value_length(column)
        if not vectors.shape[1] and (widths := [x for x in lengths.to_pylist() if x]):
            vectors = np.zeros((n, widths[0]), dtype=np.float32)
        dim = vectors.shape[1]
        good = pc.fill_null(pc.equal(lengths, dim or -1), False)  # no vector is 0 wide
        for row, length in zip(*_where_not(good, lengths), strict=True):
            what = (
                "rows have no vector" if not length else f"vectors are not {dim} wide as the first"
            )
            faults.setdefault(what, []).append(batch_ids[row])
        kept = np.flatnonzero(good.to_numpy(zero_copy_only=False))
        flat = column.filter(good).flatten().to_numpy(zero_copy_only=False)
        rows = narrow([batch_ids[i] for i in kept], flat.reshape(len(kept), dim), faults, small)
        vectors[part.start + kept] = rows
    text = (schema.metadata or {}).get(MODEL_KEY)
    model = _model_of(path, text.decode()) if text is not None else None
    dtype = _numpy_name(kind.value_type)
    return VectorFile(ids, vectors, dtype, centres, model, faults, notes_on(small))


def _where_not(good: pa.Array, lengths: pa.Array) -> tuple[list[int], list[int | None]]:
    wrong = pc.invert(good)
    rows = np.flatnonzero(wrong.to_numpy(zero_copy_only=False)).tolist()
    return rows, lengths.filter(wrong).to_pylist()


def _is_list(kind: pa.DataType) -> bool:
    return any(
        is_a(kind)
        for is_a in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    )


def _plain_text(kind: pa.DataType) -> pa.DataType:
    """Return string for every type that holds text (large, dictionary-encoded), else the type."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    texts = pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view
    return pa.string() if any(is_a(kind) for is_a in texts) else kind


def _numpy_name(kind: pa.DataType) -> str:
    return str(np.dtype(kind.to_pandas_dtype()))


# ------------------------------------------------------------------------------------- npz


def write_npz(sink: Any, schema: pa.Schema, n_rows: int, batches: Iterator[pa.Table]) -> None:
    """Write one array a column: text as unicode (never pickled), the vectors float32 (n, dim)."""
    name = VECTOR_NAMES[0]
    vectors = np.empty((n_rows, schema.field(name).type.list_size), dtype=np.float32)
    columns: dict[str, list[Any]] = {n: [] for n in (*TEXTS, *CENTRE)}
    start = 0
    for batch in batches:
        for n, values in columns.items():
            values += batch[n].to_pylist()
        for chunk in batch[name].chunks:
            rows = chunk.flatten().to_numpy(zero_copy_only=True).reshape(len(chunk), -1)
            vectors[start : start + len(chunk)] = rows
            start += len(chunk)
    arrays: dict[str, Any] = {n: np.array([v or "" for v in columns[n]], dtype=str) for n in TEXTS}
    arrays |= {n: np.array(columns[n], dtype=np.float64) for n in CENTRE}
    arrays |= {name: vectors, MODEL_ARRAY: np.array(schema.metadata[MODEL_KEY].decode())}
    np.savez(sink, **arrays)


def read_npz(path: Path) -> VectorFile:
    """Return the rows of an npz file; EmbedstoreError where it is none or lacks an array."""
    try:
        check_zip(path)
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with file:
                return _from_npz(path, file)
    except (*MALFORMED, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise EmbedstoreError(
            f"{path} cannot be read as npz ({e}); save ids as an array of unicode strings and "
            "vectors as a two-dimensional array of floating point numbers"
        ) from e


def _from_npz(path: Path, file: Any) -> VectorFile:
    name = _vector_name(path, list(file.files))
    raw, values = file[ID], file[name]
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind != "f":
        raise ValueError(f"array '{name}' is {values.dtype} of shape {values.shape}")
    if raw.dtype.kind not in "US" or raw.shape != (len(values),):
        raise ValueError(
            f"array '{ID}' is {raw.dtype} of shape {raw.shape} beside {len(values)} vectors"
        )
    texts = np.char.decode(raw, "utf-8") if raw.dtype.kind == "S" else raw
    faults: dict[str, list[str]] = {}
    ids = _ids_of(texts.tolist(), 0, faults)
    small: list[str] = []
    vectors = np.empty(values.shape, dtype=np.float32) if values.dtype != np.float32 else values
    for start in range(0, len(values), _CHUNK):
        part = slice(start, start + _CHUNK)
        vectors[part] = narrow(ids[part], values[part], faults, small)
    centres = None
    if all(c in file.files for c in CENTRE):
        centres = np.stack([file[c].astype(np.float64) for c in CENTRE], axis=1)
        if len(centres) != len(ids):
            raise ValueError(
                f"{', '.join(CENTRE)} have {len(centres)} rows, the vectors {len(ids)}"
            )
    model = _model_of(path, str(file[MODEL_ARRAY])) if MODEL_ARRAY in file.files else None
    return VectorFile(ids, vectors, str(values.dtype), centres, model, faults, notes_on(small))


# ------------------------------------------------------------------------------------ both


def _vector_name(path: Path, names: list[str]) -> str:
    present = [n for n in VECTOR_NAMES if n in names]
    if ID not in names or not present:
        raise EmbedstoreError(
            f"{path} must have '{ID}' and '{VECTOR_NAMES[0]}' (or "
            f"{' or '.join(repr(n) for n in VECTOR_NAMES[1:])}); it has: "
            f"{', '.join(names) or 'nothing'}"
        )
    return present[0]


def _ids_of(texts: list[str | None], start: int, faults: dict[str, list[str]]) -> list[str]:
    """Return ids with "row N" (from 0) for those that are missing, which are faults."""
    ids = [t or f"row {start + i}" for i, t in enumerate(texts)]
    if lost := [i for i, t in zip(ids, texts, strict=True) if not t]:
        faults.setdefault(f"rows have no {ID}", []).extend(lost)
    return ids


def _model_of(path: Path, text: str) -> dict[str, Any]:
    try:
        model = json.loads(text)
    except ValueError as e:
        raise EmbedstoreError(f"{path}: what it says of its model is no JSON ({e})") from e
    if not isinstance(model, dict):
        raise EmbedstoreError(f"{path}: what it says of its model is no JSON object")
    return model


FORMATS: dict[str, Format] = {
    ".parquet": Format(write_parquet, read_parquet),
    ".npz": Format(write_npz, read_npz),
}


def format_of(path: Path) -> Format:
    """Return how a file is written, by its ending; EmbedstoreError for one that is not known."""
    if (form := FORMATS.get(path.suffix.lower())) is None:
        raise EmbedstoreError(f"{path}: name the file {' or '.join(FORMATS)}")
    return form
