"""The verb `run`: train, score and record all that is asked for and not recorded yet."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from e2e.data import StoredPatches
from e2e.recipe import Recipe, registry_name_of
from embedstore.embeddings.crops import Placed, fill, located
from embedstore.embeddings.identity import entry_of
from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights, find_weights
from embedstore.models.registry import NO_VARIATION, ModelEntry
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows, literal
from embedstore.store.tidy import compact
from probes.scores.evaluate import evaluate_split, left_out_by
from probes.scores.metrics import best_cut
from probes.scores.predictions import Scored
from probes.scores.results import Outcome, Run, RunReport, load_results, record
from probes.slices import label_order
from probes.splits.asked import splits_for
from probes.splits.candidates import Candidates
from probes.splits.draw import ROLES
from probes.splits.spec import Asked, ManifestSpec

if TYPE_CHECKING:  # these import torch
    from e2e.folder import Epoch
    from e2e.train import Machine
    from e2e.trained import Material, Trained

METHOD = "e2e"


@dataclass(frozen=True)
class TrainOptions:
    """What is trained, on which splits, and on what machine.

    weights: hub, random, a path, or None for the backbone's own default.
    """

    backbone: str = "resnet50"
    weights: str | None = None
    recipe: Recipe = field(default_factory=Recipe)
    splits: Asked = field(default_factory=Asked)
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    patch_cache: bool = True
    force: bool = False


@dataclass(frozen=True)
class Listener:
    """Who hears of the work: reading(done, total), step(done, total), and line(text) to print."""

    reading: Callable[[int, int], None] = lambda done, total: None
    step: Callable[[int, int], None] = lambda done, total: None
    line: Callable[[str], None] = lambda text: None


def run(
    store: Store, spec: ManifestSpec, options: TrainOptions, listener: Listener = Listener()
) -> RunReport:
    """Train and score what is asked for and not recorded; the manifest is made if it is missing.

    An interrupted run goes on from its last epoch. Names, weights and patches are checked
    before the first training; EmbedstoreError otherwise.
    """
    options.recipe.check()
    registry_name = registry_name_of(options.backbone)
    manifest, splits, notes = splits_for(store, spec, options.splits)
    labels = label_order(store, manifest)
    entry = entry_of(registry_name, NO_VARIATION, options.weights)
    weights = _weights(registry_name, entry, options.weights)
    params = options.recipe.params()
    runs = [Run(s, METHOD, params, registry_name, weights.label, weights.sha256) for s in splits]
    run_ids = [r.run_id for r in runs]
    placed = located(store, spec.dataset)
    pixels = pixels_digest(store, spec.dataset, manifest)
    recorded = {} if options.force else _recorded_pixels(store, run_ids)
    todo = [r for r in runs if recorded.get(r.run_id) != pixels]
    if todo:
        from e2e.trained import Material

        votes = _votes(store, spec.dataset) if options.recipe.soft_labels else {}
        material = Material(spec.dataset, entry, weights, placed, labels, pixels, votes)
        _train(store, todo, material, options, listener)
    if manifest.n_left_out:
        notes = [*notes, f"{manifest.n_left_out} annotations with a problem are in no split"]
    results = load_results(store, run_ids)
    n_recorded = len(runs) - len(todo)
    return RunReport(manifest.manifest_id, results, len(todo), n_recorded, notes, splits)


def _weights(registry_name: str, entry: ModelEntry, spec: str | None) -> Weights:
    weights = find_weights(registry_name, spec or entry.default_weights, entry.hub, entry.hub_file)
    if weights.path is None:  # the digest of random weights is known once they are drawn
        from embedstore.models.loading import random_sha256

        weights = Weights(weights.label, None, random_sha256(registry_name, entry))
    return weights


def _votes(store: Store, dataset: str) -> dict[str, list[str]]:
    """Return each annotation's votes as labels, by id; EmbedstoreError where there are none."""
    con = connect(store)
    (of,) = fetch_rows(con, "select classes from datasets where dataset = $d", {"d": dataset})
    classes = json.loads(of["classes"] or "{}")
    sql = "select annotation_id, votes from annotations where dataset = $d and len(votes) > 0"
    votes = {
        r["annotation_id"]: [classes.get(v) or v for v in r["votes"] if v]
        for r in fetch_rows(con, sql, {"d": dataset})
    }
    if not votes:
        raise EmbedstoreError(
            f"'{dataset}' has no votes of several experts for --soft-labels; `embedstore add` "
            "takes them by --column 'vote=COLUMN*', and from MIDOG's json"
        )
    return votes


def pixels_digest(store: Store, dataset: str, manifest: Candidates) -> str:
    """Return a digest of the slide files and their mpp that a manifest's patches are cut from.

    Where the annotations lie is a part of the manifest's own digest.
    """
    slides = set(manifest.images)
    sql = (
        "select slide, fingerprint, mpp from _slides where dataset = "
        f"{literal(dataset)} order by slide"
    )
    files = [list(r.values()) for r in fetch_rows(connect(store), sql) if r["slide"] in slides]
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def _recorded_pixels(store: Store, run_ids: Sequence[str]) -> dict[str, str | None]:
    """Return those runs that are recorded, each with the digest of the pixels it was made of."""
    con = connect(store)
    con.register("_ids", pa.table({"run_id": pa.array(list(run_ids), pa.string())}))
    sql = "select run_id, max(pixels) as pixels from _results join _ids using (run_id) group by 1"
    return {r["run_id"]: r["pixels"] for r in fetch_rows(con, sql)}


