"""Migrations: how a store of an older format becomes one of the newest, killed at any moment.

A table or column that `layout` declares is made where it is missing, as NULL; a step in `STEPS`
fills it from what was there. Every step may be done twice, and by two processes at once; the
format number is written last.
"""

import json
from collections.abc import Callable
from typing import Any, Protocol

import pyarrow as pa


class Migrated(Protocol):
    """What a step needs of a store."""

    def lance(self, name: str) -> Any:
        """Return a table as a Lance dataset."""

    def update_columns(self, name: str, rows: pa.Table) -> int:
        """Overwrite some columns of rows that are there."""


def _fill_pixels(store: Migrated) -> None:
    """Move the digest of an e2e run's pixels out of the JSON in `chosen` into its own column."""
    rows = store.lance("results").to_table(
        columns=["result_id", "chosen"], filter="method = 'e2e' and pixels is null"
    )
    digests = [json.loads(c or "{}").get("pixels") for c in rows["chosen"].to_pylist()]
    pixels = pa.array(digests, pa.string())
    filled = rows.select(["result_id"]).append_column("pixels", pixels)
    if (filled := filled.filter(pixels.is_valid())).num_rows:
        store.update_columns("results", filled)


STEPS: dict[int, Callable[[Migrated], None]] = {3: _fill_pixels}
"""What turns a store of a format into one of the next, once its columns are there."""
