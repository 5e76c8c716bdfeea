"""The store: its tables, and the boundaries to LanceDB and DuckDB."""

from embedstore.store.clock import now
from embedstore.store.store import Store

__all__ = ["Store", "now"]
