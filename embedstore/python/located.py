"""Where a store is, and its tables when they are asked for."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedstore.store import Store as Tables


class Located:
    """A place that is a store, or will be one once something is added."""

    def __init__(self, uri: str | Path | None = None) -> None:
        """Name a store; None: EMBEDSTORE_URI, else ./store. Where none is, `add` makes it."""
        self.uri = str(uri if uri is not None else os.environ.get("EMBEDSTORE_URI", "./store"))

    def open(self, *, write: bool = False) -> "Tables":
        """Return the tables of the store as they are now; EmbedstoreError where there is none."""
        from embedstore.store import Store as Tables  # LanceDB takes seconds to import

        return Tables.open(self.uri, write=write)

    def _is_there(self) -> bool:
        from embedstore.store import Store as Tables

        return Tables.is_taken(self.uri)
