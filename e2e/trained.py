"""One run, trained in its folder and scored: from a network's first weights to what is recorded."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from e2e.data import Part, even_weights, vote_shares
from e2e.folder import CONFIG, LAST, Config, Epoch, RunFolder, best_epoch
from e2e.network import Classifier, decision, n_parameters, probabilities
from e2e.recipe import Recipe
from e2e.train import Setup, score, train
from embedstore.embeddings.crops import Placed
from embedstore.models.checkpoints import Weights
from embedstore.models.loading import load_embedder
from embedstore.models.registry import ModelEntry
from probes.scores.results import Run
from probes.slices import codes_of
from probes.splits.draw import ROLES


@dataclass(frozen=True)
class Material:
    """What all runs of one command are made of.

    entry and weights are the backbone's, placed says where each annotation lies, by id, labels are
    in the order of their codes, and pixels is the digest of the slide files. votes: each
    annotation's, as labels, by id, where a recipe asks for them.
    """

    dataset: str
    entry: ModelEntry
    weights: Weights
    placed: Mapping[str, Placed]
    labels: Sequence[str]
    pixels: str
    votes: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What came of a run: the annotations of its roles, scores of val and test, the epoch kept.

    scores are probabilities and decisions log-odds, float64 (n, K), of those of the two roles that
    have annotations.
    seconds are of this call alone: what an interrupted one took is not in them.
    """

    parts: Mapping[str, Part]
    scores: Mapping[str, NDArray[np.float64]]
    decisions: Mapping[str, NDArray[np.float64]]
    best: Epoch
    n_epochs: int
    seconds: float


def train_run(
    run: Run,
    material: Material,
    setup: Setup,
    folder: RunFolder,
    *,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int, int], None],
) -> Trained:
    """Return a run trained in its folder, going on where an interrupted one left it, and scored."""
    started = time.monotonic()
    seed = int(hashlib.sha256(run.run_id.encode()).hexdigest()[:12], 16)
    model = _model(run, material, setup, seed)
    if not folder.has(CONFIG):
        folder.write_config(_config(run, material, setup.recipe, model))
    parts = {role: _part(run.split.ids(role).to_pylist(), material) for role in ROLES}
    curve = train(
        model,
        setup,
        train_on=_to_learn(parts["train"], material, setup.recipe),
        val=parts["val"],
        folder=folder,
        seed=seed,
        on_epoch=on_epoch,
        on_step=on_step,
    )
    logits = {
        role: score(model, setup, parts[role].ids, tta=setup.recipe.tta)
        for role in ("val", "test")
        if len(parts[role].ids)
    }
    scores = {role: probabilities(z).numpy() for role, z in logits.items()}
    decisions = {role: decision(z) for role, z in logits.items()}
    return Trained(
        parts, scores, decisions, best_epoch(curve), len(curve), time.monotonic() - started
    )


def clear_outdated(folder: RunFolder, pixels: str, *, force: bool) -> None:
    """Empty the folder where its model was made of other pixels, or is to be made again.

    An interrupted training goes on, with force as well: it ends the same.
    """
    is_repeated = force and not folder.has(LAST)
    if is_repeated or (folder.has(CONFIG) and folder.config().pixels != pixels):
        folder.clear()


def _model(run: Run, material: Material, setup: Setup, seed: int) -> Classifier:
    recipe = setup.recipe
    embedder = load_embedder(
        run.model,
        material.entry,
        material.weights,
        dtype="float32",
        device=setup.machine.device,
    )
    return Classifier(
        embedder,
        len(material.labels),
        adapt=recipe.adapt,
        lora_rank=recipe.lora_rank,
        seed=seed,
    )


def _config(run: Run, material: Material, recipe: Recipe, model: Classifier) -> Config:
    split, weights = run.split.row, material.weights
    n_params, n_trained = n_parameters(model)
    return Config(
        run_id=run.run_id,
        backbone=run.model,
        weights=weights.label,
        weights_sha256=weights.sha256,
        weights_path=None if weights.path is None else str(weights.path),
        entry=material.entry,
        recipe=recipe,
        dataset=material.dataset,
        pixels=material.pixels,
        manifest_id=split.manifest_id,
        fold=split.fold,
        fraction=split.fraction,
        train_domain=split.train_domain,
        labels=list(material.labels),
        n_params=n_params,
        n_trained=n_trained,
    )


def _to_learn(part: Part, material: Material, recipe: Recipe) -> Part:
    """Return a part as the recipe learns from it: shares of labels, weights."""
    shares = weights = None
    if recipe.soft_labels:
        votes = [material.votes.get(i, ()) for i in part.ids]
        shares = vote_shares(votes, part.codes, material.labels)
    if recipe.weigh != "none":
        weights = even_weights([getattr(material.placed[i], recipe.weigh) for i in part.ids])
    return replace(part, shares=shares, weights=weights)


def _part(ids: Sequence[str], material: Material) -> Part:
    codes = codes_of([material.placed[i].label for i in ids], material.labels)
    return Part(ids, codes.astype(np.int64))
