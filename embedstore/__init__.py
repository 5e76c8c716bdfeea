"""Embeddings of annotated cells, one per annotation and model, in a store that answers SQL."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.user import settle_user

if TYPE_CHECKING:
    from embedstore.python.handle import Store
    from embedstore.python.rows import Rows
    from embedstore.python.vectors import Embeddings

__all__ = ["Embeddings", "EmbedstoreError", "Rows", "Store", "UsageError"]

settle_user()

_LATER = {"Store": "handle", "Rows": "rows", "Embeddings": "vectors"}
"""What takes its time to import, and is imported once it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'embedstore' has no attribute '{name}'")
    return getattr(import_module(f"embedstore.python.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LATER])
