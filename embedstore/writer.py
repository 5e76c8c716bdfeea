"""Embeddings on their way into the store: collected, then written in whole batches."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.identity import IDENTITY, check_same, recorded_models
from embedstore.slides.patches import D4, PLAIN
from embedstore.store import Store, now
from embedstore.store.layout import model_schema, model_table, view_id, views_schema, views_table

FLUSH_ROWS = 512
FLUSH_SECONDS = 10.0
"""Embeddings are written when either is reached: a kill costs at most that much work."""

SAME = next(iter(D4))
"""The view that is the patch itself."""

Batch = tuple[Sequence[str], Sequence[str], NDArray[np.float32]]
"""Annotation ids, their views, and vectors float32 (n, dim)."""


class Writer:
    """Collects vectors and writes them in batches, each batch whole or not at all.

    rows holds what the plan says of each annotation id, identities each model's row of the models
    table, written with its first vectors.
    """

    def __init__(
        self,
        store: Store,
        dataset: str,
        rows: Mapping[str, Mapping[str, Any]],
        identities: dict[str, dict[str, Any]],
    ) -> None:
        """Hold what is needed to write; nothing is written yet."""
        self._store, self._dataset, self._rows = store, dataset, rows
        self._identities, self._unrecorded = identities, set(identities)
        self._waiting: dict[str, list[Batch]] = defaultdict(list)
        self._last = time.monotonic()

    def add(self, model: str, batch: Batch) -> None:
        """Take a batch of one model: it waits to be written."""
        self._waiting[model].append(batch)

    def flush_if_due(self) -> None:
        """Write what waits if it is enough or has waited long."""
        n_rows = max(sum(len(i) for i, _, _ in batches) for batches in self._waiting.values())
        if n_rows >= FLUSH_ROWS or time.monotonic() - self._last > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all that waits."""
        for model, batches in self._waiting.items():
            if batches:
                self._record(model)
                ids = [i for batch, _, _ in batches for i in batch]
                views = [v for _, batch, _ in batches for v in batch]
                vectors = np.concatenate([v for _, _, v in batches])
                self._merge(model, ids, views, vectors)
        self._waiting.clear()
        self._last = time.monotonic()

    def _merge(
        self, model: str, ids: list[str], views: list[str], vectors: NDArray[np.float32]
    ) -> None:
        # A patch that both tables want is embedded once, as the view that is the patch itself.
        plain = [
            k
            for k, (i, view) in enumerate(zip(ids, views, strict=True))
            if view == PLAIN or (view == SAME and PLAIN in self._rows[i]["wants"][model])
        ]
        turned = [k for k, view in enumerate(views) if view != PLAIN]
        dim = vectors.shape[1]
        if turned:  # first, so that a patch whose own row is there has all views or wants them
            self._store.make_views_table(model, dim)
            keys = {
                "view_id": [view_id(ids[k], views[k]) for k in turned],
                "view": [views[k] for k in turned],
            }
            columns = keys | self._columns(model, [ids[k] for k in turned], vectors[turned])
            self._store.merge(views_table(model), pa.table(columns, schema=views_schema(dim)))
        if plain:
            columns = self._columns(model, [ids[k] for k in plain], vectors[plain])
            self._store.merge(model_table(model), pa.table(columns, schema=model_schema(dim)))

    def _record(self, model: str) -> None:
        """Record a model with its first vectors, so that a name is bound by nothing less."""
        if model not in self._unrecorded:
            return
        self._unrecorded.remove(model)
        identity = self._identities[model]
        self._store.make_model_table(model, identity["dim"])
        self._store.merge("models", [identity | {"created_at": now()}], replace=False)
        # Another process may have been first, with something else under this name.
        recorded = recorded_models(self._store)[model]
        check_same(model, recorded, {k: identity[k] for k in IDENTITY})

    def _columns(self, model: str, ids: list[str], vectors: NDArray[np.float32]) -> dict[str, Any]:
        rows = [self._rows[i] for i in ids]
        patch_px = self._identities[model]["patch_px"]
        return {
            "annotation_id": ids,
            **{k: [v] * len(ids) for k, v in (("model", model), ("dataset", self._dataset))},
            **{k: [r[k] for r in rows] for k in ("domain", "label", "slide")},
            "embedded_at": [now()] * len(ids),
            "resized": [_resized(r, patch_px) for r in rows],
            "vector": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.ravel()), vectors.shape[1]
            ),
        }


def _resized(row: Mapping[str, Any], patch_px: int) -> bool | None:
    if row["kind"] != "patch":
        return None
    return (row["width"], row["height"]) != (patch_px, patch_px)
