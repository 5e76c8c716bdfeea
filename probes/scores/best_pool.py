"""The pool and field of a network that do best on validation, chosen inside each split."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.models.pools import split_name
from embedstore.store import Store, now
from embedstore.store.sql import connect_to, fetch_rows, literal
from probes.scores.results import Run

BEST = "best"
"""What --pool takes."""


def network_of(model: str) -> str:
    """Return the plain name of the network that a model's embeddings are of."""
    variant = split_name(model)
    return variant[0] if variant else model


def chosen_model(chosen: str | None) -> str:
    """Return the model that a run under BEST took, by the column `chosen` of its results."""
    return str(json.loads(chosen or "{}").get("model", ""))


def with_variants(asked: Sequence[str] | None, have: Sequence[str]) -> list[str] | None:
    """Return the models asked for, a plain name standing for all pools and fields of its network.

    None, for all, stays so. UsageError where a network has but one.
    """
    models = list(have) if asked is None else []
    for name in asked or ():
        alike = [m for m in have if network_of(m) == name]
        models += alike or [name]
    networks = [network_of(m) for m in dict.fromkeys(models)]
    if single := [n for n in dict.fromkeys(networks) if networks.count(n) < 2]:
        if asked is not None:
            raise UsageError(
                f"--pool {BEST} chooses among several, and {', '.join(single)} has one; "
                f"`embedstore ingest DATASET --model {single[0]} --pool all` gives more"
            )
        if len(single) == len(set(networks)):
            raise UsageError(f"--pool {BEST}: no model has several pools or fields of view")
    return None if asked is None else list(dict.fromkeys(models))


def record_best(store: Store, runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Record, for each network with several of these runs on a split, the best one as its own.

    Best is the lowest log-loss on the validation set of that split; the test set has no say.
    Returns the runs under which they are recorded, `chosen` of their results says what was taken,
    and notes. All of `runs` are recorded.
    """
    alike: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        key = (network_of(run.model), run.method, run.target, run.split.split_id)
        alike.setdefault(key, []).append(run)
    alike = {k: rivals for k, rivals in alike.items() if len(rivals) > 1}
    losses = validation_log_loss(store, [r.run_id for rivals in alike.values() for r in rivals])
    best, copies, without = list[Run](), dict[str, Run](), 0
    chosen: dict[str, dict[str, Any]] = {}
    for (network, *_), rivals in alike.items():
        able = [r for r in rivals if losses.get(r.run_id) is not None]
        if len(able) < len(rivals):
            without += 1
            continue
        winner = min(able, key=lambda r: (losses[r.run_id], r.model))
        params = {**winner.params, "pool": BEST}
        sha256, weights = winner.weights_sha256, winner.weights
        run = Run(winner.split, winner.method, params, network, weights, sha256, winner.target)
        best.append(run)
        copies[winner.run_id] = run
        chosen[run.run_id] = {
            "model": winner.model,
            "val_log_loss": losses[winner.run_id],
            "of": len(rivals),
        }
    stands = _standing(store, copies, chosen)
    _copy(store, {i: run for i, run in copies.items() if i not in stands}, chosen)
    notes = [
        f"{without} splits have no validation scores to choose a pool by (--force makes them anew)"
    ] * bool(without)
    return best, notes


def validation_log_loss(store: Store, run_ids: Sequence[str]) -> dict[str, float]:
    """Return the mean log-loss of each run on its validation set, in nats."""
    con = connect_to(store, "predictions")
    con.register("_ids", pa.table({"run_id": pa.array(list(run_ids), pa.string())}))
    # Of two labels the positive one's row says it all; of more, each annotation's own label's does.
    sql = (
        "with scored as (select run_id, label, unnest(truth) as truth, "
        "unnest(probability) as p from _predictions join _ids using (run_id) where role = 'val'), "
        "kinds as (select run_id, count(distinct label) as n from scored group by 1) "
        "select run_id, -avg(ln(greatest(if(truth = label, p, 1 - p), 1e-15))) as loss "
        "from scored join kinds using (run_id) where n = 1 or truth = label group by 1"
    )
    return {r["run_id"]: r["loss"] for r in fetch_rows(con, sql)}


def _standing(
    store: Store, copies: Mapping[str, Run], chosen: Mapping[str, Mapping[str, Any]]
) -> set[str]:
    """Return those of the runs `copies` names whose copy is recorded as it would be now."""
    ids = ", ".join(literal(i) for each in copies.items() for i in (each[0], each[1].run_id))
    rows = fetch_rows(
        connect_to(store, "results"),
        "select run_id, any_value(chosen) as chosen, min(created_at) as made_at from _results "
        f"where eval_dataset is null and run_id in ({ids or 'null'}) group by 1",
    )
    of = {r["run_id"]: r for r in rows}
    return {
        i
        for i, run in copies.items()
        if (made := of.get(run.run_id)) is not None
        and made["chosen"] == json.dumps(chosen[run.run_id])
        and made["made_at"] >= of[i]["made_at"]
    }


def _copy(store: Store, copies: Mapping[str, Run], chosen: Mapping[str, Mapping[str, Any]]) -> None:
    """Record what is recorded of the runs `copies` names under the runs it gives."""
    if not copies:
        return
    ids = ", ".join(map(literal, copies))
    con = connect_to(store, "results", "predictions")
    predictions = fetch_rows(con, f"select * from _predictions where run_id in ({ids})")
    results = fetch_rows(
        con, f"select * from _results where run_id in ({ids}) and eval_dataset is null"
    )
    if {r["run_id"] for r in results} != set(copies):
        raise EmbedstoreError("runs are not recorded whole; run again with --force")
    made_at = now()
    for row in results:
        run = copies[row["run_id"]]
        row |= {
            "result_id": row["result_id"].replace(row["run_id"], run.run_id, 1),
            "run_id": run.run_id,
            "model": run.model,
            "params": json.dumps(dict(run.params), sort_keys=True),
            "chosen": json.dumps(chosen[run.run_id]),
            "created_at": made_at,
        }
    kept = []
    for row in predictions:
        if row["role"] in ("val", "test"):
            run_id = copies[row["run_id"]].run_id
            prediction_id = row["prediction_id"].replace(row["run_id"], run_id, 1)
            kept.append(row | {"run_id": run_id, "prediction_id": prediction_id})
    store.merge("predictions", kept)
    recorded = ", ".join(literal(run.run_id) for run in copies.values())
    store.merge("results", results, instead_of=f"run_id in ({recorded})")
