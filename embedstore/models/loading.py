"""The boundary to timm: what a model is made of, built, and loaded strictly."""

import difflib
import functools
import hashlib
import pickle
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError

from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights, model_config, state_sha256
from embedstore.models.embedder import Embedder, choose_dtype
from embedstore.models.features import has_class_token
from embedstore.models.registry import (
    NO_VARIATION,
    REGISTRY,
    TOKEN_POOLINGS,
    ModelEntry,
    Pooling,
    Variation,
    check_name,
    vary,
)
from embedstore.models.remap import anchors, remap_keys
from embedstore.models.states import network_in, read_tensors

LAYERS: dict[str, Any] = {
    "SwiGLUPacked": timm.layers.SwiGLUPacked,
    "SiLU": torch.nn.SiLU,
    "LayerNorm-1e-12": functools.partial(torch.nn.LayerNorm, eps=1e-12),
}
"""What the registry calls by name, so that it needs no torch."""


def resolve(
    name: str, variation: Variation = NO_VARIATION, weights: str | None = None
) -> ModelEntry:
    """Return the entry of a registry name, or one made of what timm or the hub says of a model.

    variation says what to pool or normalise otherwise. A hub model is described by the config.json
    beside its weights, where `weights` names a file or folder, else by the hub's.
    """
    check_name(name)
    variation.check()
    if name in REGISTRY:
        return vary(name, REGISTRY[name], variation)
    if name.startswith("hf-hub:"):
        hub = name.removeprefix("hf-hub:")
        config = model_config(name, weights, hub)
        facts = config.get("pretrained_cfg", config)  # older files hold all in one
        arch, kwargs = config["architecture"], dict(config.get("model_args") or {})
    else:
        arch, kwargs, facts, hub = name.removeprefix("timm:"), {}, {}, ""
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch.split(".")[0], timm.list_models(), n=3)
        hint = f"; near it: {', '.join(f'timm:{n}' for n in near)}" if near else ""
        raise EmbedstoreError(f"timm {timm.__version__} has no architecture '{arch}'{hint}")
    tokens = variation.pooling in TOKEN_POOLINGS
    kwargs |= {"global_pool": ""} if tokens else {}
    try:
        with torch.device("meta"):
            model, kwargs = _create_flexible(arch, kwargs)
    except (RuntimeError, TypeError, ValueError) as e:
        why = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise EmbedstoreError(f"timm {timm.__version__} cannot build '{arch}': {why}") from e
    facts = {**model.pretrained_cfg, **facts}
    return ModelEntry(
        arch=arch,
        pooling=cast(Pooling, variation.pooling or "timm"),
        norm=(variation.mean or tuple(facts["mean"]), variation.std or tuple(facts["std"])),
        dim=_width(name, model, variation.pooling),
        n_params=_count(model),
        kwargs=kwargs,
        n_prefix=int(getattr(model, "num_prefix_tokens", 0)),
        licence=str(facts.get("license") or ""),
        hub=hub or str(facts.get("hf_hub_id") or ""),
    )


def _width(name: str, model: Any, pooling: str | None) -> int:
    if pooling not in TOKEN_POOLINGS:
        return int(model.head_hidden_size)
    n_prefix = getattr(model, "num_prefix_tokens", None)
    if n_prefix is None or (pooling != "mean" and not has_class_token(model)):
        raise EmbedstoreError(
            f"{name} has no {'patch' if n_prefix is None else 'class'} token to pool by "
            f"'{pooling}'; leave --pooling out for what the architecture does by itself"
        )
    return int(model.num_features) * (2 if pooling == "cls+mean" else 1)


