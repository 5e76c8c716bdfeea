"""Writing a file that is whole or not there."""

import contextlib
import csv
import glob
import io
import json
import math
import sys
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.errors import EmbedstoreError
from embedstore.files.at_hand import delivered
from embedstore.files.objects import Place, partial_name


def write_whole(path: Path, write: Callable[[Any], Any]) -> None:
    """Have write(binary stream) fill a file, which takes its name only once it is complete.

    Links are followed; a pipe or a device is written to, never replaced. EmbedstoreError where
    the file system refuses; whatever goes wrong, what was there before stays.
    """
    path = path.resolve()
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as sink:
                write(sink)
            return
        _forget_partials(path)
        partial = Path(partial_name(str(path)))
        try:
            with partial.open("wb") as sink:
                write(sink)
            partial.replace(path)
        finally:
            if partial.is_file():
                partial.unlink()
    except BrokenPipeError:
        raise
    except OSError as e:
        raise EmbedstoreError(f"{path} cannot be written: {e.strerror or e}") from e


def _forget_partials(path: Path) -> None:
    """Delete what processes that were killed have left of a file, a day ago or earlier."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f"{glob.escape(path.name)}.*.part"):
            if datetime.now().timestamp() - left.stat().st_mtime > 86_400:
                left.unlink()


_NO_NUMBER = {math.inf: "Infinity", -math.inf: "-Infinity"}
"""How JSON's readers know what JSON itself has no word for; NULL alone is missing."""


def to_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Return rows ready for JSON: times in ISO 8601, NaN and infinities by name, as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return value if math.isfinite(value) else _NO_NUMBER.get(value, "NaN")
        if isinstance(value, Decimal):
            return int(value) if value == value.to_integral_value() else float(value)
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value if isinstance(value, str | int | bool | None) else str(value)

    try:
        rows = table.to_pylist()
    except (OverflowError, ValueError) as e:
        raise EmbedstoreError(f"a value has no form in Python ({e}); cast it to text in SQL") from e
    return [{k: plain(v) for k, v in row.items()} for row in rows]


def to_csv(table: pa.Table) -> str:
    """Return a header and rows with LF line ends; lists as JSON, NULL as nothing."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in to_rows(table):
        writer.writerow(
            json.dumps(v) if isinstance(v, list | dict) else "" if v is None else v
            for v in row.values()
        )
    return out.getvalue()


def in_batches(rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.Table]:
    """Yield rows as tables, one at least: those of a reader as they come."""
    if isinstance(rows, pa.Table):
        yield rows
        return
    n = 0
    for batch in rows:
        n += 1
        yield pa.Table.from_batches([batch])
    if not n:
        yield rows.schema.empty_table()


def write_csv(rows: pa.Table | pa.RecordBatchReader, sink: Any) -> None:
    """Write rows as CSV, the header once."""
    for n, part in enumerate(in_batches(rows)):
        text = to_csv(part)
        sink.write((text if n == 0 else text.split("\n", 1)[1]).encode())


def write_json(rows: pa.Table | pa.RecordBatchReader, sink: Any) -> None:
    """Write rows as one JSON list, indented as `to_json` does."""
    any_yet = False
    for part in in_batches(rows):
        text = to_json(to_rows(part))
        if text != "[]\n":
            body = text.removeprefix("[\n").removesuffix("\n]\n")
            sink.write((",\n" if any_yet else "[\n").encode() + body.encode())
            any_yet = True
    sink.write(b"\n]\n" if any_yet else b"[]\n")


def write_parquet(rows: pa.Table | pa.RecordBatchReader, sink: Path | Any) -> None:
    """Write rows as Parquet to a path or a binary stream."""
    try:
        with pq.ParquetWriter(sink, rows.schema, compression="zstd") as writer:
            for part in in_batches(rows):
                writer.write_table(part)
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as e:
        raise EmbedstoreError(f"Parquet cannot hold this result ({e}); cast it in SQL") from e


def to_json(rows: Any) -> str:
    """Return rows as indented JSON text; times as ISO 8601, NaN refused."""

    def plain(value: Any) -> Any:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)

    return json.dumps(rows, indent=1, ensure_ascii=False, default=plain, allow_nan=False) + "\n"


def write_out(place: Place | None, write: Callable[[Any], Any]) -> None:
    """Write to stdout, or to a file, here or on an object store, that is whole or not there."""
    if place is None:
        sys.stdout.flush()
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with delivered(place) as path:
        write_whole(path, write)
