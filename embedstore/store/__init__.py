"""The store: its tables, and the boundaries to LanceDB and DuckDB."""

from embedstore.store.store import Store, now

__all__ = ["Store", "now"]
