"""The verb `neighbors`: which embeddings of a model are nearest to an annotation's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.store.indexes import PAYS, has_index, make_index, nearest
from embedstore.store.layout import model_table
from embedstore.store.sql import (
    connect,
    fetch,
    fetch_rows,
    identifier,
    literal,
    stale,
    where_clause,
)

__all__ = ["METRICS", "PAYS", "Neighbors", "neighbors"]

METRICS = ("cosine", "l2")

_GROUPS: tuple[tuple[str, ...], ...] = (("dataset", "domain", "label"), ("dataset", "slide"))
"""Keys of a model's table by which a condition may select whole groups; cheaper than ids."""


@dataclass(frozen=True)
class Neighbors:
    """Rows ready to print, nearest first, and out of how many embeddings they were chosen.

    by_index: an index chose which were compared; recall: what part of the true ones it found when
    it was made, where it was made now.
    """

    rows: list[dict[str, Any]]
    n_searched: int
    by_index: bool = False
    recall: float | None = None


def neighbors(
    store: Store,
    annotation_id: str,
    model: str,
    *,
    k: int = 10,
    where: str | None = None,
    metric: str = "cosine",
    exact: bool = False,
    index: bool = False,
) -> Neighbors:
    """Return the k annotations whose embeddings are nearest to that of an annotation.

    All datasets of the store are searched; where is a condition on the annotations view that they
    must meet. The model's index is used where it has one for the metric, unless `exact` or where
    are given; with `index` it is made first, for which the store must be open for writing.
    distance is 1 - cosine similarity, or with l2 the Euclidean one. The annotation itself is not
    among them; equal distances come in order of id. With cosine, embeddings of length zero have no
    distance and are left out.
    """
    if index and (exact or where):
        raise UsageError("--index makes an index, which --exact and --where do without")
    if k < 1:
        raise UsageError(f"-k {k}: give at least 1")
    if metric not in METRICS:
        raise UsageError(f"unknown metric '{metric}'; allowed: {', '.join(METRICS)}")
    con = connect(store)
    vector = _vector(store, con, annotation_id, model)
    if metric == "cosine" and not any(vector):
        raise EmbedstoreError(
            f"the embedding of '{annotation_id}' has length zero, which has no cosine; use "
            "--metric l2"
        )
    condition, n_searched, includes_it = _condition(con, annotation_id, model, where)
    if not n_searched:
        raise EmbedstoreError(
            f"no other embedding of model '{model}' meets --where '{where}'"
            if where
            else f"'{annotation_id}' has the only embedding of model '{model}'"
        )
    if of_old := stale(con, model):
        others = f"annotation_id not in ({', '.join(map(literal, of_old))})"
        condition = others if condition is None else f"({condition}) and {others}"
    # One more, since the annotation itself is found, too: a filter by id would double the time.
    recall = make_index(store, model, metric) if index else None
    by_index = not exact and not where and has_index(store, model, metric)
    found = nearest(
        store, model, vector, k + includes_it, metric=metric, where=condition, exact=not by_index
    )
    ids, distances = found["annotation_id"].to_pylist(), found["_distance"].to_pylist()
    pairs = [(d, i) for i, d in zip(ids, distances, strict=True) if i != annotation_id]
    return Neighbors(_rows(con, sorted(pairs)[:k], metric), n_searched, by_index, recall)


def _vector(store: Store, con: Any, annotation_id: str, model: str) -> Sequence[float]:
    if model not in store.models():
        raise EmbedstoreError(
            f"no embeddings of model '{model}' in {store.uri}; there: "
            f"{', '.join(store.models()) or 'none'}"
        )
    key = f"annotation_id = {literal(annotation_id)}"
    annotations = fetch_rows(con, f"select dataset from annotations where {key}")
    if not annotations:
        like = fetch_rows(con, "select min(annotation_id) as id from annotations")[0]["id"]
        raise EmbedstoreError(
            f"no annotation '{annotation_id}' in {store.uri}; an id looks like {like or '(none)'} "
            '(`embedstore sql "select annotation_id from annotations"` lists them)'
        )
    stored = store.lance(model_table(model)).to_table(columns=["vector"], filter=key)
    if not len(stored) or annotation_id in stale(con, model):
        raise EmbedstoreError(
            f"'{annotation_id}' has no embedding of model '{model}'; `embedstore ingest "
            f"{annotations[0]['dataset']} --model {model}` or `embedstore import` makes one"
        )
    vector: Sequence[float] = stored["vector"][0].as_py()
    return vector


def _condition(
    con: Any, annotation_id: str, model: str, where: str | None
) -> tuple[str | None, int, bool]:
    """Return where as a LanceDB condition, how many others meet it, and whether it itself does.

    DuckDB decides who meets it, so that its whole SQL is there; LanceDB is told groups of keys
    where the condition takes all or nothing of each, else ids.
    """
    table = identifier(model)
    if where is None or not where.strip():
        n = fetch_rows(con, f"select count(*) as n from {table}")[0]["n"]
        return None, n - 1, True
    rows = fetch(
        con,
        "select e.annotation_id, e.dataset, e.domain, e.label, e.slide, "
        f"w.annotation_id is not null as met from {table} e left join (select annotation_id from "
        f"annotations where {where_clause(where)}) w using (annotation_id)",
    )
    con.register("_met", rows)
    met = fetch_rows(
        con,
        "select count(*) filter (met) as n, coalesce(bool_or(met and annotation_id = "
        f"{literal(annotation_id)}), false) as it from _met",
    )[0]
    n_searched = met["n"] - met["it"]
    for keys in _GROUPS:
        groups = fetch_rows(
            con,
            f"select {', '.join(keys)}, bool_and(met) as met, bool_or(met) as some from _met "
            "group by all",
        )
        if all(g["met"] == g["some"] for g in groups) and len(groups) <= 1000:
            chosen = [g for g in groups if g["met"]]
            if all(g[k] is not None for g in chosen for k in keys):
                ands = [" and ".join(f"{k} = {literal(g[k])}" for k in keys) for g in chosen]
                return " or ".join(f"({a})" for a in ands) or None, n_searched, met["it"]
    ids = rows.filter(rows["met"])["annotation_id"].to_pylist()
    return f"annotation_id in ({', '.join(map(literal, ids))})", n_searched, met["it"]


def _rows(con: Any, pairs: list[tuple[float, str]], metric: str) -> list[dict[str, Any]]:
    if not all(math.isfinite(d) for d, _ in pairs):
        raise EmbedstoreError(
            "the vectors are too long or too short for distances in float32; scale them, or take "
            f"another --metric ({', '.join(METRICS)})"
        )
    ids = ", ".join(literal(i) for _, i in pairs) or "''"
    about = {
        r["annotation_id"]: r
        for r in fetch_rows(
            con,
            "select annotation_id, label, domain, dataset, slide, case_id from annotations where "
            f"annotation_id in ({ids})",
        )
    }
    rows = []
    for rank, (distance, i) in enumerate(pairs, start=1):
        length = math.sqrt(max(distance, 0.0)) if metric == "l2" else max(distance, 0.0)
        rest = {c: about[i][c] for c in ("label", "domain", "dataset", "slide", "case_id")}
        rows.append({"rank": rank, "annotation_id": i, "distance": length, **rest})
    return rows
