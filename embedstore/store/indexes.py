"""Neighbours of a vector: by a scan of all of a model's, or nearly as good by an index of them."""

from typing import Any

import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

from embedstore.errors import EmbedstoreError
from embedstore.files.faults import in_words
from embedstore.store.layout import model_table
from embedstore.store.store import Store

PAYS = 1_000_000
"""Embeddings from which on a scan takes longer than the rest of the command."""

N_PROBES = 50
"""Lists of an index that are looked through for one vector."""

N_SAMPLE, K_SAMPLE = 20, 20
"""Of so many of its own vectors so many neighbours are compared to tell the recall of an index."""


def nearest(
    store: Store,
    model: str,
    vector: Any,
    n: int,
    *,
    metric: str = "cosine",
    where: str | None = None,
    exact: bool = True,
) -> pa.Table:
    """Return annotation_id and _distance of the n embeddings nearest to a vector, in order.

    exact: all are compared, else those that an index deems near. metric is cosine or l2, whose
    _distance LanceDB gives squared; where is a LanceDB condition on the columns of the model's
    table, applied beforehand.
    """
    search = store.open_table(model_table(model)).search(vector, vector_column_name="vector")
    search = search.distance_type(metric)
    search = search.bypass_vector_index() if exact else search.nprobes(N_PROBES)
    if where is not None:
        search = search.where(where, prefilter=True)
    return search.limit(n).select(["annotation_id", "_distance"]).to_arrow()


def make_index(store: Store, model: str, metric: str) -> float:
    """Make the index of a model for a metric, in place of one that is there; return its recall.

    Inverted lists of whole vectors (IVF_FLAT): distances are exact, and it takes on disk what the
    vectors take. EmbedstoreError where there are too few vectors for one.
    """
    table = store.open_table(model_table(model))
    try:
        table.create_index("vector", config=IvfFlat(distance_type=metric), replace=True)
    except (OSError, RuntimeError, ValueError) as e:
        raise EmbedstoreError(
            f"no index of model '{model}' could be made ({in_words(e)}); leave out --index"
        ) from e
    store.forget_pins(model_table(model))
    lance = store.lance(model_table(model))
    places = np.unique(np.linspace(0, lance.count_rows() - 1, N_SAMPLE).astype(np.int64))
    shares = []
    for vector in lance.take(places, columns=["vector"])["vector"].to_pylist():
        exact, found = (
            set(
                nearest(store, model, vector, K_SAMPLE, metric=metric, exact=is_exact)[
                    "annotation_id"
                ].to_pylist()
            )
            for is_exact in (True, False)
        )
        shares.append(len(exact & found) / len(exact))
    return float(np.mean(shares))


def has_index(store: Store, model: str, metric: str) -> bool:
    """Return whether a model has an index for a metric."""
    table = store.open_table(model_table(model))
    stats = [table.index_stats(i.name) for i in table.list_indices() if i.columns == ["vector"]]
    return any(s is not None and s.distance_type == metric for s in stats)
