"""What a report's tables hold."""

import csv
import io
from pathlib import Path

from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


def table(written: dict[str, Path], name: str) -> list[dict[str, Any]]:
    return list(csv.DictReader(io.StringIO(written[f"{name}.csv"].read_text())))


def sql(store: Store, query: str) -> list[dict[str, Any]]:
    return fetch_rows(connect(store), query)
