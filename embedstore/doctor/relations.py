"""Keys, orphans and what is stale: rows that contradict each other, found by SQL."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from embedstore.doctor.finding import Finding
from embedstore.store import Store
from embedstore.store.copied import out_of_date
from embedstore.store.layout import (
    COMPARISONS,
    COPIES,
    PATCHES,
    TABLES,
    TAGS,
    model_table,
    views_table,
)
from embedstore.store.sql import (
    fetch,
    fetch_rows,
    identifier,
    stale,
    stored_name,
    views_name,
)

_DELETED = "deletes them: they serve nothing"
_NO_RUN = "run_id not in (select run_id from _results)"
_NO_CELL = "annotation_id not in (select annotation_id from _annotations)"
_SPLIT_IDS = "select unnest(train || val || test) as id, split_id from _splits"


@dataclass(frozen=True)
class Relation:
    """A condition that no row of a table should meet; where `advice` is None, mending deletes."""

    check: str
    table: str
    condition: str
    says: str
    advice: str | None = None


RELATIONS: tuple[Relation, ...] = (
    Relation(
        "orphans",
        "slides",
        "dataset not in (select dataset from _datasets)",
        "slides of a dataset that is not registered",
        "`embedstore add` the dataset again",
    ),
    Relation(
        "orphans",
        "annotations",
        "dataset || '/' || slide not in (select slide_id from _slides)",
        "annotations on a slide that is not registered: no view shows them",
        "`embedstore add` the dataset again",
    ),
    Relation(
        "orphans",
        "splits",
        f"split_id in (select split_id from ({_SPLIT_IDS}) where id not in "
        "(select annotation_id from _annotations))",
        "splits that name annotations which are not there",
        "`embedstore add` what is missing again; the splits cannot be cut again without it",
    ),
    Relation(
        "orphans",
        "results",
        "manifest_id not in (select manifest_id from _splits)",
        "results of a manifest that is not there: they cannot be verified",
        "`probes split` with the same options cuts the manifest again, if its cells are the same",
    ),
    Relation(
        "orphans",
        "results",
        "run_id not in (select run_id from _predictions) and method = 'e2e'",
        "trained runs without predictions",
        "`e2e run --force` trains them again",
    ),
    Relation(
        "orphans",
        "results",
        "run_id not in (select run_id from _predictions) and method != 'e2e'",
        "results without the predictions they were scored on",
    ),
    Relation("orphans", "predictions", _NO_RUN, "predictions of no recorded run"),
    Relation("orphans", "probes", _NO_RUN, "probes of no recorded run"),
    Relation(
        "orphans",
        COMPARISONS,
        "comparison_id in (select comparison_id from (select comparison_id, unnest(run_ids) as "
        f"run_id from _comparisons) where {_NO_RUN})",
        "comparisons of runs that are not recorded",
    ),
    Relation(
        "orphans",
        COPIES,
        "a not in (select annotation_id from _annotations) or b not in "
        "(select annotation_id from _annotations)",
        "copies of annotations that are not there",
    ),
    Relation("orphans", PATCHES, _NO_CELL, "patches of annotations that are not there"),
    Relation("orphans", TAGS, _NO_CELL, "tags of annotations that are not there"),
)
"""What should hold between tables. A check of this kind is one entry."""

_N_EXAMPLES = 3


def relations(store: Store, con: Any) -> Iterator[Finding]:
    """Yield what contradicts itself; con is `connect`'s."""
    for name in known_tables(store):
        yield from _duplicates(store, name)
    for relation in RELATIONS:
        key = TABLES[relation.table].field(0).name
        sql = f"select {key} as key from _{relation.table} where {relation.condition} order by 1"
        keys = fetch(con, sql)["key"].to_pylist()
        if keys:
            delete = partial(store.delete, relation.table, key, keys)
            yield _finding(relation, keys, delete if relation.advice is None else None)
    for model in store.models():
        yield from _of_vectors(store, con, model_table(model), model, "annotation_id")
        yield from _stale(store, con, model)
    for model in store.viewed_models():
        yield from _of_vectors(store, con, views_table(model), views_name(model), "view_id")
    yield from _records(store, con)
    yield from _unfinished(con)


