"""A model's matrix, loaded once, and which rows of it play which role, cut by DuckDB.

Fits share the matrix and take rows of it by number; nothing is copied per fold.
"""

import copy
import functools
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.embeddings.identity import how_to_embed
from embedstore.errors import EmbedstoreError
from embedstore.slides.patches import VIEW_SETS
from embedstore.store import Store
from embedstore.store.layout import CUT, model_table, views_table
from embedstore.store.records import shared
from embedstore.store.sql import connect_to, cut_columns, fetch, fetch_rows, literal
from embedstore.store.vectors import fill
from embedstore.store.views import valid
from probes.slices.fusion import fusion_of, side_by_side
from probes.slices.streamed import Streamed, room
from probes.splits.candidates import Candidates
from probes.splits.draw import ROLES
from probes.splits.manifests import StoredSplit

FACTS = {
    "label": "a.label",
    "domain": "a.domain",
    "slide": "coalesce(s.source_slide, a.slide)",
    "case_id": "a.case_id",
    "scanner": "s.scanner",
}
"""What is known of each row of a matrix, and what says it."""
Rows = NDArray[np.int64]


class Matrix:
    """All embeddings of one model and dataset, loaded once.

    Attributes: X float32 (n, dim); ids (n,) annotation ids; facts: the FACTS of each row, object
    (n,). With views, X holds every view of every annotation, places int64
    (n, n_views) their rows in X, and `ids` and `facts` are of annotations; else places is (n, 1).
    Keys and vectors come from one version of the table (`version`), which results record.
    """

    def __init__(
        self,
        store: Store,
        model: str,
        dataset: str,
        views: str | None = None,
        max_memory: int | None = None,
    ) -> None:
        """Load the model's vectors; EmbedstoreError where there are none, or not all views.

        max_memory: bytes that the process may take; where X would be more, it is `Streamed`.
        """
        self.model, self.dataset, self.views = model, dataset, views
        embedded = store.viewed_models() if views else store.models()
        self._how = functools.partial(how_to_embed, store, dataset, model, views)
        what = f"views '{views}'" if views else "embeddings"
        if model not in embedded:
            raise EmbedstoreError(
                f"no {what} of model '{model}' in {store.uri}; there: "
                f"{', '.join(embedded) or 'none'}; make them with `{self._how()}`"
            )
        lance = store.lance((views_table if views else model_table)(model))
        self.version = int(lance.version)
        columns = ["annotation_id", *(["view"] if views else []), *cut_columns(lance)]
        n = lance.count_rows(filter=f"dataset = {literal(dataset)}")
        if not n:
            raise EmbedstoreError(
                f"dataset '{dataset}' has no {what} of model '{model}'; make them with "
                f"`{self._how()}`"
            )
        dim = lance.schema.field("vector").type.list_size
        self.X: Any = room(n, dim, max_memory)
        self._con = connect_to(store, "annotations", "slides")
        where = f"dataset = {literal(dataset)}"
        self._index(fill(self.X, lance, columns, where, model))

    def _index(self, keys: pa.Table) -> None:
        """Set ids, places and facts of annotations from the keys of the rows of X.

        A row of other pixels than its annotation's are now, or of one that is removed, is passed
        over.
        """
        self._con.register("_read", keys.append_column("place", pa.array(np.arange(len(keys)))))
        is_valid = valid("v") if set(CUT) <= set(keys.column_names) else "true"
        keys = fetch(
            self._con,
            "select v.* from _read v semi join _annotations using (annotation_id) "
            f"where {is_valid} order by place",
        )
        ids, places = keys["annotation_id"], keys["place"].to_numpy()[:, None]
        if self.views:
            ids, places = self._whole_views(keys)
        if len(ids.unique()) != len(ids):
            raise EmbedstoreError(f"the table of model '{self.model}' holds annotations twice")
        self.places = places
        self._number(ids)
        annotations = fetch(
            self._con,
            f"select k.annotation_id, {', '.join(f'{sql} as {f}' for f, sql in FACTS.items())} "
            "from _keys k left join _annotations a using (annotation_id) left join _slides s on "
            "s.slide_id = a.dataset || '/' || a.slide order by k.row",
        )
        self.ids: NDArray[Any] = annotations["annotation_id"].to_numpy()
        self.facts = {f: np.array(shared(annotations[f]), dtype=object) for f in FACTS}

    def _number(self, ids: pa.Array | pa.ChunkedArray) -> None:
        """Make known which number each annotation has here."""
        numbered = pa.table({"annotation_id": ids, "row": pa.array(np.arange(len(ids)))})
        self._con.register("_keys", numbered)

    def _whole_views(self, keys: pa.Table) -> tuple[pa.ChunkedArray, Rows]:
        """Return the annotations that have all views, and where each of them lies in X."""
        wanted = VIEW_SETS[str(self.views)]
        self._con.register("_views", keys)
        each = ", ".join(f"max(place) filter (view = {literal(v)}) as {v}" for v in wanted)
        whole = fetch(
            self._con,
            f"select annotation_id, {each} from _views where view in "
            f"({', '.join(map(literal, wanted))}) group by 1 "
            f"having count(*) = {len(wanted)} and count(distinct view) = {len(wanted)}",
        )
        return whole["annotation_id"], np.column_stack([whole[v].to_numpy() for v in wanted])

    def rows(self, split: StoredSplit) -> dict[str, Rows]:
        """Return, per role and in the manifest's order, the numbers of its annotations here.

        EmbedstoreError naming what is not embedded yet.
        """
        numbers = self.rows_of(pa.concat_arrays([split.ids(r) for r in ROLES]), "the manifest")
        ends = np.cumsum([len(split.ids(r)) for r in ROLES])
        return dict(zip(ROLES, np.split(numbers, ends[:-1]), strict=True))

    def rows_of(self, annotation_ids: Sequence[str] | pa.Array, of: str | None = None) -> Rows:
        """Return the numbers of annotations here; EmbedstoreError naming what is not embedded.

        of: what the annotations are those of, for the message.
        """
        ids = pa.array(annotation_ids, pa.string())
        place = pa.array(np.arange(len(ids)))
        self._con.register("_wanted", pa.table({"annotation_id": ids, "place": place}))
        numbered = fetch(
            self._con,
            "select w.annotation_id, k.row from _wanted w left join _keys k using (annotation_id) "
            "order by w.place",
        )
        column = numbered["row"]
        if column.null_count:
            lost = numbered.filter(column.is_null())["annotation_id"]
            raise EmbedstoreError(
                f"{column.null_count} of {len(ids)} annotations of "
                f"{of or f'dataset {self.dataset!r}'} have no embedding of '{self.model}' (first: "
                f"{lost[0]}); make them with `{self._how()}`, or leave them out with --where"
            )
        return np.asarray(column.to_numpy())

    def beside(self, others: Sequence["Matrix"], model: str) -> "Matrix":
        """Return a matrix of this model's vectors and others' side by side, under a name."""
        have = [set(m.ids.tolist()) for m in others]
        ids = [i for i in self.ids.tolist() if all(i in of for of in have)]
        rows = [m.rows_of(ids) for m in (self, *others)]
        made = copy.copy(self)
        made.model = model
        made.X = side_by_side([m.vectors(of) for m, of in zip((self, *others), rows, strict=True)])
        made.places = np.arange(len(made.X)).reshape(len(ids), -1)
        made.ids = self.ids[rows[0]]
        made.facts = {f: values[rows[0]] for f, values in self.facts.items()}
        made._con = self._con.cursor()
        made._number(pa.array(ids, pa.string()))
        return made

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """Return the vectors of annotations by number, (n, dim), or with views (n * n_views, dim).

        A copy: views of one annotation follow each other. EmbedstoreError where the matrix is
        streamed and they are more than may be in memory.
        """
        places = self.places[rows].ravel()
        if isinstance(self.X, Streamed) and 3 * len(places) * self.X.shape[1] * 4 > self.X.most:
            raise EmbedstoreError(
                f"this takes {len(places):,} vectors of '{self.model}' in memory, more than "
                "--max-memory allows at once; methods uni and logreg stream them, others do not"
            )
        # Indices are known to be in range; "clip" spares numpy a buffered copy.
        return np.asarray(np.take(self.X, places, axis=0, mode="clip"))


