"""A model's vectors beside what the store tells of their cells, in one order."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import (
    check_dataset,
    connect,
    fetch,
    identifier,
    literal,
    where_clause,
)
from embedstore.store.vectors import fill

ID = "annotation_id"


def vectors_of(
    store: Store, model: str, dataset: str | None, where: str | None, about: str
) -> tuple[NDArray[np.float32], pa.Table]:
    """Return a model's vectors, float32 (n, d), and columns of the view annotations, n rows.

    Of a dataset, or of all, of cells that meet a condition on that view. EmbedstoreError where
    there are none.
    """
    con = connect(store)
    if dataset is not None:
        check_dataset(store, con, dataset)
    if model not in store.models():
        raise EmbedstoreError(
            f"no embeddings of model '{model}' in {store.uri}; there: "
            f"{', '.join(store.models()) or 'none'}; make them with `embedstore ingest "
            f"{dataset or 'DATASET'} --model {model}`"
        )
    lance = store.lance(model_table(model))
    of_dataset = None if dataset is None else f"dataset = {literal(dataset)}"
    d = lance.schema.field("vector").type.list_size
    vectors = np.empty((lance.count_rows(filter=of_dataset), d), dtype=np.float32)
    keys = fill(vectors, lance, [ID], of_dataset, model)
    con.register("_keys", keys.append_column("place", pa.array(np.arange(len(keys)))))
    cells = fetch(
        con,
        f"select {about}, place from (from annotations where {of_dataset or 'true'} and "
        f"{where_clause(where)}) join (from _keys semi join {identifier(model)} using ({ID})) "
        f"using ({ID}) order by place",
    )
    if not len(cells):
        raise EmbedstoreError(
            f"no embeddings of model '{model}' of {dataset or 'any dataset'}"
            + (f" where {where}" if where else "")
        )
    places = cells["place"].to_numpy()
    if len(places) < len(vectors):
        vectors = vectors[places]
    return vectors, cells.drop_columns(["place"])
