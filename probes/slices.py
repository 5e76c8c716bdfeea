"""Slices: the arrays of a split's roles, cut by DuckDB from a matrix held once in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.layout import model_table
from embedstore.query import connect, fetch, fetch_rows, identifier, literal
from embedstore.store import Store
from probes.manifests import StoredSplit

ROLES = ("train", "val", "test")


@dataclass(frozen=True)
class Slice:
    """One role of a split: ids, labels and domains in the manifest's order; X float32 (n, dim)."""

    ids: list[str]
    labels: list[str]
    domains: list[str]
    X: NDArray[np.float32]


class Matrix:
    """All embeddings of one model and dataset, loaded once; cut it with `slice`.

    Keys and vectors come from one version of the table (`version`), which results record.
    """

    def __init__(self, store: Store, model: str, dataset: str) -> None:
        """Load the model's vectors, float32 (n, dim); EmbedstoreError where there are none."""
        if model not in store.models():
            have = ", ".join(store.models()) or "none"
            raise EmbedstoreError(
                f"no embeddings of model '{model}' in {store.uri}; there: {have}; make them with "
                f"`embedstore ingest {dataset} --model {model}`"
            )
        self.model, self.dataset = model, dataset
        lance = store.lance(model_table(model))
        self.version = int(lance.version)
        where = f"dataset = {literal(dataset)}"
        dim = lance.schema.field("vector").type.list_size
        self.X = np.empty((lance.count_rows(filter=where), dim), dtype=np.float32)
        ids, n = [], 0
        for batch in lance.scanner(columns=["annotation_id", "vector"], filter=where).to_batches():
            column = batch.column("vector")
            # flatten() drops null rows without a word, which would shift every row after them.
            if column.null_count:
                raise EmbedstoreError(f"the table of model '{model}' has rows without a vector")
            rows = column.flatten().to_numpy(zero_copy_only=True).reshape(len(batch), -1)
            self.X[n : n + len(batch)] = rows
            ids.append(batch.column("annotation_id"))
            n += len(batch)
        keys = pa.chunked_array(ids, type=pa.string())
        if n != len(self.X) or len(keys.unique()) != n:
            raise EmbedstoreError(f"the table of model '{model}' holds annotations twice")
        self._check_finite()
        self._con = connect(store)
        self._con.register(
            "_keys", pa.table({"annotation_id": keys, "row": pa.array(np.arange(n))})
        )

    def _check_finite(self) -> None:
        for i in range(0, len(self.X), 8192):
            if not np.isfinite(self.X[i : i + 8192]).all():
                raise EmbedstoreError(
                    f"model '{self.model}' has embeddings that are not finite in dataset "
                    f"'{self.dataset}'; delete and ingest them again"
                )

    def slice(self, split: StoredSplit) -> dict[str, Slice]:
        """Return the slice of each role; EmbedstoreError naming what is not embedded yet."""
        rows = self._rows(split)
        return {r: self._role(rows.filter(pc.equal(rows["role"], r))) for r in ROLES}

    def check(self, split: StoredSplit) -> None:
        """Raise EmbedstoreError unless every annotation of the split is embedded."""
        self._rows(split)

    def _rows(self, split: StoredSplit) -> pa.Table:
        ids = [i for r in ROLES for i in getattr(split, r)]
        roles = np.repeat(ROLES, [len(getattr(split, r)) for r in ROLES])
        wanted = {"annotation_id": ids, "role": roles, "place": np.arange(len(ids))}
        self._con.register("_wanted", pa.table(wanted))
        rows = fetch(
            self._con,
            "select w.role, w.annotation_id, a.label, a.domain, k.row from _wanted w "
            "left join annotations a using (annotation_id) "
            "left join _keys k using (annotation_id) order by w.place",
        )
        missing = rows.filter(pc.is_null(rows["row"]))["annotation_id"].to_pylist()
        if missing:
            raise EmbedstoreError(
                f"{len(missing)} of {len(ids)} annotations of the manifest have no embedding of "
                f"'{self.model}' (first: {missing[0]}); make them with `embedstore ingest "
                f"{self.dataset} --model {self.model}`, or leave them out with --where"
            )
        return rows

    def _role(self, rows: pa.Table) -> Slice:
        # Indices are known to be in range; "clip" spares numpy a buffered copy.
        index = rows["row"].to_numpy()
        x = np.take(self.X, index, axis=0, mode="clip")
        ids, labels, domains = (rows[c].to_pylist() for c in ("annotation_id", "label", "domain"))
        return Slice(ids, labels, domains, x)


def newest(store: Store, model: str, annotation_ids: Sequence[str]) -> datetime | None:
    """Return when the newest of these annotations' embeddings was made; None where none is."""
    con = connect(store)
    con.register("_ids", pa.table({"annotation_id": list(annotation_ids)}))
    sql = f"select max(embedded_at) as at from {identifier(model)} join _ids using (annotation_id)"
    found: datetime | None = fetch_rows(con, sql)[0]["at"]
    return found


def label_codes(labels: Sequence[str], order: Sequence[str]) -> NDArray[np.intp]:
    """Return the position of each label in `order`."""
    place = {label: i for i, label in enumerate(order)}
    return np.array([place[label] for label in labels], dtype=np.intp)
