"""What an ingest has to do: what each model lacks, and what a model's name stands for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.checkpoints import Weights, find_weights
from embedstore.errors import EmbedstoreError
from embedstore.query import connect, fetch_rows, identifier, literal
from embedstore.registry import REGISTRY
from embedstore.slides import probe, probe_patch
from embedstore.store import Store, model_schema


def retry_slides(store: Store, dataset: str) -> None:
    """Open again the slides and patches set aside or missing, and write what has changed."""
    sql = f"select * from _slides where status != 'ok' and dataset = {literal(dataset)}"
    changed = []
    for row in fetch_rows(connect(store), sql):
        if row["path"] is None:
            continue
        path = Path(row["path"])
        given = (row["mpp"], row["mpp_source"]) if row["mpp_source"] != "slide" else (None, None)
        seen = probe_patch(path) if row["kind"] == "patch" else probe(path, given)
        if (fresh := row | seen) != row:
            changed.append(fresh)
    store.merge("slides", changed)


@dataclass(frozen=True)
class Plan:
    """What is to be embedded; n_done by model, set_aside: the slides not ok and why."""

    missing: list[dict[str, Any]]  # a row an annotation: where it is, and the models that lack it
    n_annotations: int
    n_off_slide: int
    n_done: dict[str, int]
    set_aside: dict[str, str]


def plan(store: Store, dataset: str, names: Sequence[str]) -> Plan:
    """Return what of a dataset the named models lack, slide by slide, row by row down the slide."""
    con = connect(store)
    tables = set(store.models())
    lacks, n_done = [], {}
    for i, name in enumerate(names):
        source = identifier(name)
        if name not in tables:
            source = f"_keys{i}"
            con.register(source, model_schema(1).empty_table())
        lacks.append(f"annotation_id not in (select annotation_id from {source})")
        done = f"select count(*) as n, count(distinct annotation_id) as d from {source} " \
               f"where dataset = {literal(dataset)}"  # fmt: skip
        counts = fetch_rows(con, done)[0]
        if counts["n"] != counts["d"]:
            raise EmbedstoreError(
                f"the table of model {name} holds {counts['n'] - counts['d']} annotations twice; "
                "it was not written by this tool alone, restore a copy or use --as NAME"
            )
        n_done[name] = counts["n"]
    columns = ", ".join(f"{sql} as lacks_{i}" for i, sql in enumerate(lacks))
    rows = fetch_rows(
        con,
        f"select a.annotation_id, a.slide, a.domain, a.label, a.x_l0, a.y_l0, s.path, s.mpp, "
        f"a.status, s.status as slide_status, {columns} from annotations a "
        "join slides s using (dataset, slide) "
        f"where dataset = {literal(dataset)} order by a.slide, a.y_l0, a.x_l0, a.annotation_id",
    )
    for row in rows:
        row["models"] = frozenset(n for i, n in enumerate(names) if row[f"lacks_{i}"])
    aside = fetch_rows(
        con, f"select slide, problem from slides where dataset = {literal(dataset)} "
        "and status != 'ok' order by slide",
    )  # fmt: skip
    return Plan(
        [r for r in rows if r["models"] and r["status"] == "ok" and r["slide_status"] == "ok"],
        len(rows), sum(r["status"] == "off-slide" for r in rows), n_done,
        {r["slide"]: r["problem"] for r in aside},
    )  # fmt: skip


def recorded_models(store: Store) -> dict[str, dict[str, Any]]:
    """Return the rows of the models view by name."""
    return {r["model"]: r for r in fetch_rows(connect(store), "select * from models")}


def weights_for(
    model: str,
    name: str,
    record: Mapping[str, Any] | None,
    asked: Mapping[str, Any],
    spec: str | None,
    is_open: bool,
) -> Weights | None:
    """Return the weights that spec means; None where nothing is to embed and none were asked for.

    record is the name's row of the models view, asked the columns of it that this call decides,
    is_open whether anything is missing. A name stands for one set of weights, pooling, dtype and
    geometry, so what is asked for must agree with what is recorded, also when nothing is missing.
    """
    if record is not None:
        check_same(name, record, asked)
        if spec is None and record["weights"] == "random":
            spec = "random"  # going on with what the name stands for
    if spec is None and not is_open:
        return None
    entry = REGISTRY.get(model)
    if entry is None and spec in (None, "hub"):
        from embedstore.models import resolve  # only timm knows where its own weights lie

        entry = resolve(model)
    found = find_weights(
        model,
        spec or (entry.default_weights if entry else "hub"),
        entry.hub if entry else "",
        entry.hub_file if entry else None,
    )
    if record is not None and not (found.path is None and record["weights"] == "random"):
        check_same(name, record, {"weights_sha256": found.sha256})
    return found


def check_same(name: str, record: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise EmbedstoreError where what is asked differs from what the name is recorded with."""
    other = [f"{k} {record[k]} (asked: {v})" for k, v in asked.items() if record[k] != v]
    if other:
        raise EmbedstoreError(
            f"model '{name}' is recorded with {', '.join(other)}; a name stands for one set of "
            "weights, pooling, dtype and patch geometry: store the other under --as NAME"
        )
