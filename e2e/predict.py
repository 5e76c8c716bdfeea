"""The verb `predict`: the scores of a trained run for any dataset."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from e2e.data import StoredPatches
from e2e.folder import MODEL, Config, RunFolder
from e2e.network import Classifier, probabilities
from e2e.run import METHOD
from e2e.train import Machine, Setup, score
from embedstore.embeddings.crops import fill, located
from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights, checkpoint_sha256, find_weights
from embedstore.models.loading import load_embedder
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import check_dataset, connect, fetch_rows
from probes.scores.predictions import Scored


@dataclass(frozen=True)
class PredictOptions:
    """Where a model is run, and on what.

    weights says where the frozen backbone of a run adapted by lora or head lies, if it was moved.
    """

    weights: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    workers: int | None = None
    patch_cache: bool = True


def predict(
    store: Store,
    run_id: str,
    dataset: str,
    options: PredictOptions = PredictOptions(),
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pa.Table:
    """Return annotation_id, label and score of every annotation of a dataset that can be read.

    Of two labels the rows are of the positive one, else one row a label. EmbedstoreError where the
    run is not one of e2e, or patches cannot be read.
    """
    check_dataset(store, connect(store), dataset)
    config = _config(store, run_id)
    recipe, labels = config.recipe, config.labels
    machine = Machine.choose(options.device, options.dtype, options.workers)
    model = _model(store, config, options.weights, machine)
    placed = {i: p for i, p in located(store, dataset).items() if p.can_be_read}
    if not placed:
        raise EmbedstoreError(f"dataset '{dataset}' has no annotation whose slide can be read")
    cache = PatchCache(store, dataset, recipe.geometry) if options.patch_cache else None
    if cache is not None:
        fill(cache, list(placed.values()), recipe.geometry, workers=machine.workers)
    setup = Setup(StoredPatches(placed, recipe.geometry, cache), recipe, machine)
    ids = list(placed)
    p = probabilities(score(model, setup, ids, on_progress, tta=recipe.tta)).numpy()
    return Scored(ids, p, labels).table()


def _config(store: Store, run_id: str) -> Config:
    folder = RunFolder(store.uri, run_id)
    if folder.has(MODEL):
        return folder.config()
    runs = fetch_rows(
        connect(store),
        "select run_id, any_value(method) as method from all_results group by 1 "
        "order by max(created_at)",
    )
    method = next((r["method"] for r in runs if r["run_id"] == run_id), None)
    if method not in (None, METHOD):
        raise EmbedstoreError(f"run {run_id} is of {method}; score it with `probes predict`")
    trained_ids = [r["run_id"] for r in runs if r["method"] == METHOD]
    raise EmbedstoreError(
        f"no trained model of run '{run_id}' in {store.uri}; there: "
        f"{', '.join(trained_ids[-5:]) or 'none, `e2e run` trains one'}"
    )


def _model(store: Store, config: Config, weights: str | None, machine: Machine) -> Classifier:
    """Return the trained model, built of its config and what it learnt."""
    recipe, base = config.recipe, Weights("random", None, None)
    if recipe.adapt != "full" and config.weights != "random":
        base = _base(config, weights)
    embedder = load_embedder(
        config.backbone, config.entry, base, dtype="float32", device=machine.device
    )
    if base.path is None and recipe.adapt != "full":
        _check_sha256(config, embedder.weights.sha256)
    model = Classifier(embedder, len(config.labels), adapt=recipe.adapt, lora_rank=recipe.lora_rank)
    model.load_learnt(RunFolder(store.uri, config.run_id).model())
    return model


def _base(config: Config, spec: str | None) -> Weights:
    """Return the weights that a frozen backbone was trained with: EmbedstoreError if not those."""
    path = None if config.weights_path is None else Path(config.weights_path)
    if spec is None and path is not None and path.is_file():
        weights = Weights(config.weights, path, checkpoint_sha256(path))
    else:
        entry = config.entry
        spec = spec or entry.default_weights
        weights = find_weights(config.backbone, spec, entry.hub, entry.hub_file)
    _check_sha256(config, weights.sha256)
    return weights


def _check_sha256(config: Config, sha256: str | None) -> None:
    if sha256 != config.weights_sha256:
        raise EmbedstoreError(
            f"the backbone's weights are not those of run {config.run_id} "
            f"({config.weights}, SHA-256 {str(config.weights_sha256)[:12]}); name them with "
            "--weights PATH"
        )
