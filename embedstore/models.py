"""The boundary to timm: build a model strictly, pool its tokens, embed batches of patches."""

import difflib
import functools
import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from embedstore.checkpoints import Weights, remap_keys, state_sha256
from embedstore.errors import EmbedstoreError
from embedstore.registry import REGISTRY, ModelEntry, check_name

LAYERS: dict[str, Any] = {
    "SwiGLUPacked": timm.layers.SwiGLUPacked,
    "SiLU": torch.nn.SiLU,
    "LayerNorm-1e-12": functools.partial(torch.nn.LayerNorm, eps=1e-12),
}
"""What the registry calls by name, so that it needs no torch."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve(name: str) -> ModelEntry:
    """Return the entry of a registry name, or one made from timm's own facts for timm:NAME."""
    check_name(name)
    if name in REGISTRY:
        return REGISTRY[name]
    arch = name.removeprefix("timm:")
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch.split(".")[0], timm.list_models(), n=3)
        hint = f"; near it: {', '.join(f'timm:{n}' for n in near)}" if near else ""
        raise EmbedstoreError(f"timm {timm.__version__} has no architecture '{arch}'{hint}")
    try:
        with torch.device("meta"):
            model, kwargs = _create_flexible(arch)
    except RuntimeError as e:
        raise EmbedstoreError(f"timm {timm.__version__} cannot build '{arch}': {e}") from e
    config = model.pretrained_cfg
    return ModelEntry(
        arch=arch, pooling="timm", norm=(tuple(config["mean"]), tuple(config["std"])),
        dim=int(model.head_hidden_size), n_params=_count(model), kwargs=kwargs,
        licence=str(config.get("license") or ""), hub=str(config.get("hf_hub_id") or ""),
    )  # fmt: skip


def _create_flexible(arch: str) -> tuple[Any, dict[str, object]]:
    """Return the model and the arguments that let an architecture of fixed size take any patch."""
    model = timm.create_model(arch, num_classes=0)
    if not model.pretrained_cfg.get("fixed_input_size"):
        return model, {}
    try:
        return timm.create_model(arch, num_classes=0, dynamic_img_size=True), {
            "dynamic_img_size": True
        }
    except TypeError:
        return model, {}


def choose_dtype(dtype: str, device: torch.device, on_cuda: str = "float16") -> str:
    """Return dtype; for "auto" on_cuda there, bfloat16 on CPUs that compute it, else float32."""
    if dtype != "auto":
        if dtype not in DTYPES:
            raise EmbedstoreError(f"unknown dtype '{dtype}'; allowed: auto, {', '.join(DTYPES)}")
        return dtype
    if device.type == "cuda":
        return on_cuda
    return "bfloat16" if device.type == "cpu" and _cpu_has_bf16() else "float32"


def _cpu_has_bf16() -> bool:
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, p, lambda: False)()) for p in probes)


def choose_device(device: str) -> torch.device:
    """Return the torch device for "auto" (cuda where there is one, else cpu) or for its name."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as e:
        raise EmbedstoreError(f"device '{device}' cannot be used here ({e}); try cpu") from e
    return chosen


@dataclass
class Embedder:
    """A frozen model ready to embed. `name` is the key under which its embeddings are stored."""

    name: str
    entry: ModelEntry
    weights: Weights
    dtype: str
    device: torch.device
    network: Any

    def check(self, patch_px: int) -> None:
        """Raise EmbedstoreError unless the model embeds a patch of patch_px pixels here."""
        try:
            self.embed(np.full((1, patch_px, patch_px, 3), 200, dtype=np.uint8))
        except (RuntimeError, AssertionError, ValueError) as e:
            raise EmbedstoreError(
                f"{self.name} cannot embed patches of {patch_px} px on {self.device} "
                f"({str(e).splitlines()[0] if str(e) else type(e).__name__}); "
                "try another --patch-px or --device"
            ) from e

    @torch.inference_mode()
    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return embeddings, float32 (n, dim), of RGB patches, uint8 (n, height, width, 3).

        A row does not depend on the others of its batch beyond rounding. EmbedstoreError where
        a value is not finite.
        """
        if not patches.flags.writeable:
            patches = patches.copy()  # torch warns of memory that it could write to
        x = torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(v, device=self.device)[:, None, None] for v in self.entry.norm)
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, DTYPES[self.dtype], enabled=self.dtype != "float32"):
            try:
                pooled = self._pool(x)
            except torch.OutOfMemoryError as e:
                raise EmbedstoreError(
                    f"{self.name} ran out of memory with {len(patches)} patches a batch; what is "
                    "stored stays, go on with a smaller --batch-size"
                ) from e
        vectors: NDArray[np.float32] = pooled.float().cpu().numpy()
        if vectors.shape[1] != self.entry.dim:
            raise EmbedstoreError(
                f"{self.name} gave {vectors.shape[1]} numbers a patch, not {self.entry.dim}"
            )
        if not np.isfinite(vectors).all():
            raise EmbedstoreError(
                f"{self.name} gave embeddings that are not finite in {self.dtype}; "
                "try --dtype float32"
            )
        return vectors

    def _pool(self, x: torch.Tensor) -> torch.Tensor:
        if self.entry.pooling in ("gap", "timm"):
            features = self.network.forward_features(x)
            pooled: torch.Tensor = self.network.forward_head(features, pre_logits=True)
            return pooled
        tokens: torch.Tensor = self.network.forward_features(x)
        if self.entry.pooling == "cls":
            return tokens[:, 0]
        # Registers sit between the class token and the patch tokens and are not averaged.
        patch_tokens = tokens[:, self.network.num_prefix_tokens :]
        return torch.cat((tokens[:, 0], patch_tokens.mean(1)), dim=1)


