"""Models that were added from public code: each loads what its makers' own code would save."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer

from embedstore.models.checkpoints import find_weights
from embedstore.models.corpora import CORPORA, collections, may_have_seen
from embedstore.models.loading import build, load_embedder
from embedstore.models.pins import PINS
from embedstore.models.registry import REGISTRY, ModelEntry
from tests.making.models import CPU, PATCHES


def loaded(entry: ModelEntry, path: Path) -> Any:
    weights = find_weights("x", str(path), "")
    return load_embedder("x", entry, weights, dtype="float32", device=CPU)


def normalised(entry: ModelEntry) -> torch.Tensor:
    mean, std = (np.array(v) for v in entry.norm)
    pixels = (PATCHES[:2] / 255.0 - mean) / std
    return torch.tensor(pixels, dtype=torch.float32).permute(0, 3, 1, 2)


def test_gigapath_flash_is_the_vit_of_its_makers_code(tmp_path: Path) -> None:
    """The arguments stated in the makers' tile encoder, passed to timm's class directly."""
    torch.manual_seed(1)
    theirs = VisionTransformer(
        img_size=224,
        patch_size=16,
        embed_dim=384,
        depth=12,
        num_heads=6,
        mlp_ratio=2048 / 384,
        mlp_layer=SwiGLUPacked,
        act_layer=torch.nn.SiLU,
        init_values=1e-5,
        num_classes=0,
        global_pool="token",
    ).eval()
    assert theirs.blocks[0].mlp.fc1.out_features == 2048
    torch.save({"model": theirs.state_dict()}, tmp_path / "pytorch_model.bin")
    entry = REGISTRY["gigapath-flash"]
    ours = loaded(entry, tmp_path / "pytorch_model.bin")
    with torch.inference_mode():
        expected = theirs(normalised(entry)).numpy()
    np.testing.assert_allclose(ours.embed(PATCHES[:2]), expected, atol=1e-4)


def test_a_teacher_whose_blocks_lie_in_chunks(tmp_path: Path) -> None:
    """OpenPath's layout: teacher, backbone., blocks.CHUNK.N, DINOv2's names, a head beside."""
    kwargs = {
        "img_size": 56,
        "patch_size": 14,
        "embed_dim": 48,
        "depth": 4,
        "num_heads": 4,
        "mlp_ratio": 4.0,
        "mlp_layer": "SwiGLUPacked",
        "act_layer": "SiLU",
        "init_values": 1.0,
        "reg_tokens": 4,
        "no_embed_class": True,
        "global_pool": "",
        "dynamic_img_size": True,
    }
    entry = replace(REGISTRY["openpath"], arch="vit_tiny_patch16_224", kwargs=kwargs, dim=48)
    network = build(entry)
    entry = replace(entry, n_params=sum(p.numel() for p in network.parameters()))
    state = {k: torch.randn_like(v) * 0.1 for k, v in network.state_dict().items()}
    saved = dict(state)
    place = torch.randn(1, 1, 48) * 0.1
    saved["cls_token"] = saved["cls_token"] - place
    saved["pos_embed"] = torch.cat((place, saved["pos_embed"]), dim=1)
    saved["register_tokens"] = saved.pop("reg_token")
    saved["mask_token"] = torch.zeros(1, 48)
    for key in [k for k in saved if k.startswith("blocks.")]:
        n, rest = key.removeprefix("blocks.").split(".", 1)
        rest = rest.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        saved[f"blocks.{int(n) // 2}.{n}.{rest}"] = saved.pop(key)
    backbone = {f"backbone.{k}": v for k, v in saved.items()}
    head = {"dino_head.mlp.0.weight": torch.zeros(3, 3)}
    torch.save({"teacher": backbone | head, "iteration": 3}, tmp_path / "teacher_checkpoint.pth")
    found = loaded(entry, tmp_path / "teacher_checkpoint.pth").network.state_dict()
    assert found.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "arch", "prefix"),
    [
        ("sp22m", "vit_small_patch16_224", "encoder."),
        ("sp85m", "vit_base_patch16_224", "encoder."),
        ("stainnet-s", "vit_small_patch16_224", ""),
        ("distillpath-ks16", "vit_small_patch16_224", ""),
    ],
)
def test_a_plain_vit_of_timm(name: str, arch: str, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    theirs = timm.create_model(arch, num_classes=0).eval()
    state = {f"{prefix}{k}": v for k, v in theirs.state_dict().items()}
    torch.save(state, tmp_path / "w.bin")
    entry = REGISTRY[name]
    with torch.inference_mode():
        expected = theirs(normalised(entry)).numpy()
    np.testing.assert_allclose(
        loaded(entry, tmp_path / "w.bin").embed(PATCHES[:2]), expected, atol=1e-4
    )


def test_a_class_token_of_length_one() -> None:
    plain = REGISTRY["dinov2-vits14"]
    unit = replace(plain, pooling="cls-l2")
    weights = find_weights("x", "random", "")
    both = [
        load_embedder("x", e, weights, dtype="float32", device=CPU).embed(PATCHES[:3])
        for e in (plain, unit)
    ]
    length = np.linalg.norm(both[0], axis=1, keepdims=True)
    assert (length > 2).all()
    np.testing.assert_allclose(both[1], both[0] / length, atol=1e-6)


def test_what_is_pinned_is_in_the_registry_with_whole_digests() -> None:
    for name, pin in PINS.items():
        entry = REGISTRY[name]
        assert len(pin.revision) == 40
        assert pin.sha256 is None or len(pin.sha256) == 64
        assert (pin.file is None) == (pin.sha256 is None)
        assert entry.default_weights == "hub"
        assert entry.hub_file in (None, pin.file)
    shas = [p.sha256 for p in PINS.values() if p.sha256]
    assert len(set(shas)) == len(shas) >= 24


def test_collections_are_known_by_the_names_of_their_slides() -> None:
    slides = [
        "TCGA-CR-7395-01A-01-TS1.svs",
        "folder/tcga-3c-aalj-01z-00-dx1.777c0957.svs",
        "C3L-00001-21.svs",
        "GTEX-1117F-0126.svs",
        "tumor_001.tif",
        "patient_004_node_2.tif",
        "0005f7aaab2800f6170c399693a96917.tiff",
        "001.tiff",
        "TCGAish.svs",
        "my-tumor_001.tif",
    ]
    assert collections(slides) == {"TCGA": 2, "CPTAC": 1, "GTEx": 1, "CAMELYON": 2, "PANDA": 1}
    assert may_have_seen("phikon", slides) == {"TCGA": 2}
    assert may_have_seen("phikon-v2@0.125/centre2", slides) == {"TCGA": 2, "CPTAC": 1, "GTEx": 1}
    assert may_have_seen("gigapath", slides) == may_have_seen("timm:resnet50", slides) == {}
    known = {c for e in REGISTRY.values() for c in e.corpora}
    assert known - set(CORPORA) == {"ACROBAT", "SurGen", "HISTAI"}
