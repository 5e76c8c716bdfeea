"""The verb `export`: a model's embeddings of a dataset to a file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedstore.errors import EmbedstoreError
from embedstore.exchange.incoming import READ_ROWS
from embedstore.exchange.vector_files import ID, export_schema, format_of
from embedstore.files.output import to_rows, write_whole
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import (
    check_dataset,
    connect,
    embedded_models,
    fetch,
    identifier,
    literal,
)


@dataclass(frozen=True)
class ExportReport:
    """What was written: n_rows embeddings of width dim, and how many annotations have none."""

    dataset: str
    model: str
    n_rows: int
    n_without: int
    dim: int

    def row(self, file: str) -> dict[str, Any]:
        """Return it as the command prints it; file is what was asked for."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "exported": self.n_rows,
            "not_embedded": self.n_without,
            "dim": self.dim,
            "file": file,
        }


def export(
    store: Store,
    dataset: str,
    model: str,
    path: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ExportReport:
    """Write a dataset's embeddings of one model to a Parquet or npz file, ordered by annotation id.

    The file holds the model's row of the models view as well, so that `import` restores it, and is
    written whole or not at all. on_progress(done, total) counts rows.
    """
    form = format_of(path)
    con = connect(store)
    check_dataset(store, con, dataset)
    nothing = (
        f"dataset '{dataset}' has no embeddings of model '{model}'; there: {{there}}; make them "
        f"with `embedstore ingest {dataset} --model {model}`"
    )
    if model not in store.models():
        raise EmbedstoreError(nothing.format(there=_have(con, dataset)))
    lance = store.lance(model_table(model))
    keys = lance.to_table(columns=[ID])
    con.register("_keys", keys.append_column("place", pa.array(np.arange(len(keys)))))
    rows = fetch(
        con,
        f"select a.annotation_id, a.dataset, a.slide, a.case_id, a.domain, a.label, a.x_l0, "
        "a.y_l0, k.place from annotations a left join (select * from _keys semi join "
        f"{identifier(model)} using (annotation_id)) k using (annotation_id) "
        f"where a.dataset = {literal(dataset)} order by a.annotation_id",
    )
    n_annotations = len(rows)
    rows = rows.filter(pc.is_valid(rows["place"]))
    if not len(rows):
        raise EmbedstoreError(nothing.format(there=_have(con, dataset)))
    record = to_rows(fetch(con, f"select * from models where model = {literal(model)}"))
    if not record:
        raise EmbedstoreError(
            f"the store has embeddings of '{model}' but no record of what made them; `embedstore "
            f"ingest {dataset} --model {model}` or the import that was interrupted writes it"
        )
    dim = lance.schema.field("vector").type.list_size
    schema = export_schema(dim, record[0])

    def batches() -> Iterator[pa.Table]:
        for start in range(0, len(rows), READ_ROWS):
            on_progress(start, len(rows))
            part = rows.slice(start, READ_ROWS)
            vectors = lance.take(part["place"].to_numpy(), columns=["vector"])["vector"]
            part = part.drop_columns(["place"]).append_column(schema.field("vector"), vectors)
            yield part.cast(schema)
        on_progress(len(rows), len(rows))

    write_whole(path, lambda sink: form.write(sink, schema, len(rows), batches()))
    return ExportReport(dataset, model, len(rows), n_annotations - len(rows), dim)


def _have(con: Any, dataset: str) -> str:
    return ", ".join(embedded_models(con, dataset)) or "none"