def _create_flexible(arch: str, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model and the arguments that let an architecture of fixed size take any patch."""
    model = timm.create_model(arch, **{**kwargs, "num_classes": 0})
    if not model.pretrained_cfg.get("fixed_input_size") or "dynamic_img_size" in kwargs:
        return model, kwargs
    flexible = {**kwargs, "dynamic_img_size": True}
    try:
        return timm.create_model(arch, **{**flexible, "num_classes": 0}), flexible
    except TypeError:
        return model, kwargs


def load_embedder(
    name: str, entry: ModelEntry, weights: Weights, *, dtype: str, device: torch.device
) -> Embedder:
    """Return an Embedder whose every parameter comes from `weights`.

    Random weights are seeded from `name`, so every process makes the same ones. EmbedstoreError
    where a key of the checkpoint is missing, extra or wrongly shaped, or the file is no checkpoint.
    """
    network = _random(name, entry)
    notes: tuple[str, ...] = ()
    if _count(network) != entry.n_params:
        raise EmbedstoreError(
            f"{name} was built with {_count(network):,} parameters, not {entry.n_params:,}; "
            f"timm {timm.__version__} builds {entry.arch} otherwise than expected"
        )
    if weights.path is None:
        weights = Weights(weights.label, None, state_sha256(network.state_dict()))
    else:
        network, notes = _load_strictly(network, entry, weights.path)
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    dtype = choose_dtype(dtype, device, entry.cuda_dtype)
    return Embedder(name, entry, weights, dtype, device, network, notes=notes)


def _random(name: str, entry: ModelEntry) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
        return build(entry)


def random_sha256(name: str, entry: ModelEntry) -> str:
    """Return the SHA-256 of the random weights that a name stands for."""
    return state_sha256(_random(name, entry).state_dict())


def build(entry: ModelEntry, **changes: object) -> Any:
    """Return the untrained network of an entry; `changes` override its arguments."""
    kwargs = {**entry.kwargs, **changes, "pretrained": False, "num_classes": 0}
    named = {k: LAYERS.get(v, v) if isinstance(v, str) else v for k, v in kwargs.items()}
    return timm.create_model(entry.arch, **named)


def _count(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


def _load_strictly(network: Any, entry: ModelEntry, path: Path) -> tuple[Any, tuple[str, ...]]:
    """Return the network with the file's parameters, and what was taken off or left out of it.

    It is built anew for another grid of positions.
    """
    wanted = network.state_dict()
    try:
        tensors = read_tensors(path)
    except (
        pickle.UnpicklingError,
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        EOFError,
        SafetensorError,
        IndexError,
        AttributeError,
        TypeError,
    ) as e:
        if "weights_only" in str(e):
            why = "it is no plain checkpoint of tensors, and reading it could run code: refused"
        else:
            told = (str(e).splitlines() or [type(e).__name__])[0]
            why = f"torch cannot read it as a checkpoint ({told})"
        raise EmbedstoreError(f"{path}: {why}") from e
    state, notes = network_in(path, tensors, anchors(entry.remap, wanted))
    try:
        state = remap_keys(entry.remap, state, wanted)
    except (KeyError, IndexError, ValueError) as e:
        raise EmbedstoreError(f"{path} is not a {entry.arch} checkpoint: key {e}") from e
    grid_px = _native_px(state, network)
    if grid_px is not None:
        network = build(entry, img_size=grid_px)
        wanted = network.state_dict()
    heads = network.pretrained_cfg.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else heads
    state = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
    # A counter that evaluation never reads and that older files lack.
    missing = [k for k in wanted if k not in state and not k.endswith(".num_batches_tracked")]
    extra = [k for k in state if k not in wanted]
    shapes = [k for k in wanted if k in state and state[k].shape != wanted[k].shape]
    if missing or extra or shapes:
        differences = {"missing": missing, "unknown": extra, "of another shape": shapes}
        said = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
            for what, keys in differences.items()
            if keys
        ]
        raise EmbedstoreError(f"{path} is not a {entry.arch} checkpoint: keys {'; '.join(said)}")
    network.load_state_dict(state, strict=False)
    return network, tuple(notes)


def _native_px(state: dict[str, Any], network: Any) -> int | None:
    """Return the image size of a checkpoint whose position grid is not the network's, else None.

    The grid is kept as trained and interpolated at run time, as the model's own code does.
    """
    theirs, ours = state.get("pos_embed"), getattr(network, "pos_embed", None)
    if theirs is None or ours is None or theirs.shape == ours.shape or theirs.ndim != 3:
        return None
    n_other = ours.shape[1] - network.patch_embed.num_patches  # tokens that have a position as well
    side = round((theirs.shape[1] - n_other) ** 0.5)
    if side**2 != theirs.shape[1] - n_other or theirs.shape[2] != ours.shape[2]:
        return None
    return int(side * network.patch_embed.patch_size[0])


def record_of(embedder: Embedder) -> dict[str, Any]:
    """Return what the models table says of an embedder, patch geometry and names aside."""
    mean, std = embedder.entry.norm
    return {
        "model": embedder.name,
        "arch": embedder.entry.arch,
        "dim": embedder.entry.dim,
        "pooling": embedder.entry.pooling,
        "dtype": embedder.dtype,
        "n_params": embedder.entry.n_params,
        "weights": embedder.weights.label,
        "weights_sha256": embedder.weights.sha256,
        "mean": list(mean),
        "std": list(std),
        "parity": embedder.parity,
        "timm_version": timm.__version__,
        "torch_version": torch.__version__,
    }
