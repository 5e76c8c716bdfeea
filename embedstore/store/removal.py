"""The verb `remove`: a dataset, or a part of it, goes in one step with all that hangs on it.

What is to go is found here and written down, as conditions in one row of the table `removals`; how
it takes effect from that moment on is in `removed`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store.clock import now
from embedstore.store.layout import (
    COPIES,
    MEASURES,
    PATCHES,
    REMOVALS,
    TAGS,
    model_table,
    views_table,
)
from embedstore.store.removed import either, finish_removals
from embedstore.store.sql import (
    check_dataset,
    connect,
    embedded_models,
    fetch,
    fetch_rows,
    identifier,
    literal,
    stored_name,
    views_name,
    where_clause,
)
from embedstore.store.store import Store

_KEYS_A_CONDITION = 1000


@dataclass(frozen=True)
class Part:
    """Which part of a dataset is meant: a model's vectors, or a slide's or other annotations."""

    model: str | None = None
    slide: str | None = None
    where: str | None = None

    def check(self) -> None:
        """Raise UsageError where several are named."""
        if sum(v is not None for v in vars(self).values()) > 1:
            raise UsageError("give one of --model, --slide and --where, or none for the dataset")


@dataclass
class Removal:
    """What is to go: conditions by table, any of which a row meets; tables and folders of runs.

    models go wholly if no vector of them is left. counts: how many rows, by what they are.
    """

    dataset: str
    where: dict[str, list[str]] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        """Return how many rows go."""
        return sum(self.counts.values())


def plan_removal(store: Store, dataset: str, part: Part) -> Removal:
    """Return what a removal would take; EmbedstoreError where there is nothing of that name."""
    part.check()
    con = connect(store)
    check_dataset(store, con, dataset)
    removal = Removal(dataset)
    if part.model is not None:
        _plan_model(store, con, removal, part.model)
    else:
        _plan_annotations(store, con, removal, part)
    _count(con, removal)
    return removal


def _plan_model(store: Store, con: Any, removal: Removal, model: str) -> None:
    """Plan the removal of a model's vectors, and of what probes made of them."""
    mine = f"dataset = {literal(removal.dataset)}"
    of_model = f"model = {literal(model)} and method != 'e2e'"
    runs = _texts(con, f"select distinct run_id from _results where {mine} and {of_model}")
    elsewhere = f"eval_dataset = {literal(removal.dataset)} and {of_model}"
    there = _texts(con, f"select distinct run_id from _results where {elsewhere}")
    if model not in (models := embedded_models(con, removal.dataset)) and not runs:
        raise EmbedstoreError(
            f"dataset '{removal.dataset}' has nothing of model '{model}'; there: "
            f"{', '.join(models) or 'none'}"
        )
    _add_vectors(store, removal, [model], [mine])
    # One of no model is of all of them, one of several names each.
    named = (
        f"list_contains(string_split(model || '+' || coalesce(against, ''), '+'), {literal(model)})"
    )
    sql = f"select measure_id from _measures where {mine} and (model is null or {named})"
    removal.where[MEASURES] = _among("measure_id", _texts(con, sql))
    _add_runs(con, removal, runs)
    _add_scores_elsewhere(removal, elsewhere, there)


def _plan_annotations(store: Store, con: Any, removal: Removal, part: Part) -> None:
    """Plan the removal of annotations, all of them or some, and of what was made of them."""
    mine = f"dataset = {literal(removal.dataset)}"
    elsewhere = f"eval_dataset = {literal(removal.dataset)}"
    there = _texts(con, f"select distinct run_id from _results where {elsewhere}")
    if part == Part():
        of_annotations = [mine]
        removal.where = {t: [mine] for t in ("annotations", "slides", "datasets", "splits")}
        runs = _texts(con, f"select distinct run_id from _results where {mine}")
    else:
        chosen = where_clause(part.where)
        if part.slide is not None:
            chosen = f"{literal(part.slide)} in (slide, source_slide)"
        ids = _texts(con, f"select annotation_id from annotations where {mine} and {chosen}")
        if not ids:
            raise EmbedstoreError(_nothing(con, removal.dataset, part))
        of_annotations = _among("annotation_id", ids)
        con.register("_going", pa.table({"annotation_id": pa.array(ids, pa.string())}))
        emptied = (
            f"select slide_id from _slides s where {mine} and slide not in (select slide from "
            f"_annotations where {mine} and annotation_id not in (from _going))"
        )
        removal.where = {"annotations": of_annotations}
        removal.where["slides"] = _among("slide_id", _texts(con, emptied))
        manifests = _texts(
            con,
            "select distinct manifest_id from manifests semi join _going using (annotation_id)",
        )
        removal.where["splits"] = _among("manifest_id", manifests)
        con.register("_broken", pa.table({"manifest_id": pa.array(manifests, pa.string())}))
        runs = _texts(
            con, "select distinct run_id from _results semi join _broken using (manifest_id)"
        )
    removal.where[PATCHES] = list(of_annotations)
    removal.where[TAGS] = list(of_annotations)
    removal.where[MEASURES] = [mine]  # each is of all annotations there were
    here = literal(removal.dataset)
    removal.where[COPIES] = [f"dataset_a = {here} or dataset_b = {here}"]
    _add_vectors(store, removal, store.models(), of_annotations)
    _add_runs(con, removal, runs)
    _add_scores_elsewhere(removal, elsewhere, there)