def _train(
    store: Store,
    runs: Sequence[Run],
    material: "Material",
    options: TrainOptions,
    listener: Listener,
) -> None:
    """Train, score and record runs one after the other."""
    # torch comes in only where something is trained
    from e2e.folder import LAST, RunFolder
    from e2e.train import Machine, Setup
    from e2e.trained import clear_outdated, train_run

    machine = Machine.choose(options.device, options.dtype, options.workers)
    patches = _patches(store, runs, material, options, listener, n_threads=machine.workers)
    setup = Setup(patches, options.recipe, machine)
    for n, run in enumerate(runs):
        listener.line(f"run {n + 1} of {len(runs)}: {_title(run)}")
        folder = RunFolder(store.uri, run.run_id)
        clear_outdated(folder, material.pixels, force=options.force)
        if len({material.placed[i].label for i in run.split.ids("val").to_pylist()}) < 2:
            listener.line("  note: validation has no two labels; its loss still chooses the epoch")
        trained = train_run(
            run,
            material,
            setup,
            folder,
            on_epoch=lambda epoch: listener.line(_line(epoch, options.recipe.epochs)),
            on_step=listener.step,
        )
        record(store, [_outcome(run, trained, material, machine)])
        folder.remove(LAST)
    for table in ("results", "predictions"):
        compact(store, table)


def _patches(
    store: Store,
    runs: Sequence[Run],
    material: "Material",
    options: TrainOptions,
    listener: Listener,
    *,
    n_threads: int,
) -> StoredPatches:
    """Return where the runs' patches are read, after each of them was read once for the cache."""
    ids = {i for r in runs for role in ROLES for i in r.split.ids(role).to_pylist()}
    needed = [p for i, p in material.placed.items() if i in ids]
    geometry = options.recipe.geometry
    cache = PatchCache(store, material.dataset, geometry) if options.patch_cache else None
    cached = cache if cache is not None else ()
    absent = {p.slide for p in needed if not p.can_be_read and p.annotation_id not in cached}
    if len(needed) < len(ids) or absent:
        named = ", ".join(sorted(absent)[:3]) or "see `embedstore status`"
        raise EmbedstoreError(
            f"{len(absent)} slides of the manifest have no file that can be read ({named}); add "
            "them with `embedstore add --slides DIR`, or leave them out with --where"
        )
    if cache is not None:
        fill(cache, needed, geometry, workers=n_threads, on_progress=listener.reading)
    return StoredPatches(material.placed, geometry, cache)


def _outcome(run: Run, trained: "Trained", material: "Material", machine: "Machine") -> Outcome:
    """Return what is recorded of a run, evaluated as a probe's is."""
    row, labels = run.split.row, material.labels
    val, test = trained.parts["val"], trained.parts["test"]
    no_scores = np.empty((0, len(labels)))
    cut = best_cut(val.codes.astype(np.intp), trained.scores.get("val", no_scores))
    resampled = left_out_by(row.group_by)
    group = "from_slide" if resampled == "slide" else resampled
    groups = _column(material.placed, test.ids, group)
    evaluated = evaluate_split(
        row,
        test.codes.astype(np.intp),
        trained.scores["test"],
        _column(material.placed, test.ids, "domain"),
        groups,
        cut=cut,
        decision=trained.decisions["test"],
    )
    scores = {
        r: Scored(
            trained.parts[r].ids,
            p,
            labels,
            trained.decisions[r],
            _column(material.placed, trained.parts[r].ids, "label"),
        )
        for r, p in trained.scores.items()
    }
    chosen = {
        "epoch": trained.best.epoch,
        "epochs": trained.n_epochs,
        "val_loss": trained.best.val_loss,
        "device": machine.device.type,
        "dtype": machine.dtype,
    }
    facts = {
        "state": "ok",
        "seconds": trained.seconds,
        "chosen": json.dumps(chosen),
        "pixels": material.pixels,
        "ci_by": resampled.removesuffix("_id"),
        "threshold": cut if len(labels) == 2 else None,
    }
    return Outcome(run, evaluated, scores, facts)


def _column(placed: Mapping[str, Placed], ids: Sequence[str], name: str) -> NDArray[np.object_]:
    return np.array([getattr(placed[i], name) for i in ids], dtype=object)


def _title(run: Run) -> str:
    row = run.split.row
    domain = f"{row.train_domain}, " if row.train_domain is not None else ""
    marked = f" ({run.weights} weights)" if run.weights == "random" else ""
    return (
        f"{run.model}{marked}, {domain}fold {row.fold}, fraction {row.fraction:g}, "
        f"n_train {row.n_train:,}"
    )


def _line(epoch: "Epoch", n_epochs: int) -> str:
    minutes_left = (n_epochs - epoch.epoch) * epoch.seconds / 60
    return (
        f"  epoch {epoch.epoch}/{n_epochs}  loss {epoch.loss:.4f}  "
        f"val loss {epoch.val_loss:.4f}  val AUROC {epoch.val_auroc:.3f}  "
        f"{epoch.images_per_second:.1f} images/s  {minutes_left:.1f} min left"
    )