def load_matrix(
    store: Store,
    model: str,
    dataset: str,
    views: str | None = None,
    max_memory: int | None = None,
) -> Matrix:
    """Return a model's matrix, or of A+B the models' side by side: annotations that all have.

    EmbedstoreError as for `Matrix`, and where a name stands for a mean of probes.
    """
    fusion = fusion_of(model, store.viewed_models() if views else store.models())
    if fusion is None:
        return Matrix(store, model, dataset, views, max_memory)
    if fusion.mean:
        raise EmbedstoreError(f"'{model}' is a mean of probes and has no vectors of its own")
    parts = [Matrix(store, part, dataset, views, max_memory) for part in fusion.parts]
    return parts[0].beside(parts[1:], model)


def newest(
    store: Store, model: str, annotation_ids: Sequence[str], views: str | None = None
) -> datetime | None:
    """Return when the newest of these annotations' embeddings was made; None where none is."""
    known = store.viewed_models() if views else store.models()
    if (fusion := fusion_of(model, known)) is not None:
        each = [newest(store, part, annotation_ids, views) for part in fusion.parts]
        return None if None in each else max(at for at in each if at is not None)
    if model not in known:
        return None
    con = connect_to(store)
    con.register("_ids", pa.table({"annotation_id": list(annotation_ids)}))
    con.register("_made", store.lance((views_table if views else model_table)(model)))
    sql = "select max(embedded_at) as at from _made join _ids using (annotation_id)"
    newest_at: datetime | None = fetch_rows(con, sql)[0]["at"]
    return newest_at


def codes_of(values: Sequence[Any] | NDArray[Any], order: Sequence[str]) -> NDArray[np.intp]:
    """Return the position of each value in `order`."""
    place = {label: i for i, label in enumerate(order)}
    return np.array([place[v] for v in values], dtype=np.intp)


def label_order(store: Store, manifest: Candidates, target: str = "label") -> list[str]:
    """Return the labels (or domains) learnt, the positive label last where there are two."""
    if target == "domain":
        return sorted(set(manifest.pool.domains))
    sql = f"select positive_label from _datasets where dataset = {literal(manifest.spec.dataset)}"
    positive = fetch_rows(connect_to(store, "datasets"), sql)[0]["positive_label"]
    return sorted(set(manifest.pool.labels), key=lambda label: (label == positive, label))