def _add_vectors(
    store: Store, removal: Removal, models: Sequence[str], conditions: Sequence[str]
) -> None:
    viewed = set(store.viewed_models())
    removal.models = list(models)
    for model in models:
        if model in store.models():
            removal.where[model_table(model)] = list(conditions)
        if model in viewed:
            removal.where[views_table(model)] = list(conditions)


def _add_runs(con: Any, removal: Removal, runs: Sequence[str]) -> None:
    con.register("_runs", pa.table({"run_id": pa.array(runs, pa.string())}))
    for table in ("results", "predictions", "probes"):
        removal.where.setdefault(table, []).extend(_among("run_id", runs))
    compared = (
        "select distinct comparison_id from (select comparison_id, unnest(run_ids) as run_id from "
        "_comparisons) semi join _runs using (run_id)"
    )
    removal.where["comparisons"] = _among("comparison_id", _texts(con, compared))
    trained = (
        "select distinct run_id from _results semi join _runs using (run_id) where method = 'e2e'"
    )
    removal.folders = _texts(con, trained)


def _add_scores_elsewhere(removal: Removal, of_results: str, runs: Sequence[str]) -> None:
    """Plan for what other datasets' probes scored on this one."""
    removal.where["results"].append(of_results)
    mine = f"dataset = {literal(removal.dataset)} and role = 'eval'"
    removal.where["predictions"] += [f"{mine} and {c}" for c in _among("run_id", runs)]


def _nothing(con: Any, dataset: str, part: Part) -> str:
    if part.slide is None:
        return f"no annotation of '{dataset}' meets --where {part.where}; nothing is removed"
    slides = _texts(con, f"select slide from slides where dataset = {literal(dataset)} order by 1")
    return (
        f"'{dataset}' has no slide '{part.slide}'; there: {', '.join(slides[:8])}"
        f"{', ...' * (len(slides) > 8)}"
    )


def _texts(con: Any, sql: str) -> list[str]:
    values: list[str] = fetch(con, sql).column(0).to_pylist()
    return sorted(values)


def _among(column: str, values: Sequence[str]) -> list[str]:
    """Return conditions that a column is among values, none where there are none."""
    parts = (values[n : n + _KEYS_A_CONDITION] for n in range(0, len(values), _KEYS_A_CONDITION))
    return [f"{column} in ({', '.join(map(literal, part))})" for part in parts]


_COUNTED = {
    "annotations": "annotations",
    "slides": "slides",
    "splits": "splits",
    "results": "results",
    "predictions": "predictions",
    "probes": "probes",
    "comparisons": "comparisons",
    MEASURES: "measures",
    COPIES: "copies",
    PATCHES: "kept patches",
    TAGS: "tags",
}


def _count(con: Any, removal: Removal) -> None:
    for table, what in _COUNTED.items():
        if table in removal.where:
            number = (
                "coalesce(sum(len(annotation_id)), 0)" if table == "predictions" else "count(*)"
            )
            removal.counts[what] = _n(con, f"_{table}", removal.where[table], number)
    for what, named, key in (
        ("embeddings", str, model_table),
        ("views", views_name, views_table),
    ):
        going = [m for m in removal.models if key(m) in removal.where]
        if going or what == "embeddings":
            removal.counts[what] = sum(
                _n(con, identifier(stored_name(named(m))), removal.where[key(m)]) for m in going
            )
    left = "select count(*) as n from {table} where ({going}) is not true"
    removal.models = [
        m
        for m in removal.models
        if (conditions := removal.where.get(model_table(m)))
        and not fetch_rows(
            con, left.format(table=identifier(stored_name(m)), going=either(conditions))
        )[0]["n"]
    ]
    if removal.models:
        removal.counts["models"] = len(removal.models)
        removal.where["models"] = _among("model", removal.models)


def _n(con: Any, table: str, conditions: Sequence[str], number: str = "count(*)") -> int:
    sql = f"select {number} as n from {table} where {either(conditions)}"
    return int(fetch_rows(con, sql)[0]["n"])


def remove(store: Store, removal: Removal) -> int:
    """Take away what is planned, for good; return how many bytes a local store has given back."""
    before = _size(store.uri)
    gone = {"where": removal.where, "models": removal.models, "folders": removal.folders}
    row = {
        "removal_id": f"{removal.dataset} {now().isoformat()}",
        "created_at": now(),
        "gone": json.dumps(gone, ensure_ascii=False),
    }
    store.merge(REMOVALS, [row])
    finish_removals(store)
    return max(before - _size(store.uri), 0)


def _size(uri: str) -> int:
    """Return how many bytes a local store takes, 0 for one elsewhere."""
    if "://" in uri:
        return 0
    return sum(p.stat().st_size for p in Path(uri).rglob("*") if p.is_file())
