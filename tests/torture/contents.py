"""What a store holds, to be compared: every table by key, less times and what follows from them."""

from collections import Counter
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

VOLATILE = {"seconds", "embeddings_version", "parity"}
"""Columns that differ from run to run beside those of time."""

Contents = dict[str, dict[str, Any]]
"""Rows by table and key."""


def contents(store: Path) -> Contents:
    """Return all rows; AssertionError where a key is there twice. Empty tables are left out."""
    if not store.is_dir() or not any(store.glob("*.lance")):
        return {}
    db = lancedb.connect(str(store))
    found: Contents = {}
    for name in db.list_tables(limit=1000).tables:
        try:
            table = db.open_table(name).to_arrow()
        except ValueError as e:
            if "was not found" not in str(e):
                raise
            continue  # it was just being made when the command was killed
        if not table.num_rows:
            continue
        key = table.schema.field(0).name
        keys = table[key].to_pylist()
        twice = [k for k, n in Counter(keys).items() if n > 1]
        assert not twice, f"{name}: keys twice: {twice[:5]}"
        kept = [
            f.name
            for f in table.schema
            if not pa.types.is_timestamp(f.type) and f.name not in VOLATILE
        ]
        found[name] = dict(zip(keys, map(repr, table.select(kept).to_pylist()), strict=True))
    return found


def differences(a: Contents, b: Contents) -> list[str]:
    """Return what differs between two stores, a line each."""
    said = []
    for table in sorted({*a, *b}):
        one, other = a.get(table, {}), b.get(table, {})
        for key in sorted({*one, *other}):
            if one.get(key) != other.get(key):
                said.append(f"{table} {key}:\n  {one.get(key)}\n  {other.get(key)}")
    return said


def partly(now: Contents, before: Contents, after: Contents) -> list[str]:
    """Return the rows of a killed command's store that are neither as before nor as after it."""
    said = []
    for table, rows in now.items():
        if table == "removals":  # what is under way
            continue
        for key, row in rows.items():
            if "'pending': ['" in row:  # an add under way has written down what it will say
                continue
            if row not in (before.get(table, {}).get(key), after.get(table, {}).get(key)):
                said.append(f"{table} {key}:\n  {row}")
    return said
