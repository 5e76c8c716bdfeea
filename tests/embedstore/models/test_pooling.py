"""Poolings token by token, and variations of a registry entry."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights
from embedstore.models.loading import load_embedder, resolve
from embedstore.models.registry import NO_VARIATION, REGISTRY, Variation
from tests.making.models import CPU, PATCHES


def test_cls_and_mean_leave_registers_out() -> None:
    plain = resolve("timm:test_vit")
    kwargs = {"reg_tokens": 4, "global_pool": "", "dynamic_img_size": True}
    built = timm.create_model(plain.arch, num_classes=0, **kwargs)
    n_params = sum(p.numel() for p in built.parameters())
    entry = replace(plain, pooling="cls+mean", kwargs=kwargs, dim=2 * plain.dim, n_params=n_params)
    model = load_embedder("r", entry, Weights("random", None, None), dtype="float32", device=CPU)
    # Tokens that say what they are: class 1, registers 1000, the patches 1, 2, 3, ...
    tokens = torch.full((1, 5 + 100, plain.dim), 1000.0)
    tokens[:, 0] = 1
    tokens[:, 5:] = torch.arange(1.0, 101)[:, None]
    model.network.forward_features = lambda x: tokens
    (pooled,) = model.embed(PATCHES[:1])
    assert (pooled[: plain.dim] == 1).all()
    assert (pooled[plain.dim :] == 50.5).all()


def by_tokens(name: str, pooling: str, **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings under --pooling, and the tokens of the same network by timm alone."""
    entry = resolve(name, Variation(pooling=pooling))
    weights = Weights("random", None, None)
    model = load_embedder("n", entry, weights, dtype="float32", device=CPU)
    assert model.embed(PATCHES).shape == (6, entry.dim)
    mean, std = np.array(entry.norm[0]), np.array(entry.norm[1])
    x = torch.tensor((PATCHES / 255.0 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return model.embed(PATCHES), model.network.forward_features(x).numpy()


@pytest.mark.parametrize("name", ["timm:test_vit", "dinov2-vits14"])
def test_poolings_token_by_token(name: str) -> None:
    prefix = 1
    ways: dict[str, Callable[[Any], Any]] = {
        "cls": lambda t: t[:, 0],
        "mean": lambda t: t[:, prefix:].mean(1),
        "cls+mean": lambda t: np.concatenate((t[:, 0], t[:, prefix:].mean(1)), axis=1),
    }
    for pooling, expected in ways.items():
        found, tokens = by_tokens(name, pooling)
        np.testing.assert_allclose(found, expected(tokens), atol=1e-4)


def test_a_registry_model_can_be_pooled_and_normalised_otherwise() -> None:
    varied = resolve("virchow2", Variation("cls", (0.5, 0.5, 0.5), None))
    assert (varied.dim, varied.pooling, varied.n_params) == (1280, "cls", 631_239_424)
    assert varied.norm == ((0.5, 0.5, 0.5), REGISTRY["virchow2"].norm[1])
    assert resolve("uni", Variation("cls+mean")).dim == 2048
    assert resolve("virchow2", NO_VARIATION) == REGISTRY["virchow2"]


@pytest.mark.parametrize(
    ("name", "variation", "said"),
    [
        ("uni", Variation("avg"), "unknown pooling 'avg'; allowed: cls, cls+mean, mean, timm"),
        ("resnet50-imagenet", Variation("cls"), "cannot be pooled by 'cls'; allowed: gap"),
        ("uni", Variation("timm"), "cannot be pooled by 'timm'; allowed: cls, cls"),
        ("timm:test_resnet", Variation("mean"), "global_pool|no patch token"),
        (
            "timm:test_vit2",
            Variation("cls"),
            "no class token",
        ),  # its one token before is a register
        ("timm:vit_base_patch16_siglip_224", Variation("cls"), "no class token"),
        ("uni", Variation(mean=(120.0, 110.0, 100.0)), "--mean 120,110,100 is not three numbers"),
        ("uni", Variation(std=(0.2, 0.0, 0.2)), "--std 0.2,0,0.2 is not three numbers"),
    ],
)
def test_variations_that_cannot_be_are_told(name: str, variation: Any, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said.replace("+", r"\+")):
        resolve(name, variation)
