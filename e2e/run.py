"""The verb `run`: every training that is asked for and not recorded yet, scored and recorded."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from e2e.recipe import Recipe, backbone_name
from embedstore.crops import fill, located
from embedstore.errors import EmbedstoreError
from embedstore.identity import entry_of
from embedstore.models.checkpoints import Weights, find_weights
from embedstore.models.registry import NO_VARIATION, ModelEntry
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows, literal
from probes.scores.evaluate import evaluate_split, seed_of
from probes.scores.metrics import best_cut
from probes.scores.predictions import Scored
from probes.scores.results import Outcome, Run, RunReport, load_results, record
from probes.scores.statistics import N_RESAMPLES
from probes.slices import codes_of, label_order
from probes.splits.asked import splits_for
from probes.splits.draw import ROLES
from probes.splits.manifests import Candidates
from probes.splits.spec import ManifestSpec

METHOD = "e2e"


@dataclass(frozen=True)
class TrainOptions:
    """What is trained, on which splits (None: as for probes.run.RunOptions), and on what machine.

    weights: hub, random, a path, or None for the backbone's own default.
    """

    backbone: str = "resnet50"
    weights: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    fractions: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    train_domains: Sequence[str] | None = None
    manifest: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    patch_cache: bool = True
    n_resamples: int = N_RESAMPLES
    force: bool = False


@dataclass(frozen=True)
class Listener:
    """What is told while it works: reading(done, total), step(done, total) and lines to print."""

    reading: Callable[[int, int], None] = lambda done, total: None
    step: Callable[[int, int], None] = lambda done, total: None
    line: Callable[[str], None] = lambda text: None


def run(
    store: Store, spec: ManifestSpec, options: TrainOptions, listener: Listener = Listener()
) -> RunReport:
    """Train and score what is asked for and not recorded; the manifest is made if it is missing.

    A run that was interrupted goes on from its last epoch. Names, weights and patches are checked
    before the first training; EmbedstoreError otherwise.
    """
    options.recipe.check()
    backbone = backbone_name(options.backbone)
    found, splits, notes = splits_for(store, spec, options)
    order = label_order(store, found)
    entry = entry_of(backbone, NO_VARIATION, options.weights)
    weights = _weights(backbone, entry, options.weights)
    params = options.recipe.params()
    runs = [Run(s, METHOD, params, backbone, weights.label, weights.sha256) for s in splits]
    rows = located(store, spec.dataset)
    seen = pixels_digest(store, spec.dataset, found)
    known = {} if options.force else _recorded(store, [r.run_id for r in runs])
    todo = [r for r in runs if known.get(r.run_id) != seen]
    if todo:
        patches = _patches(store, spec.dataset, rows, todo, options, listener)
        for n, r in enumerate(todo):
            listener.line(f"run {n + 1} of {len(todo)}: {_title(r)}")
            _train_one(store, r, rows, order, (entry, weights), patches, seen, options, listener)
        for table in ("results", "predictions"):
            store.compact(table)
    if found.n_left_out:
        notes = [*notes, f"{found.n_left_out} annotations with a problem are in no split"]
    ids = [r.run_id for r in runs]
    return RunReport(
        found.manifest_id, load_results(store, ids), len(todo), len(runs) - len(todo), notes, splits
    )


def _weights(backbone: str, entry: ModelEntry, spec: str | None) -> Weights:
    weights = find_weights(backbone, spec or entry.default_weights, entry.hub, entry.hub_file)
    if weights.path is None:  # what chance makes of a name is known once it is made
        from embedstore.models.loading import random_sha256

        weights = Weights(weights.label, None, random_sha256(backbone, entry))
    return weights


def pixels_digest(store: Store, dataset: str, found: Candidates) -> str:
    """Return a digest of the slide files and their mpp that a manifest's patches are cut from.

    Where the annotations lie is a part of the manifest's own digest.
    """
    wanted = set(found.slides)
    sql = (
        "select slide, fingerprint, mpp from _slides where dataset = "
        f"{literal(dataset)} order by slide"
    )
    mine = [list(r.values()) for r in fetch_rows(connect(store), sql) if r["slide"] in wanted]
    return hashlib.sha256(json.dumps(mine).encode()).hexdigest()[:16]


def _recorded(store: Store, run_ids: Sequence[str]) -> dict[str, str]:
    """Return those runs that are recorded, each with the digest of the pixels it was made of."""
    con = connect(store)
    con.register("_ids", pa.table({"run_id": pa.array(list(run_ids), pa.string())}))
    sql = "select run_id, max(chosen) as c from _results join _ids using (run_id) group by 1"
    return {r["run_id"]: json.loads(r["c"] or "{}").get("pixels") for r in fetch_rows(con, sql)}


def _patches(
    store: Store,
    dataset: str,
    rows: Mapping[str, Mapping[str, Any]],
    runs: Sequence[Run],
    options: TrainOptions,
    listener: Listener,
) -> Any:
    """Return where the runs' patches are read, after each of them was read once for the cache."""
    from e2e.data import StoredPatches

    wanted = {i for r in runs for role in ROLES for i in r.split.ids(role).to_pylist()}
    mine = [r for i, r in rows.items() if i in wanted]
    geometry = options.recipe.geometry
    cache = PatchCache(store, dataset, geometry) if options.patch_cache else None
    kept = cache if cache is not None else ()
    absent = {
        r["slide"] for r in mine if r["slide_status"] != "ok" and r["annotation_id"] not in kept
    }
    if len(mine) < len(wanted) or absent:
        named = ", ".join(sorted(absent)[:3]) or "see `embedstore status`"
        raise EmbedstoreError(
            f"{len(absent)} slides of the manifest have no file that can be read ({named}); add "
            "them with `embedstore add --slides DIR`, or leave them out with --where"
        )
    if cache is not None:
        fill(cache, mine, geometry, workers=_workers(options), on_progress=listener.reading)
    return StoredPatches(rows, geometry, cache)


