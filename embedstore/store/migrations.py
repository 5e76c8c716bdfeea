"""Migrations: how a store of an older format becomes one of the newest, killed at any moment.

A table or column that `layout` declares is made where it is missing, as NULL; a step in `STEPS`
fills it from what was there. Every step may be done twice, and by two processes at once; the
format number is written last.
"""

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from embedstore.store.layout import (
    FORMAT,
    TABLES,
    model_schema,
    model_table,
    views_schema,
    views_table,
)

if TYPE_CHECKING:
    from embedstore.store.store import Store

_ATTEMPTS = 5
"""How often a change is tried, while other processes may make the same one."""


def upgrade(store: "Store", stored: int) -> None:
    """Bring a store from a format to the newest."""
    for name, schema in TABLES.items():
        if not store.has(name):
            store.create_table(name, schema)
        add_columns(store, name, schema)
    for model in store.models():
        add_columns(store, model_table(model), model_schema(1))
    for model in store.viewed_models():
        add_columns(store, views_table(model), views_schema(1))
    for n in range(stored, FORMAT):
        for step in STEPS.get(n, ()):
            step(store)
    set_format(store, stored)


def add_columns(store: "Store", name: str, schema: pa.Schema) -> None:
    """Add the columns that a table lacks, as NULL."""

    def add() -> None:
        table = store.open_table(name)
        if missing := [f for f in schema if f.name not in table.schema.names]:
            table.add_columns(pa.schema(missing))

    _tried(add)


def set_format(store: "Store", stored: int) -> None:
    """Write that the store has the newest format."""
    where, values = f"format = '{stored}'", {"format": str(FORMAT)}
    _tried(lambda: store.open_table("store").update(where=where, values=values))


def _tried(change: Callable[[], Any]) -> None:
    """Make a change again where it conflicts with the same one made by another process."""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            change()
        except (OSError, RuntimeError, ValueError):
            if not attempts_left:
                raise
        else:
            return


def _fill_pixels(store: "Store") -> None:
    """Move the digest of an e2e run's pixels out of the JSON in `chosen` into its own column."""
    rows = store.lance("results").to_table(
        columns=["result_id", "chosen"], filter="method = 'e2e' and pixels is null"
    )
    digests = [json.loads(c or "{}").get("pixels") for c in rows["chosen"].to_pylist()]
    pixels = pa.array(digests, pa.string())
    filled = rows.select(["result_id"]).append_column("pixels", pixels)
    if (filled := filled.filter(pixels.is_valid())).num_rows:
        store.update_columns("results", filled)


def _fill_source_slides(store: "Store") -> None:
    """Name the slide of each patch whose table has a column slide."""
    rows = store.lance("slides").to_table(
        columns=["slide_id", "attributes"], filter="kind = 'patch' and source_slide is null"
    )
    named = [json.loads(a or "{}").get("slide") for a in rows["attributes"].to_pylist()]
    slides = pa.array(named, pa.string())
    filled = rows.select(["slide_id"]).append_column("source_slide", slides)
    if (filled := filled.filter(slides.is_valid())).num_rows:
        store.update_columns("slides", filled)


def _fill_predictions(store: "Store") -> None:
    """Move scores into probability, in float64, and say of which dataset and truth they are.

    The truth is today's label: none was kept. Another dataset's were of role test too; the key
    tells. One version is read throughout: another process may drop the scores meanwhile.
    """
    predictions = store.lance("predictions")
    if "score" not in predictions.schema.names:
        return
    annotations = store.lance("annotations").to_table(columns=["annotation_id", "label", "dataset"])
    known = {k: annotations[k].to_pylist() for k in annotations.column_names}
    label = dict(zip(known["annotation_id"], known["label"], strict=True))
    dataset = dict(zip(known["annotation_id"], known["dataset"], strict=True))
    scanner = predictions.scanner(
        columns=["prediction_id", "annotation_id", "score"], filter="probability is null"
    )
    for batch in scanner.to_batches():
        filled = []
        for row in batch.to_pylist():
            ids = row["annotation_id"]
            elsewhere = "/test:" in row["prediction_id"]
            filled.append(
                {
                    "prediction_id": row["prediction_id"],
                    "dataset": next((dataset[i] for i in ids if i in dataset), None),
                    "role": "eval" if elsewhere else row["prediction_id"].split("/")[1],
                    "truth": [label.get(i) for i in ids],
                    "probability": row["score"],
                }
            )
        if filled:
            schema = pa.schema([TABLES["predictions"].field(k) for k in filled[0]])
            store.update_columns("predictions", pa.Table.from_pylist(filled, schema=schema))

    def drop() -> None:
        table = store.open_table("predictions")
        if "score" in table.schema.names:
            table.drop_columns(["score"])

    _tried(drop)


def _fill_kinds(store: "Store") -> None:
    """Say of the intervals that are there what they are: all were of one kind."""
    values, where = {"ci_kind": "percentile"}, "ci_kind is null and ci_low is not null"

    def fill(table: str) -> None:
        store.open_table(table).update(where=where, values=values)

    for table in ("results", "comparisons"):
        _tried(functools.partial(fill, table))


STEPS: dict[int, tuple[Callable[["Store"], None], ...]] = {
    3: (_fill_pixels,),
    4: (_fill_source_slides, _fill_predictions),
    5: (_fill_kinds,),
}
"""What turns a store of a format into one of the next, once its columns are there."""
