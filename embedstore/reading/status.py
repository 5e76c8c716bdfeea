"""The verb `status`: what a store holds, per dataset and model, and how to get what it lacks."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.embeddings.identity import how_to_embed
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.records import OF_VECTOR
from embedstore.store.sql import (
    check_dataset,
    connect,
    connect_to,
    fetch_rows,
    identifier,
    literal,
    views_name,
)


def status(store: Store, dataset: str | None = None) -> list[dict[str, Any]]:
    """Return a row per dataset and model: annotations done, missing, set aside; the table.

    A dataset without any embedding has one row with model None. set_aside counts annotations off
    their slide or on one that cannot be read or has no mpp; no_file those whose slide is absent.
    """
    con = connect(store)
    if dataset is not None:
        check_dataset(store, con, dataset)
    datasets = fetch_rows(
        con,
        "select dataset, count(*) as n_annotations, "
        "count(*) filter (a.status != 'ok') as set_aside, "
        "count(*) filter (a.status = 'ok' and s.status = 'missing') as no_file "
        "from annotations a join slides s using (dataset, slide) group by 1 order by 1",
    )
    models = fetch_rows(con, "select * from models order by model")
    rows = []
    for d in (d for d in datasets if dataset in (None, d["dataset"])):
        by_model = [_row(store, con, d, m) for m in models]
        by_model = [r for r in by_model if r["done"]]
        rows += by_model or [{**d, "model": None, "done": 0, "missing": _usable(d)}]
    return rows


def _usable(d: dict[str, Any]) -> int:
    return int(d["n_annotations"] - d["set_aside"])


def _row(store: Store, con: Any, d: dict[str, Any], m: dict[str, Any]) -> dict[str, Any]:
    # A slide may have gone bad after its annotations were embedded: count only those still wanted.
    sql = (
        f"select count(*) as done, count(*) filter (a.status = 'ok') as usable "
        f"from {identifier(m['model'])} e join annotations a using (annotation_id) "
        f"where a.dataset = {literal(d['dataset'])}"
    )
    counts = fetch_rows(con, sql)[0]
    views = 0
    if m["model"] in store.viewed_models():
        sql = (
            f"select count(*) as n from {identifier(views_name(m['model']))} "
            f"where dataset = {literal(d['dataset'])}"
        )
        views = fetch_rows(con, sql)[0]["n"]
    keep = (
        "model",
        "arch",
        "dim",
        "pooling",
        "dtype",
        "patch_px",
        "mpp_out",
        "weights",
        "weights_sha256",
        "parity",
        "timm_version",
    )
    return {
        **d,
        "done": counts["done"],
        "missing": _usable(d) - counts["usable"],
        "views": views,
        **{k: m[k] for k in keep},
        **store.stats(model_table(m["model"])),
    }


def composition(store: Store, dataset: str) -> list[dict[str, Any]]:
    """Return the counts of a dataset per domain, label and status."""
    return fetch_rows(
        connect(store),
        "select domain, label, status, count(*) as n_annotations, "
        "count(distinct coalesce(source_slide, slide)) as n_slides, "
        "count(distinct case_id) as n_cases "
        f"from annotations where dataset = {literal(dataset)} "
        "group by all order by all",
    )


def problems(store: Store, dataset: str) -> list[dict[str, Any]]:
    """Return the slides of a dataset that are not ok and how many annotations each holds.

    A cell that is known by its vector alone has no image, and lacks none.
    """
    return fetch_rows(
        connect_to(store, "slides", "annotations"),
        "select s.slide, s.status, s.problem, count(*) as n_annotations from _slides s "
        "join _annotations a using (dataset, slide) "
        f"where s.dataset = {literal(dataset)} and s.status != 'ok' "
        f"and a.source_id != {literal(OF_VECTOR)} group by all order by all",
    )


def next_steps(store: Store, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the commands that go on from here, the first the one to begin with.

    rows: what `status` returned. What is missing comes before what can be asked of what is there.
    """
    if not rows:
        return ["embedstore add DATASET --annotations FILE --slides DIR"]
    con = connect(store)
    asked = "select distinct dataset, model from results where eval_dataset is null"
    scored = {(r["dataset"], r["model"]) for r in fetch_rows(con, asked)}
    compared = {r["dataset"] for r in fetch_rows(con, "select distinct dataset from comparisons")}
    steps = []
    for name in dict.fromkeys(r["dataset"] for r in rows):
        of = [r for r in rows if r["dataset"] == name]
        words = shlex.quote(name)
        embedded = [r for r in of if r["model"] is not None]
        waiting = of[0]["no_file"]
        if waiting and any(r["missing"] for r in of):
            steps.append(f"embedstore add {words} --annotations FILE --slides DIR")
        if not embedded and of[0]["missing"] > waiting:
            steps.append(f"embedstore ingest {words} --model MODEL")
        steps += [how_to_embed(store, name, r["model"]) for r in embedded if r["missing"] > waiting]
        if any((name, r["model"]) not in scored for r in embedded):
            steps.append(f"probes gap {words}")
        elif embedded:
            able = len(embedded) > 1 and name not in compared
            steps.append(f"probes {'compare' if able else 'report'} {words}")
    return [s + " --output report" * s.startswith("probes report") for s in steps]


def notes(store: Store, dataset: str) -> list[str]:
    """Return what the last `add` of a dataset left out or assumed."""
    sql = f"select notes from _datasets where dataset = {literal(dataset)}"
    rows = fetch_rows(connect_to(store, "datasets"), sql)
    return list(rows[0]["notes"] or []) if rows else []


def patches(store: Store) -> tuple[int, int]:
    """Return how many patches are kept in a store, and their bytes."""
    sql = "select count(*) as n, coalesce(sum(n_bytes), 0)::bigint as n_bytes from patches"
    (row,) = fetch_rows(connect(store), sql)
    return int(row["n"]), int(row["n_bytes"])
