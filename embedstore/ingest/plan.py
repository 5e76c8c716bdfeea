"""What an ingest has to do: what each model lacks, and what a model's name stands for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.crops import DOWN_THE_SLIDES, PLACES, Placed
from embedstore.errors import EmbedstoreError
from embedstore.slides.images import probe_patch
from embedstore.slides.patches import PLAIN
from embedstore.slides.slide import CHANGED, probe
from embedstore.store import Store
from embedstore.store.layout import model_schema, views_schema
from embedstore.store.sql import connect, connect_to, fetch_rows, identifier, literal, views_name


def retry_slides(store: Store, dataset: str) -> None:
    """Open again the slides and patches set aside or missing, and write what has changed.

    One set aside since it is not the file that was added stays so until `add` takes it.
    """
    sql = f"select * from _slides where status != 'ok' and dataset = {literal(dataset)}"
    changed = []
    for row in fetch_rows(connect_to(store, "slides"), sql):
        if row["path"] is None:
            continue
        path = Path(row["path"])
        given = (row["mpp"], row["mpp_source"]) if row["mpp_source"] != "slide" else (None, None)
        seen = probe_patch(path) if row["kind"] == "patch" else probe(path, given)
        is_other = CHANGED in (row["problem"] or "") and seen["fingerprint"] != row["fingerprint"]
        if not is_other and (fresh := row | seen) != row:
            changed.append(fresh)
    store.merge("slides", changed)


@dataclass(frozen=True)
class Plan:
    """What is to be embedded; n_done by model, set_aside: the slides not ok and why."""

    missing: list[Placed]  # with what each model lacks
    n_annotations: int
    n_off_slide: int
    n_done: dict[str, int]
    set_aside: dict[str, str]


def plan(store: Store, dataset: str, names: Sequence[str], views: Sequence[str] = ()) -> Plan:
    """Return what of a dataset the named models lack, slide by slide, row by row down the slide.

    `wants` holds the views that each model lacks: PLAIN for its own table, and all of
    `views` unless every one of them is there.
    """
    con = connect(store)
    lacks: dict[tuple[str, str], str] = {}
    n_done = {}
    for name in names:
        source = _source(con, name, store.models(), model_schema(1))
        n_done[name] = _count_once(con, dataset, name, source)
        lacks[name, "plain"] = f"annotation_id not in (select annotation_id from {source})"
        if views:
            source = _source(
                con, views_name(name), map(views_name, store.viewed_models()), views_schema(1)
            )
            lacks[name, "views"] = (
                f"annotation_id not in (select annotation_id from {source} where view in "
                f"({', '.join(map(literal, views))}) group by 1 "
                f"having count(distinct view) = {len(views)})"
            )
    columns = ", ".join(f"{sql} as lacks_{i}" for i, sql in enumerate(lacks.values()))
    rows = fetch_rows(
        con, f"select *, {columns} from ({PLACES}) {DOWN_THE_SLIDES}", {"dataset": dataset}
    )
    placed = []
    for row in rows:
        wants: dict[str, tuple[str, ...]] = {}
        for i, (name, what) in enumerate(lacks):
            if row.pop(f"lacks_{i}"):
                wants[name] = (*wants.get(name, ()), *((PLAIN,) if what == "plain" else views))
        placed.append(Placed(**row, wants=wants))
    aside = fetch_rows(
        con,
        f"select slide, problem from slides where dataset = {literal(dataset)} "
        "and status != 'ok' order by slide",
    )
    return Plan(
        [p for p in placed if p.wants and p.status == "ok" and p.can_be_read],
        len(placed),
        sum(p.status == "off-slide" for p in placed),
        n_done,
        {r["slide"]: r["problem"] for r in aside},
    )


def _source(con: Any, table: str, existing: Iterable[str], schema: Any) -> str:
    """Return what SQL calls a table, an empty one where it is not there yet."""
    if table not in set(existing):
        con.register(table, schema.empty_table())
    return identifier(table)


def _count_once(con: Any, dataset: str, name: str, source: str) -> int:
    counts = fetch_rows(
        con,
        f"select count(*) as n, count(distinct annotation_id) as d from {source} "
        f"where dataset = {literal(dataset)}",
    )[0]
    if counts["n"] != counts["d"]:
        raise EmbedstoreError(
            f"the table of model {name} holds {counts['n'] - counts['d']} annotations twice; "
            "it was not written by this tool alone, restore a copy or use --as NAME"
        )
    return int(counts["n"])
