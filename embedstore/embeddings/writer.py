"""Embeddings on their way into the store: collected, then written in whole batches."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.embeddings.crops import Placed
from embedstore.embeddings.identity import IDENTITY, check_same, recorded_models
from embedstore.errors import EmbedstoreError
from embedstore.slides.patches import PLAIN, is_own_row
from embedstore.store import Store, now
from embedstore.store.clock import later
from embedstore.store.layout import (
    CUT,
    model_schema,
    model_table,
    view_id,
    views_schema,
    views_table,
)

FLUSH_ROWS = 2048
FLUSH_SECONDS = 10.0
"""Embeddings are written when either is reached: a kill costs at most twice that much work, what
is being written and what is collected meanwhile."""

Batch = tuple[Sequence[Placed], Sequence[str], NDArray[np.float32]]
"""Annotations, their views, and vectors float32 (n, dim)."""

_ATTEMPTS = 3
"""How often a model is recorded, while another process may be removing it."""

_KEYS = ("annotation_id", "dataset", "domain", "label", "slide")


class Writer:
    """Collects vectors and writes them in batches behind the caller, each whole or not at all.

    identities holds each model's row of the models table, written with its first vectors. What goes
    wrong in writing is raised by the next call.
    """

    def __init__(
        self,
        store: Store,
        identities: dict[str, dict[str, Any]],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Hold what is needed to write; nothing is written yet. Each write calls `before`."""
        self._store, self._before = store, before
        self._identities, self._unrecorded = identities, set(identities)
        self._waiting: dict[str, list[Batch]] = defaultdict(list)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writing: Future[None] | None = None
        self._last = time.monotonic()
        self._floors: dict[str, datetime] = {}

    def add(self, model: str, batch: Batch) -> None:
        """Take a batch of one model: it waits to be written."""
        self._waiting[model].append(batch)

    def flush_if_due(self) -> None:
        """Begin to write what waits if that is enough, or has waited long."""
        n_rows = max(sum(len(p) for p, _, _ in batches) for batches in self._waiting.values())
        if n_rows >= FLUSH_ROWS or time.monotonic() - self._last > FLUSH_SECONDS:
            self._begin()

    def close(self) -> None:
        """Write all that waits; return once it is written."""
        try:
            self._begin()
            self._settle()
        finally:
            self._thread.shutdown(wait=True)

    def _begin(self) -> None:
        self._settle()
        waiting, self._waiting = self._waiting, defaultdict(list)
        self._writing = self._thread.submit(self._write, waiting)
        self._last = time.monotonic()

    def _settle(self) -> None:
        """Wait for what is being written, and raise what went wrong."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, waiting: Mapping[str, Sequence[Batch]]) -> None:
        self._before()
        for model, batches in waiting.items():
            if batches:
                self._record(model)
                placed = [p for batch, _, _ in batches for p in batch]
                views = [v for _, batch, _ in batches for v in batch]
                vectors = np.concatenate([v for _, _, v in batches])
                self._merge(model, placed, views, vectors)

    def _merge(
        self, model: str, placed: list[Placed], views: list[str], vectors: NDArray[np.float32]
    ) -> None:
        plain = [
            k
            for k, (p, view) in enumerate(zip(placed, views, strict=True))
            if is_own_row(view, p.wants[model])
        ]
        turned = [k for k, view in enumerate(views) if view != PLAIN]
        dim = vectors.shape[1]
        if turned:  # first, so that a patch whose own row is there has all views or wants them
            self._store.make_views_table(model, dim)
            table = self._table(model, [placed[k] for k in turned], vectors[turned])
            columns = {
                "view_id": [view_id(placed[k].annotation_id, views[k]) for k in turned],
                "view": [views[k] for k in turned],
                **dict(zip(table.column_names, table.columns, strict=True)),
            }
            self._store.merge(views_table(model), pa.table(columns, schema=views_schema(dim)))
        if plain:
            table = self._table(model, [placed[k] for k in plain], vectors[plain])
            self._store.merge(model_table(model), table)

    def _record(self, model: str) -> None:
        """Record a model with its first vectors, so that a name is bound by nothing less."""
        if model not in self._unrecorded:
            return
        self._unrecorded.remove(model)
        bind_name(self._store, {**self._identities[model], "created_at": now()})

    def _table(self, model: str, placed: list[Placed], vectors: NDArray[np.float32]) -> pa.Table:
        patch_px = self._identities[model]["patch_px"]
        resized = [_resized(p, patch_px) for p in placed]
        rows = [vars(p) | p.cut for p in placed]
        return embeddings_table(model, rows, vectors, resized, self._moment(model))

    def _moment(self, model: str) -> datetime:
        """Return the time of writing, later than all vectors of the model that were there."""
        if model not in self._floors:
            tables = (model_table(model), views_table(model))
            self._floors[model] = later(self._store, *tables, column="embedded_at")
        return max(now(), self._floors[model])


def bind_name(store: Store, identity: Mapping[str, Any], other: str = "--as NAME") -> None:
    """Make a model's table and record, and hold what is recorded against its identity.

    EmbedstoreError where the name is another model's; `other` says how to take another name.
    """
    model = identity["model"]
    asked = {k: identity[k] for k in IDENTITY}
    for _ in range(_ATTEMPTS):
        store.make_model_table(model, identity["dim"])
        store.merge("models", [identity], replace=False)
        # Another process may have been first, with something else under this name.
        if (recorded := recorded_models(store).get(model)) is not None:
            check_same(model, recorded, asked, other=other)
            return
    raise EmbedstoreError(
        f"model '{model}' is being removed by another process; give the command again when it has "
        "ended"
    )


def embeddings_table(
    model: str,
    rows: Sequence[Mapping[str, Any]],
    vectors: NDArray[np.float32],
    resized: Sequence[bool | None],
    at: datetime,
) -> pa.Table:
    """Return rows of a model's table, embedded at a time: annotations, their vectors (n, dim).

    What they were cut from is stored where rows say it.
    """
    n, dim = vectors.shape
    columns = {
        **{k: [r[k] for r in rows] for k in _KEYS},
        "model": [model] * n,
        "embedded_at": [at] * n,
        "resized": list(resized),
        **{k: [r.get(k) for r in rows] for k in CUT},
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
    }
    schema = model_schema(dim)
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _resized(placed: Placed, patch_px: int) -> bool | None:
    if not placed.is_patch:
        return None
    return (placed.width, placed.height) != (patch_px, patch_px)