def load_embedder(
    name: str, entry: ModelEntry, weights: Weights, *, dtype: str, device: torch.device
) -> Embedder:
    """Return an Embedder whose every parameter comes from `weights`.

    Random weights are seeded from `name`, so every process makes the same ones. EmbedstoreError
    where a key of the checkpoint is missing, extra or wrongly shaped, or the file is no checkpoint.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
        network = build(entry)
    if _count(network) != entry.n_params:
        raise EmbedstoreError(
            f"{name} was built with {_count(network):,} parameters, not {entry.n_params:,}; "
            f"timm {timm.__version__} builds {entry.arch} otherwise than expected"
        )
    if weights.path is None:
        weights = Weights(weights.label, None, state_sha256(network.state_dict()))
    else:
        network = _load_strictly(network, entry, weights.path)
    network.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    dtype = choose_dtype(dtype, device, entry.cuda_dtype)
    return Embedder(name, entry, weights, dtype, device, network)


def build(entry: ModelEntry, **changes: object) -> Any:
    """Return the untrained network of an entry; `changes` override its arguments."""
    kwargs = {**entry.kwargs, **changes}
    named = {k: LAYERS.get(v, v) if isinstance(v, str) else v for k, v in kwargs.items()}
    return timm.create_model(entry.arch, pretrained=False, num_classes=0, **named)


def _count(network: Any) -> int:
    return sum(p.numel() for p in network.parameters())


def _load_strictly(network: Any, entry: ModelEntry, path: Path) -> Any:
    """Return the network with the file's parameters, built anew for another grid of positions."""
    try:
        # weights_only: a pickle that would run code is refused, not run.
        state = timm.models.load_state_dict(str(path), device="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, OSError, RuntimeError, ValueError, KeyError, EOFError,
        SafetensorError, IndexError, AttributeError, TypeError,
    ) as e:  # fmt: skip
        if "weights_only" in str(e):
            why = "it is no plain checkpoint of tensors, and reading it could run code: refused"
        else:
            told = (str(e).splitlines() or [type(e).__name__])[0]
            why = f"torch cannot read it as a checkpoint ({told})"
        raise EmbedstoreError(f"{path}: {why}") from e
    wanted = network.state_dict()
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
        found = {"missing": missing, "unknown": extra, "of another shape": shapes}
        said = [f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' * (len(keys) > 3)})"
                for what, keys in found.items() if keys]  # fmt: skip
        raise EmbedstoreError(f"{path} is not a {entry.arch} checkpoint: keys {'; '.join(said)}")
    network.load_state_dict(state, strict=False)
    return network


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
        "model": embedder.name, "arch": embedder.entry.arch, "dim": embedder.entry.dim,
        "pooling": embedder.entry.pooling, "dtype": embedder.dtype,
        "n_params": embedder.entry.n_params, "weights": embedder.weights.label,
        "weights_sha256": embedder.weights.sha256, "mean": list(mean), "std": list(std),
        "timm_version": timm.__version__, "torch_version": torch.__version__,
    }  # fmt: skip
