"""A certificate: a recorded run derived again from stored vectors, manifest and code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.records import fetch_records
from embedstore.store.sql import connect, fetch_rows, literal
from probes.methods.corrections import Correction
from probes.methods.fits import Task, corrected_matrix, fit_tasks
from probes.methods.table import METHODS
from probes.runs.outcomes import Scorer, codes_in
from probes.scores.best_pool import BEST, chosen_model
from probes.scores.metrics import METRICS, evaluate
from probes.scores.recorded import ResultRow, RunRow
from probes.scores.results import Outcome, Run, from_null, software
from probes.scores.scored_set import scored_set
from probes.scores.sides import E2E
from probes.slices import label_order, load_matrix, newest
from probes.splits.candidates import Candidates, candidates
from probes.splits.imported import IMPORTED, recorded_manifest
from probes.splits.manifests import StoredSplit, cut_split, load_splits, split_id
from probes.splits.spec import ManifestSpec

NEAR = 1e-6
"""How far a metric may lie from the recorded one and still be the same."""


@dataclass(frozen=True)
class Check:
    """One thing that a run is made of or came to: what is recorded, what it is now."""

    check: str
    recorded: str
    now: str
    same: bool


def verify(store: Store, run_id: str) -> list[Check]:
    """Return what is recorded of a run beside what is derived again; see `Check`.

    The manifest is cut again from the annotations of now, the probe fitted again on the stored
    vectors, the test set scored again. Of a run trained end to end the training is not repeated:
    its metrics are derived from its stored predictions. EmbedstoreError for an unknown run.
    """
    con = connect(store)
    rows = fetch_records(
        con,
        ResultRow,
        f"from all_results where run_id = {literal(run_id)} and eval_dataset is null",
    )
    if not rows:
        raise EmbedstoreError(
            f"no run '{run_id}'; `embedstore sql \"select distinct run_id, method, model from "
            'results"` lists them'
        )
    run = rows[0]
    checks = [Check("software", run.software or "", software(), run.software == software())]
    kinds = {tuple(str(getattr(r, f.name)) for f in fields(RunRow)) for r in rows}
    checks.append(Check("rows of one run", "1", f"{len(kinds)}", len(kinds) == 1))
    spec = ManifestSpec.of(run)
    key = split_id(run.manifest_id, run.fold, run.fraction, run.train_domain)
    split = load_splits(store, run.manifest_id).get(key)
    if split is None:
        raise EmbedstoreError(f"the split {key} of run '{run_id}' is not recorded any more")
    manifest = None
    if spec.scheme == IMPORTED:
        try:
            manifest, _ = recorded_manifest(store, run.dataset, run.manifest_id)
        except EmbedstoreError as e:
            checks.append(Check("manifest", run.manifest_id, str(e), False))
    else:
        manifest = candidates(store, spec)
        checks += _of_manifest(manifest, run, split)
    checks += _of_labels(con, run)
    checks += _of_predictions(con, run, rows)
    if run.method == E2E:
        return checks
    return checks + _again(store, con, run, rows, split, manifest)


def _of_manifest(manifest: Candidates, run: ResultRow, split: StoredSplit) -> list[Check]:
    same = manifest.manifest_id == run.manifest_id
    checks = [Check("manifest", run.manifest_id, manifest.manifest_id, same)]
    if same:
        cut = cut_split(manifest, run.fold, run.fraction, run.train_domain)
        for role in ("train", "val", "test"):
            now = [manifest.pool.ids[i] for i in getattr(cut, role)]
            was = split.ids(role).to_pylist()
            checks.append(Check(role, f"{len(was):,} ids", f"{len(now):,} ids", was == now))
    return checks


def _of_labels(con: Any, run: ResultRow) -> list[Check]:
    column = "a.domain" if run.target == "domain" else "a.label"
    (n,) = fetch_rows(
        con,
        "select count(distinct annotation_id) as n, count(distinct annotation_id) filter "
        f"({column} is distinct from p.truth) as changed from predictions p left join "
        "annotations a using (annotation_id) where run_id = $run and role = 'test'",
        {"run": run.run_id},
    )
    now = f"{n['changed']:,} changed or gone" if n["changed"] else f"{n['n']:,}"
    return [Check("test labels", f"{n['n']:,}", now, not n["changed"])]


def _of_predictions(con: Any, run: ResultRow, rows: list[ResultRow]) -> list[Check]:
    """Return whether the metrics over all of the test set are those of the stored predictions."""
    whole = {r.metric: r for r in rows if r.eval_domain == "all"}
    if not whole:
        return []
    at = scored_set(con, run.run_id, run.threshold)
    names = [m for m in whole if m in METRICS]
    partial = run.target == "domain"
    w = np.ones((1, len(at.y)))
    found = evaluate(at.y, at.p, w, at.cut, names, partial=partial, decision=at.rank)
    return [_near(f"{m} of stored predictions", whole[m].value, float(found[m][0])) for m in names]


def _near(name: str, recorded: float | None, now: float) -> Check:
    was = from_null(recorded)
    same = bool(np.isclose(was, now, rtol=0, atol=NEAR, equal_nan=True))
    return Check(name, f"{was:.6f}", f"{now:.6f}", same)


def _again(
    store: Store,
    con: Any,
    run: ResultRow,
    rows: list[ResultRow],
    split: StoredSplit,
    manifest: Candidates | None,
) -> list[Check]:
    """Return what fitting and scoring again comes to."""
    params = json.loads(run.params)
    model = chosen_model(run.chosen) if params.get("pool") == BEST else run.model
    checks = _of_embeddings(store, con, run, model, split)
    if manifest is None or manifest.manifest_id != run.manifest_id:
        return [*checks, Check("fitted again", "", "not tried: another manifest", False)]
    outcome = _fitted(store, run, model, params, split, manifest)
    checks.append(Check("run id", run.run_id, outcome.run.run_id, run.run_id == outcome.run.run_id))
    for r in sorted(rows, key=lambda r: (r.metric, r.eval_domain)):
        now = outcome.evaluated[r.eval_domain].metrics[r.metric]
        where = "" if r.eval_domain == "all" else f" in {r.eval_domain}"
        checks.append(_near(f"{r.metric}{where}", r.value, now.value))
        if r.ci_kind == "jackknife":
            checks.append(_near(f"{r.metric}{where}, low", r.ci_low, now.low))
            checks.append(_near(f"{r.metric}{where}, high", r.ci_high, now.high))
    return checks


def _of_embeddings(
    store: Store, con: Any, run: ResultRow, model: str, split: StoredSplit
) -> list[Check]:
    views = json.loads(run.params).get("views")
    ids = [i for role in ("train", "val", "test") for i in split.ids(role).to_pylist()]
    made = newest(store, model, ids, views)
    # Results name the newest of the whole manifest's vectors, of which a split has a part.
    same = made is None or (run.embedded_at is not None and made <= run.embedded_at)
    checks = [Check("vectors made at", f"{run.embedded_at}", f"{made}", same)]
    known = fetch_rows(con, f"select weights_sha256 from models where model = {literal(model)}")
    if known:
        sha = known[0]["weights_sha256"]
        checks.append(
            Check("weights", f"{run.weights_sha256}", f"{sha}", run.weights_sha256 == sha)
        )
    return checks


def _fitted(
    store: Store,
    run: ResultRow,
    model: str,
    params: Mapping[str, Any],
    split: StoredSplit,
    manifest: Candidates,
) -> Outcome:
    views = params.get("views")
    order = label_order(store, manifest, run.target)
    matrix = load_matrix(store, model, run.dataset, views)
    codes = codes_in(matrix, run.target, order)
    task = Task(run.method, matrix.rows(split), codes, len(order))
    correction = Correction.parse(
        params.get("correct"), transductive=bool(params.get("transductive"))
    )
    if correction is not None:
        matrix = corrected_matrix(matrix, task.rows, correction)
    (fit,) = fit_tasks(matrix, [task], lambda done, total: None)
    usual = METHODS[run.method].make().get_params()
    extra = {k: params[k] for k in ("views", "correct", "transductive", "pool") if k in params}
    again = Run(
        split,
        run.method,
        {**usual, **extra},
        run.model,
        run.weights or "",
        run.weights_sha256,
        run.target,
    )
    return Scorer(order, run.target, views, run.embedded_at).outcome(again, fit, task, matrix)
