"""Checkpoints in other layouts than timm's: their keys renamed, one function a layout."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any


def anchors(layout: str | None, wanted: Collection[str]) -> Collection[str]:
    """Return keys by which a network is known in a file of `layout`; `wanted` are timm's keys."""
    return wanted if layout is None else _ANCHORS[layout]


def remap_keys(
    layout: str | None, state: Mapping[str, Any], wanted: Iterable[str]
) -> dict[str, Any]:
    """Return `state` with the keys of `layout` renamed to timm's; `wanted` are the model's keys."""
    if layout is None:
        return dict(state)
    if layout == "efficientnet-pytorch":
        return _remap_efficientnet(state, wanted)
    return {"huggingface-vit": _remap_huggingface_vit, "dinov2": _remap_dinov2}[layout](state)


_HF_TOP = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.register_tokens": "reg_token",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_PATCHES = ("patch_embed.proj.weight", "patch_embed.proj.bias")
_ANCHORS: dict[str, Collection[str]] = {
    "huggingface-vit": _HF_TOP,
    "dinov2": ("cls_token", "pos_embed", "norm.weight", "norm.bias", *_PATCHES),
    "efficientnet-pytorch": ("_conv_stem.weight", "_bn0.weight", "_conv_head.weight"),
}
_HF_BLOCK = {
    "attention.output.dense": "attn.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "intermediate.dense": "mlp.fc1",
    "mlp.fc1": "mlp.fc1",
    "mlp.weights_in": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "mlp.fc2": "mlp.fc2",
    "mlp.weights_out": "mlp.fc2",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_HF_UNUSED = ("pooler.", "embeddings.mask_token", "classifier.")


def _remap_huggingface_vit(state: Mapping[str, Any]) -> dict[str, Any]:
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


def _remap_dinov2(state: Mapping[str, Any]) -> dict[str, Any]:
    """Rename the keys of DINOv2's own files, whose blocks may lie in chunks."""
    renamed = {_CHUNK.sub("blocks.", key): value for key, value in state.items()}
    renamed.pop("mask_token", None)
    if "register_tokens" in renamed:
        renamed["reg_token"] = renamed.pop("register_tokens")
        _free_class_token_of_its_position(renamed)
    for key in [k for k in renamed if ".mlp.w12." in k or ".mlp.w3." in k]:
        name = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        renamed[name] = renamed.pop(key)
    return renamed


_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")


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
    stem = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    separable = {
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn1",
        "_project_conv": "conv_pw",
        "_bn2": "bn2",
    }
    inverted = {
        "_expand_conv": "conv_pw",
        "_bn0": "bn1",
        "_depthwise_conv": "conv_dw",
        "_bn1": "bn2",
        "_project_conv": "conv_pwl",
        "_bn2": "bn3",
    }
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
