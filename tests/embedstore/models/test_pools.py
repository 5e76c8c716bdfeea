"""Pools against an average over a fine raster, patch by patch, for every kind of network."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import Embedder
from embedstore.models.features import pool_each
from embedstore.models.loading import load_embedder, resolve
from embedstore.models.pools import OWN, check_pool, swept
from tests.making.models import CPU, PATCHES, embedder

UM = 56.0
FINE = 80
"""Steps a token is divided into: a centre's side is a whole number of them here."""


def _by_raster(grid: NDArray[np.float32], side: float) -> NDArray[np.float64]:
    """Return the mean of (rows, columns, dim) over the central side x side tokens."""
    fine = np.repeat(np.repeat(grid.astype(np.float64), FINE, 0), FINE, 1)
    steps = round(side * FINE)
    assert abs(steps - side * FINE) < 1e-9
    assert (len(fine) - steps) % 2 == 0
    top, left = ((n - steps) // 2 for n in fine.shape[:2])
    middle: NDArray[np.float64] = fine[top : top + steps, left : left + steps].mean((0, 1))
    return middle


def _with_registers() -> Embedder:
    plain = resolve("timm:test_vit")
    kwargs = {"reg_tokens": 4, "global_pool": "", "dynamic_img_size": True}
    built = timm.create_model(plain.arch, num_classes=0, **kwargs)
    n_params = sum(p.numel() for p in built.parameters())
    entry = replace(plain, pooling="cls", kwargs=kwargs, n_params=n_params, n_prefix=5)
    return load_embedder("r", entry, Weights("random", None, None), dtype="float32", device=CPU)


KINDS: Mapping[str, int | None] = {
    "timm:test_vit": 1,
    "timm:test_vit2": None,  # one token before, a register
    "timm:test_vit3": None,
    "registers": 5,
    "dinov2-vits14": 1,
    "timm:eva02_tiny_patch14_224": 1,
    "timm:test_resnet": None,
    "timm:test_efficientnet": None,
    "timm:test_convnext": None,
    "timm:test_mambaout": None,
    "timm:swin_tiny_patch4_window7_224": None,
}
"""Networks, and where the class token lies before the patch tokens, if there is one."""


@pytest.mark.parametrize("name", KINDS)
def test_pools_are_those_of_one_patch_after_the_other(name: str) -> None:
    model = _with_registers() if name == "registers" else embedder(name)
    pools = [OWN, "mean", "centre2", "centre3", "centre:21um", "mean+centre2"]
    pools += ["cls", "cls+centre2"] * (KINDS[name] is not None)
    together = model.embed_pools(PATCHES[:2], pools, UM / 224)
    mean, std = (np.array(v) for v in model.entry.norm)
    for n, patch in enumerate(PATCHES[:2]):
        x = torch.tensor((patch / 255.0 - mean) / std, dtype=torch.float32).permute(2, 0, 1)[None]
        with torch.inference_mode():
            features = model.network.forward_features(x)
            expected = _expected(model.network, features, pools)
        for pool, found in zip(pools, together, strict=True):
            if pool != OWN:
                np.testing.assert_allclose(found[n], expected[pool], atol=1e-5, err_msg=pool)
    np.testing.assert_allclose(together[0], model.embed(PATCHES[:2]), atol=1e-5)


def _expected(network: Any, features: torch.Tensor, pools: list[str]) -> dict[str, Any]:
    if features.ndim == 4:
        grid = features[0].numpy()
        grid = grid if grid.shape[-1] == network.num_features else grid.transpose(1, 2, 0)
        assert grid.shape[-1] == network.num_features
    else:
        late = getattr(network, "fc_norm", torch.nn.Identity())
        tokens = late(features) if isinstance(network.norm, torch.nn.Identity) else features
        patch = tokens[0, network.num_prefix_tokens :].numpy()
        grid = patch.reshape(round(len(patch) ** 0.5), -1, patch.shape[-1])
    token_um = UM / grid.shape[1]
    parts = {
        "mean": grid.mean((0, 1)),
        "centre2": _by_raster(grid, 2),
        "centre3": _by_raster(grid, 3),
        "centre:21um": _by_raster(grid, 21 / token_um),
    }
    if features.ndim == 3:
        parts["cls"] = tokens[0, 0].numpy()
    named = (p for p in pools if p != OWN)
    return {p: np.concatenate([parts[part] for part in p.split("+")]) for p in named}


class _Map(torch.nn.Module):
    """A network whose last map says which place it is."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(self.n**2).reshape(1, self.n**2, self.n, self.n)


@given(st.integers(2, 24), st.integers(1, 24))
def test_a_centre_lies_in_the_middle_on_even_and_odd_grids(n: int, k: int) -> None:
    if k > n:
        return
    (weights,) = pool_each(_Map(n), "gap", torch.zeros(1), [f"centre{k}"], UM)
    grid = weights[0].reshape(n, n).double()
    assert torch.allclose(grid.sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-6)
    for turned in (grid.T, grid.flip(0), grid.flip(1)):
        assert torch.allclose(grid, turned, atol=1e-7)
    rows = torch.arange(n) + 0.5
    inside = (rows - n / 2).abs() <= k / 2 - 0.5 + 1e-9
    assert torch.allclose(grid[inside][:, inside], torch.tensor(1 / k**2).double(), atol=1e-6)
    if (n - k) % 2 == 0:
        assert (grid > 1e-9).sum() == k**2
    else:  # half of a token on each side
        assert (grid > 1e-9).sum() == (k + 1) ** 2


def test_a_cell_off_the_centre_is_not_seen_by_the_centre() -> None:
    """A network of plain averages: only what lies within the centre moves its pool."""

    class Averages(torch.nn.Module):
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.avg_pool2d(x, 14)

    paper = torch.zeros(1, 3, 224, 224)
    seen = {}
    for offset in (0, 14, 40):
        cell = paper.clone()
        cell[..., 112 - 10 + offset : 112 + 10 + offset, 112 - 10 : 112 + 10] = 1
        pools = pool_each(Averages(), "gap", cell, ["centre2", "centre4", "mean"], UM)
        seen[offset] = [float(p[0, 0]) for p in pools]
    assert seen[0][0] == pytest.approx(400 / 28**2)
    assert seen[0][2] == pytest.approx(400 / 224**2)
    assert seen[14][0] == pytest.approx(20 * 10 / 28**2)  # half of it has left
    assert seen[14][1] == pytest.approx(400 / 56**2)
    assert seen[40][:2] == [0, 0]
    assert seen[40][2] == pytest.approx(seen[0][2])


@pytest.mark.parametrize(
    ("name", "pool", "said"),
    [
        ("timm:test_resnet", "cls", "ResNet has no class token; its pools are mean"),
        ("timm:test_vit2", "cls+mean", "has no class token"),
        ("dinov2-vits14", "centre17", "beyond the patch: there are 16 x 16 tokens of 3.5 um"),
        ("dinov2-vits14", "centre:60um", "allowed: centre1 to centre16, or centre:3.5um to"),
        ("dinov2-vits14", "centre:2um", "smaller than a token"),
    ],
)
def test_what_a_network_has_not_is_told(name: str, pool: str, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said.replace("+", r"\+")):
        embedder(name).check(224, [pool], UM / 224)


@pytest.mark.parametrize("pool", ["", "avg", "centre", "centre0", "centre:0um", "centre:3", "cls+"])
def test_what_is_no_pool_is_told(pool: str) -> None:
    with pytest.raises(UsageError, match="unknown --pool"):
        check_pool(pool)


def test_pools_that_repeat_are_one_and_all_is_what_a_network_has() -> None:
    with pytest.raises(UsageError, match=r"unknown --pool 'cls\+cls'"):
        check_pool("cls+cls")
    assert swept(["own", "cls", "centre2"], "cls", has_class_token=True) == ["cls", "centre2"]
    assert swept(["all"], "gap", has_class_token=False) == ["gap", "mean", "centre2", "centre4"]
    assert len(swept(["all"], "cls", has_class_token=True)) == 6