def _workers(options: TrainOptions) -> int:
    return options.workers or min(os.cpu_count() or 1, 16)


def _train_one(
    store: Store,
    run: Run,
    rows: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
    made_of: tuple[ModelEntry, Weights],
    patches: Any,
    seen: str,
    options: TrainOptions,
    listener: Listener,
) -> None:
    """Train one run in its folder, score its validation and test rows, and record it."""
    # torch comes in only where something is trained
    from e2e.folder import LAST, RunFolder
    from e2e.network import Classifier, describe, probabilities
    from e2e.train import Machine, best_epoch, score, train
    from embedstore.models.embedder import choose_device, choose_dtype
    from embedstore.models.loading import load_embedder

    started = time.monotonic()
    device, recipe, split = choose_device(options.device), options.recipe, run.split
    machine = Machine(device, choose_dtype(options.dtype, device, "bfloat16"), _workers(options))
    folder, seed = RunFolder(store.uri, run.run_id), seed_of(run.run_id) % 2**62
    entry, weights = made_of
    # What an interrupted training left goes on, with force as well: it ends the same.
    over = options.force and not folder.has(LAST)
    if over or (folder.has("config.json") and folder.config()["pixels"] != seen):
        folder.clear()
    embedder = load_embedder(run.model, entry, weights, dtype="float32", device=device)
    model = Classifier(
        embedder, len(order), adapt=recipe.adapt, lora_rank=recipe.lora_rank, seed=seed
    )
    if not folder.has("config.json"):
        path = None if weights.path is None else str(weights.path)
        folder.write_config(
            {
                "run_id": run.run_id,
                "backbone": run.model,
                "weights": weights.label,
                "weights_sha256": weights.sha256,
                "weights_path": path,
                "entry": asdict(entry),
                "recipe": asdict(recipe),
                "dataset": split.row["dataset"],
                "pixels": seen,
                **{k: split.row[k] for k in ("manifest_id", "fold", "fraction", "train_domain")},
                **describe(model, order),
            }
        )
    parts = {r: _part(split.ids(r).to_pylist(), rows, order) for r in ROLES}
    if len(set(parts["val"].codes.tolist())) < 2:
        listener.line("  note: validation has no two labels; its loss still chooses the epoch")
    curve = train(
        model,
        patches,
        parts["train"],
        parts["val"],
        recipe,
        machine,
        folder,
        seed=seed,
        on_epoch=lambda e: listener.line(_line(e, recipe.epochs)),
        on_step=listener.step,
    )
    p = {
        r: probabilities(score(model, patches, parts[r].ids, recipe, machine)).numpy()
        for r in ("val", "test")
        if len(parts[r].ids)
    }
    best = best_epoch(curve)
    chosen = {
        "epoch": best.epoch,
        "epochs": len(curve),
        "val_loss": best.val_loss,
        "device": machine.device.type,
        "dtype": machine.dtype,
        "pixels": seen,
    }
    facts = {"state": "ok", "seconds": time.monotonic() - started, "chosen": json.dumps(chosen)}
    record(store, [_outcome(run, parts, p, rows, order, facts, options.n_resamples)])
    folder.remove(LAST)


def _part(ids: Sequence[str], rows: Mapping[str, Mapping[str, Any]], order: Sequence[str]) -> Any:
    from e2e.train import Part

    return Part(ids, codes_of([rows[i]["label"] for i in ids], order).astype(np.int64))


def _outcome(
    run: Run,
    parts: Mapping[str, Any],
    p: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, Any]],
    order: Sequence[str],
    facts: Mapping[str, Any],
    n_resamples: int,
) -> Outcome:
    """Return what is recorded of a run, evaluated as a probe's is."""
    test, row = parts["test"], run.split.row
    cut = best_cut(parts["val"].codes.astype(np.intp), p.get("val", np.empty((0, len(order)))))
    by = "case_id" if row["group_by"] == "case" else "slide"
    column = {k: np.array([rows[i][k] for i in test.ids], dtype=object) for k in ("domain", by)}
    evaluated = evaluate_split(
        row,
        test.codes.astype(np.intp),
        p["test"],
        column["domain"],
        column[by],
        cut=cut,
        n_resamples=n_resamples,
    )
    more = {"ci_by": by.removesuffix("_id"), "threshold": cut if len(order) == 2 else None}
    scores = {r: Scored(parts[r].ids, p[r], order) for r in p}
    return Outcome(run, evaluated, scores, {**facts, **more})


def _title(run: Run) -> str:
    row = run.split.row
    domain = f"{row['train_domain']}, " if row["train_domain"] is not None else ""
    marked = f" ({run.weights} weights)" if run.weights == "random" else ""
    return (
        f"{run.model}{marked}, {domain}fold {row['fold']}, fraction {row['fraction']:g}, "
        f"n_train {row['n_train']:,}"
    )


def _line(e: Any, n_epochs: int) -> str:
    left = (n_epochs - e.epoch) * e.seconds / 60
    return (
        f"  epoch {e.epoch}/{n_epochs}  loss {e.loss:.4f}  val loss {e.val_loss:.4f}  "
        f"val AUROC {e.val_auroc:.3f}  {e.images_per_second:.1f} images/s  {left:.1f} min left"
    )
