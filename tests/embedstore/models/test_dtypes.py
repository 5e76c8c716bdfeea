"""Rows do not depend on their batch, and bfloat16 is held against float32."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedstore.models.embedder import Embedder
from embedstore.models.registry import REGISTRY
from tests.making.models import PATCHES, embedder


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "timm:test_efficientnet"])
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    model = embedder(name)
    whole = model.embed(PATCHES)
    assert whole.shape == (6, model.entry.dim)
    assert whole.dtype == np.float32
    alone = np.concatenate([model.embed(PATCHES[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(whole, alone, atol=1e-5)


def test_bfloat16_stays_close_to_float32(vits14_file: Path) -> None:
    full = embedder("dinov2-vits14", str(vits14_file)).embed(PATCHES)
    half = embedder("dinov2-vits14", str(vits14_file), dtype="bfloat16").embed(PATCHES)
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize("name", ["dinov2-vits14", "efficientnet-lite0"])
def test_trained_models_do_not_depend_on_the_batch(name: str, vits14_file: Path) -> None:
    spec = str(vits14_file) if name == "dinov2-vits14" else REGISTRY[name].default_weights
    for dtype in ("float32", "bfloat16"):
        model = embedder(name, spec, dtype=dtype)
        whole = model.embed(PATCHES)
        alone = np.concatenate([model.embed(PATCHES[i : i + 1]) for i in range(len(PATCHES))])
        mixed = model.embed(PATCHES[::-1].copy())[::-1]
        for other in (alone, mixed):
            if dtype == "float32":
                np.testing.assert_allclose(whole, other, rtol=1e-5, atol=1e-5 * np.abs(whole).max())
            cosine = (
                (whole * other).sum(1)
                / np.linalg.norm(whole, axis=1)
                / np.linalg.norm(other, axis=1)
            )
            assert cosine.min() >= 0.9999


def test_a_dtype_is_held_against_float32() -> None:
    model = embedder("timm:test_vit", dtype="bfloat16")
    model.settle_dtype(lambda: PATCHES, may_change=True)
    full = embedder("timm:test_vit", dtype="float32").embed(PATCHES)
    low = model.embed(PATCHES)
    cosine = (full * low).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(low, axis=1)
    assert model.dtype == "bfloat16"
    assert model.parity == pytest.approx(cosine.min(), abs=1e-6)
    assert model.parity is not None
    assert model.parity < 1

    def rough(far: bool) -> Embedder:
        """A network whose low precision is far off: what autocast makes of it is another vector."""
        other = embedder("timm:test_vit", dtype="bfloat16")
        off = torch.eye(64) * 8 if far else torch.full((64, 64), torch.inf)
        other.network = SimpleNamespace(
            forward_features=lambda x: (
                torch.ones(len(x), 64) + (off[: len(x)] if torch.is_autocast_enabled("cpu") else 0)
            ),
            forward_head=lambda x, pre_logits: x,
        )
        return other

    changed = rough(True)
    changed.settle_dtype(lambda: PATCHES, may_change=True)
    assert (changed.dtype, changed.parity) == ("float32", 1.0)
    kept = rough(True)
    kept.settle_dtype(lambda: PATCHES, may_change=False)  # asked for by name: measured, not changed
    assert kept.dtype == "bfloat16"
    assert kept.parity == pytest.approx((64 + 8) / np.sqrt(64 * (63 + 81)), abs=1e-6)
    broken = rough(False)
    broken.settle_dtype(lambda: PATCHES, may_change=True)
    assert (broken.dtype, broken.parity) == ("float32", 1.0)


def test_float32_asks_for_no_sample() -> None:
    model = embedder("timm:test_vit")
    model.settle_dtype(lambda: pytest.fail("a patch was read"), may_change=True)
    assert model.parity == 1.0
