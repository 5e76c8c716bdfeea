"""Adding a dataset again: what the store knew, and how the embeddings follow what has changed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.files.objects import Place
from embedstore.slides.patches import D4
from embedstore.store import Store
from embedstore.store.layout import PATCHES, TABLES, model_table, view_id, views_schema, views_table
from embedstore.store.sql import connect, fetch_rows, literal


@dataclass(frozen=True)
class Before:
    """What the store knew of a dataset: its entry, and its slides and annotations by key."""

    entry: dict[str, Any]
    slides: dict[str, dict[str, Any]]
    annotations: dict[str, dict[str, Any]]

    @classmethod
    def load(cls, store: Store | None, dataset: str) -> "Before":
        """Return what a store, if there is one, holds of a dataset."""
        if store is None:
            return cls({}, {}, {})
        con, where = connect(store), f"where dataset = {literal(dataset)}"
        entries = fetch_rows(con, f"select * from _datasets {where}")
        slides = fetch_rows(
            con,
            f"select slide, kind, case_id, path, width, height, mpp, mpp_source, fingerprint, "
            f"bounds, frame, frame_source, unit from _slides {where}",
        )
        columns = "annotation_id, slide, label, domain, x_l0, y_l0"
        annotations = fetch_rows(con, f"select {columns} from _annotations {where}")
        return cls(
            entries[0] if entries else {},
            {r["slide"]: r for r in slides},
            {r["annotation_id"]: r for r in annotations},
        )

    def check_cases(self, rows: list[dict[str, Any]], path: Place) -> None:
        """Raise EmbedstoreError where a slide has another case than an earlier file gave it."""
        kept = {b["slide"] for b in self.staying(rows)}
        for r in rows:
            old = self.slides.get(r["slide"], {}).get("case_id")
            if r["slide"] in kept and old is not None and old != r["case_id"]:
                raise EmbedstoreError(
                    f"{path} puts slide {r['slide']} in case '{r['case_id']}', but annotations of "
                    f"it are registered in case '{old}'; a slide has one case"
                )

    def staying(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the annotations that these rows do not replace."""
        here = {r["annotation_id"] for r in rows}
        return [b for i, b in self.annotations.items() if i not in here]


@dataclass(frozen=True)
class Changes:
    """What rows change of annotations that are there: ids that moved, and rows with other labels.

    n_slides have another file or mpp, so that all on them moved.
    """

    moved: list[str]
    renamed: list[dict[str, Any]]
    n_slides: int

    def notes(self) -> list[str]:
        """Return what is said of them."""
        notes = []
        if self.moved:
            slides = f" ({self.n_slides} slides with another file or mpp)" * bool(self.n_slides)
            notes.append(
                f"{len(self.moved)} annotations moved{slides}: their embeddings were dropped, "
                "ingest again"
            )
        if self.renamed:
            notes.append(f"{len(self.renamed)} annotations changed label or domain")
        return notes


def changes_to(rows: list[dict[str, Any]], slides: list[dict[str, Any]], before: Before) -> Changes:
    """Return what changes of the annotations that the store knew."""
    old = before.annotations
    pairs = [(r, old[r["annotation_id"]]) for r in rows if r["annotation_id"] in old]
    changed = {s["slide"] for s in slides if _pixels_changed(s, before.slides.get(s["slide"], {}))}
    moved = [i for i, b in old.items() if b["slide"] in changed]
    moved += [
        r["annotation_id"] for r, b in pairs if _at(r) != _at(b) and r["slide"] not in changed
    ]
    renamed = [r for r, b in pairs if (r["label"], r["domain"]) != (b["label"], b["domain"])]
    return Changes(moved, renamed, len(changed))


def follow(store: Store, changes: Changes) -> None:
    """Bring the models' tables in line: keys are rewritten, embeddings of other pixels dropped."""
    keys = ["annotation_id", "domain", "label"]
    schema = pa.schema([TABLES["annotations"].field(k) for k in keys])
    update = [{k: r[k] for k in keys} for r in changes.renamed]
    moved = changes.moved
    for model in store.models():
        if moved:
            store.delete(model_table(model), "annotation_id", moved)
        if update:
            store.update_columns(model_table(model), pa.Table.from_pylist(update, schema=schema))
    if moved:
        store.delete(PATCHES, "annotation_id", moved)
    view_key = views_schema(1).field("view_id")
    schema = pa.schema([view_key, *(f for f in schema if f.name != "annotation_id")])
    update = [{**r, "view_id": view_id(r["annotation_id"], v)} for r in update for v in D4]
    for model in store.viewed_models():
        if moved:
            store.delete(views_table(model), "annotation_id", moved)
        if update:  # views that are not there are not made
            store.update_columns(views_table(model), pa.Table.from_pylist(update, schema=schema))


def _pixels_changed(slide: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Return whether patches of a slide would now differ from those cut before."""
    comparable = [
        k for k in ("fingerprint", "mpp") if slide[k] is not None and old.get(k) is not None
    ]
    return any(slide[k] != old[k] for k in comparable)


def _at(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return row["x_l0"], row["y_l0"]
