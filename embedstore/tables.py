"""Delimited files: their rows as dicts, and the table of slides."""

import csv
import sqlite3
from pathlib import Path, PureWindowsPath
from typing import Any

from embedstore.errors import EmbedstoreError

MALFORMED = (
    KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, OSError,
    sqlite3.Error, csv.Error,
)  # fmt: skip
"""What readers raise on a file that is not what it should be."""


def file_name(text: str) -> str:
    """Return the last part of a path, which is how a slide is known."""
    # Files written on Windows carry backslashes; PureWindowsPath splits at both.
    return PureWindowsPath(str(text)).name


def table_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a delimited file, column names without the spaces around them."""
    with path.open(newline="", encoding="utf-8-sig") as f:
        reader = csv.DictReader(f, dialect=_dialect(f.read(8192), f))
        names = [name.strip() for name in reader.fieldnames or []]
        if doubles := sorted({n for n in names if names.count(n) > 1}):
            raise EmbedstoreError(f"{path} has column {', '.join(doubles)} more than once")
        reader.fieldnames = names
        return list(reader)


def read_slide_table(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of a table of slides by slide name: columns slide, and mpp, case, ... .

    A slide is named by its file name; the name without its suffix is accepted as well.
    """
    if not path.is_file():
        raise EmbedstoreError(f"no slide table at {path}; give an existing CSV file")
    try:
        rows = table_rows(path)
    except MALFORMED as e:
        raise EmbedstoreError(f"{path} does not read as a CSV table in UTF-8 ({e})") from e
    key = next((k for k in (rows[0] if rows else {}) if k.lower() in ("slide", "path")), None)
    if key is None:
        raise EmbedstoreError(f"{path} has no column slide; name each slide's file in one")
    return {file_name(r[key]): {k.lower(): v for k, v in r.items() if k and v} for r in rows}


def _dialect(head: str, f: Any) -> type[csv.Dialect]:
    f.seek(0)
    first = head.split("\n", 1)[0]

    class Dialect(csv.excel):
        delimiter = max(",;\t", key=first.count)

    return Dialect
