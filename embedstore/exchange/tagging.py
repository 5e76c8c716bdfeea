"""The verb `tag`, whole: annotations named by a query or a file, tagged, and handed to QuPath."""

import contextlib
from collections.abc import Sequence
from typing import Any

from embedstore.errors import UsageError
from embedstore.exchange.qupath import Cell, write_cells
from embedstore.files.at_hand import brought_in, delivered
from embedstore.files.objects import Place
from embedstore.store import Store
from embedstore.store.tags import change, chosen_ids, counted


def check_asked(name: str | None, *, changes: bool, output: str | None) -> None:
    """Raise UsageError where something is asked of a tag that has no name."""
    if name is None and (changes or output is not None):
        raise UsageError("name a tag: embedstore tag NAME ...")


def tag_and_write(
    store: Store,
    name: str,
    query: str | Sequence[str] | None = None,
    file: Place | None = None,
    *,
    remove: bool = False,
    to: Place | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """Tag or untag what a query, a file or ids name; return a row per tag and dataset, and notes.

    to: a folder, which gets all that have the tag then as GeoJSON of each slide.
    """
    with contextlib.ExitStack() as stack:
        path = None if file is None else stack.enter_context(brought_in(file))
        if query is None or isinstance(query, str):
            named = chosen_ids(store, query, path)
        else:
            named = list(query)
    ids, notes = change(store, name, named, remove=remove)
    if to is not None:
        with delivered(to) as folder:
            written = write_cells(store, [Cell(i, name) for i in ids], folder)
        notes.append(f"{len(ids):,} cells on {len(written):,} slides written to {to}")
    return counted(store, name), notes