def known_tables(store: Store) -> list[str]:
    """Return the tables that are this tool's own, those of models among them."""
    names = [t for t in TABLES if store.has(t)]
    names += [model_table(m) for m in store.models()]
    return [*names, *(views_table(m) for m in store.viewed_models())]


def _finding(relation: Relation, keys: list[str], mending: Any) -> Finding:
    advice = relation.advice or _DELETED
    if relation.table == "results" and relation.advice is None:
        advice = "deletes them; `probes run` makes them again"
    shown = keys[:_N_EXAMPLES]
    return Finding(relation.check, relation.table, len(keys), relation.says, shown, advice, mending)


def _duplicates(store: Store, name: str) -> Iterator[Finding]:
    """Find keys that are there more than once: the last written stays."""
    table = store.open_table(name).to_lance()
    key = table.schema.field(0).name
    keys = table.to_table(columns=[key], with_row_id=True)
    order = keys.append_column("n", pa.array(range(len(keys))))
    last = order.group_by(key).aggregate([("n", "max")])["n_max"].to_pylist()
    surplus = sorted(set(range(len(keys))) - set(last))
    if surplus:
        found = keys.take(pa.array(surplus))
        ids = found["_rowid"].to_pylist()
        yield Finding(
            "keys",
            name,
            len(surplus),
            "rows whose key is there already",
            list(dict.fromkeys(found[key].to_pylist()))[:_N_EXAMPLES],
            "deletes them: of each key what was written last stays",
            partial(_delete_rows, store, name, ids),
        )


def _delete_rows(store: Store, name: str, row_ids: list[int]) -> None:
    for n in range(0, len(row_ids), 1000):
        ids = ", ".join(map(str, row_ids[n : n + 1000]))
        store.open_table(name).delete(f"_rowid in ({ids})")


def _of_vectors(store: Store, con: Any, table: str, own: str, key: str) -> Iterator[Finding]:
    stored = identifier(stored_name(own))
    sql = f"select {key} as key from {stored} where {_NO_CELL} order by 1"
    keys = fetch(con, sql)["key"].to_pylist()
    if keys:
        yield Finding(
            "orphans",
            table,
            len(keys),
            "vectors of annotations that are not there",
            keys[:_N_EXAMPLES],
            _DELETED,
            partial(store.delete, table, key, keys),
        )
    rows = out_of_date(con, stored_name(own), key)
    if len(rows):
        yield Finding(
            "stale",
            table,
            len(rows),
            "vectors with a label, domain or slide that their annotation had before",
            rows[key].to_pylist()[:_N_EXAMPLES],
            "copies them from the annotations",
            partial(store.update_columns, table, rows),
        )


def _stale(store: Store, con: Any, model: str) -> Iterator[Finding]:
    old = stale(con, model)
    if old:
        yield Finding(
            "stale",
            model_table(model),
            len(old),
            "vectors of other pixels than their annotation's are now: no view shows them",
            old[:_N_EXAMPLES],
            "deletes them; `embedstore ingest` makes them again",
            partial(store.delete, model_table(model), "annotation_id", old),
        )


def _records(store: Store, con: Any) -> Iterator[Finding]:
    """Find models that have vectors and no record, and the other way round."""
    recorded = {r["model"] for r in fetch_rows(con, "select model from _models")}
    stored = {*store.models(), *store.viewed_models()}
    if unknown := sorted(stored - recorded):
        yield Finding(
            "orphans",
            "models",
            len(unknown),
            "models with vectors and no record of what made them",
            unknown[:_N_EXAMPLES],
            "`embedstore remove DATASET --model M`, then ingest again",
        )
    if empty := sorted(recorded - stored):
        yield Finding(
            "orphans",
            "models",
            len(empty),
            "models on record without a table of vectors",
            empty[:_N_EXAMPLES],
            "deletes the record; `embedstore ingest` makes it again",
            partial(store.delete, "models", "model", empty),
        )


def _unfinished(con: Any) -> Iterator[Finding]:
    sql = "select dataset from _datasets where len(pending) > 0 order by 1"
    if pending := [r["dataset"] for r in fetch_rows(con, sql)]:
        yield Finding(
            "stale",
            "datasets",
            len(pending),
            "datasets whose `embedstore add` was interrupted",
            pending[:_N_EXAMPLES],
            "give the same `embedstore add` again",
        )
