"""Times that tell what is newer, on machines whose clocks differ or go back."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow.compute as pc

if TYPE_CHECKING:
    from embedstore.store.store import Store


def now() -> datetime:
    """Return the time of writing, UTC without a zone, as all created_at columns hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


def later(store: "Store", *names: str, column: str) -> datetime:
    """Return the time now, or the next moment after all that a column of these tables holds.

    Whether a result still stands is told by the age of its vectors: what is written after a clock
    went back, or by a machine whose clock is behind, must not look older than what it replaces.
    """
    moment = now()
    for name in names:
        if not store.has(name):
            continue
        table = store.lance(name).to_table(columns=[column])
        newest = pc.max(table[column]).as_py()
        if newest is not None and newest >= moment:
            moment = newest + timedelta(microseconds=1)
    return moment
