"""Tables in files: the rows of delimited text and of Parquet as dicts of text."""

import codecs
import csv
import gzip
import io
import json
import math
import sqlite3
import tokenize
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path, PureWindowsPath
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.files.claims import check_gzip

MALFORMED = (
    KeyError,
    IndexError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    OSError,
    sqlite3.Error,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
)
"""What readers raise on a file that is not what it should be (pyarrow's errors among them).

RuntimeError is h5py's, of what is nested too deeply, and of packed files that need a password;
SyntaxError and TokenError are NumPy's, whose headers are Python.
"""


def file_name(text: str) -> str:
    """Return the last part of a path, which is how a slide is known."""
    # Files written on Windows carry backslashes; PureWindowsPath splits at both.
    return PureWindowsPath(str(text).strip()).name


DELIMITED = (".csv", ".tsv", ".txt")
PARQUET = (".parquet", ".pq")


def plain_name(path: Path) -> str:
    """Return a file's name in lower case without the .gz of a packed one."""
    return path.name.lower().removesuffix(".gz")


def is_delimited(path: Path) -> bool:
    """Return whether a file's name ends as delimited text does."""
    return plain_name(path).endswith(DELIMITED)


def is_parquet(path: Path) -> bool:
    """Return whether a file is Parquet, by its ending or its first bytes."""
    if path.suffix.lower() in PARQUET:
        return True
    with path.open("rb") as f:
        return f.read(4) == b"PAR1"


def table_columns(path: Path, header: Sequence[str] = ()) -> list[str]:
    """Return the column names of a table, without the spaces around them.

    header names the columns, in order, of delimited text that has no names in its first line.
    """
    if is_parquet(path):
        import pyarrow.parquet as pq

        return _checked(path, pq.read_schema(path).names)
    with _opened(path) as f:
        return _checked(path, _reader(f, header).fieldnames or [])


def table_rows(
    path: Path, header: Sequence[str] = (), *, without: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the rows of a delimited or Parquet file as text; what is empty there is empty here.

    Parquet's whole numbers are text without a decimal point, also where they are stored as floats;
    NaN and null are empty, and codes whose names the file states are these names. Columns of lists,
    records or bytes raise EmbedstoreError, unless they are to be left out. header: as in
    `table_columns`.
    """
    if is_parquet(path):
        return _parquet_rows(path, without)
    with _opened(path) as f:
        reader = _reader(f, header)
        names = reader.fieldnames = _checked(path, reader.fieldnames or [])
        rows = []
        for row in reader:
            surplus = row.pop(_SURPLUS, None)
            if surplus is not None or _LACKING in row.values():
                n = sum(v is not _LACKING for v in row.values()) + len(surplus or ())
                raise _ragged(path, reader.line_num, n, names, surplus)
            rows.append(row)
        return rows


def _checked(path: Path, columns: Any) -> list[str]:
    names = [str(name).strip() for name in columns]
    if doubles := sorted(n for n, k in Counter(names).items() if k > 1):
        raise EmbedstoreError(f"{path} has column {', '.join(doubles)} more than once")
    return names


def _opened(path: Path) -> io.TextIOWrapper:
    with path.open("rb") as f:
        is_packed = f.read(2) == b"\x1f\x8b"
    if is_packed:
        check_gzip(path)
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding=encoding_of(path), newline="")


def encoding_of(path: Path) -> str:
    """Return how a text file is written: UTF-16 where it begins with its mark, else UTF-8.

    Raises EmbedstoreError where its first bytes are neither, so that letters are not guessed.
    """
    with path.open("rb") as f:
        head = f.read(_HEAD)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=len(head) < _HEAD)
    except UnicodeDecodeError as e:
        line = head[: e.start].count(b"\n") + 1
        raise EmbedstoreError(
            f"{path} line {line} is not in UTF-8 (byte {head[e.start]:#04x}): its letters may be "
            "those of several old encodings; save it as UTF-8"
        ) from e
    return "utf-8-sig"


_HEAD = 1 << 20


def _reader(f: Any, header: Sequence[str] = ()) -> "csv.DictReader[str]":
    first = f.read(8192).split("\n", 1)[0]
    f.seek(0)

    class Dialect(csv.excel):
        delimiter = _delimiter(first)

    names = list(header) or None
    return csv.DictReader(f, names, dialect=Dialect, restkey=_SURPLUS, restval=_LACKING)


def _delimiter(first: str) -> str:
    return max(",;\t", key=first.count)


def delimiter_of(path: Path) -> str:
    """Return what stands between the columns of delimited text: a comma, semicolon or tab."""
    with _opened(path) as f:
        return _delimiter(f.readline(8192))


_SURPLUS, _LACKING = "\0surplus", "\0lacking"


def _ragged(
    path: Path, line: int, n: int, names: Sequence[str], surplus: Sequence[str] | None
) -> EmbedstoreError:
    """Return the error that says of a row that its fields and the columns differ in number."""
    why = (
        "; numbers with decimal commas need a semicolon or a tab between columns, or points"
        if surplus and all(v.strip().isdigit() for v in surplus)
        else "; put a field that holds the separator in quotes"
    )
    return EmbedstoreError(
        f"{path} line {line} has {n} fields, and there are {len(names)} columns "
        f"({', '.join(names)}){why}"
    )


def _parquet_rows(path: Path, without: Sequence[str]) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(path)
    kept = [name for name in file.schema_arrow.names if name.strip() not in without]
    table = file.read(columns=kept)
    names = _checked(path, table.column_names)
    codes = _code_names(file.schema_arrow.metadata)
    wrong = [
        f"{name} ({field.type})"
        for name, field in zip(names, table.schema, strict=True)
        if pa.types.is_nested(field.type) or _is_binary(field.type)
    ]
    if wrong:
        raise EmbedstoreError(
            f"{path}: a column holds text, numbers or dates, not lists, records or bytes: "
            f"{', '.join(wrong)}; drop or flatten it"
        )
    columns = [
        [codes.get(name, {}).get(text := _text(v), text) for v in column.to_pylist()]
        for name, column in zip(names, table.columns, strict=True)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _code_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, dict[str, str]]:
    """Return by column what its codes are called, as tables of Hugging Face state it."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: {str(code): str(name) for code, name in enumerate(of["names"])}
            for column, of in features.items()
            if of.get("_type") == "ClassLabel" and of.get("names")
        }
    except MALFORMED:
        return {}


def _is_binary(type: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(type):
        type = type.value_type
    return bool(
        pa.types.is_binary(type)
        or pa.types.is_large_binary(type)
        or pa.types.is_fixed_size_binary(type)
        or pa.types.is_binary_view(type)
    )


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else str(value)
    return str(value)
