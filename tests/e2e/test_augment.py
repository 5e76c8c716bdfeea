"""Augmentation: against PIL, torchvision and scipy, one kind at a time, and nothing invented."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional as oracle

from e2e import augment as a
from e2e.recipe import Recipe
from embedstore.slides.patches import PatchGeometry

SIZE = 48
WIDE = PatchGeometry(SIZE).wide().size_px
NOTHING: dict[str, Any] = {"jitter": 0.0, "hue": 0.0, "blur": 0.0, "rotate": 0.0, "flip": False}


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def crops() -> torch.Tensor:
    """Smooth and coloured, as tissue is."""
    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.normal(size=(16, WIDE, WIDE, 3)), (0, 3, 3, 0))
    return torch.from_numpy((128 + noise * 600).clip(0, 255).astype(np.uint8))


def test_nothing_asked_for_is_nothing_done(crops: torch.Tensor) -> None:
    same = a.augment(crops, SIZE, Recipe(**NOTHING), draw())
    assert torch.allclose(same, a.plain(crops, SIZE), atol=1e-5)
    margin = (WIDE - SIZE) // 2
    middle = crops[:, margin:-margin, margin:-margin].numpy() / 255
    assert np.allclose(a.plain(crops, SIZE).permute(0, 2, 3, 1), middle, atol=1e-6)


def test_flips_are_flips_and_all_four_occur(crops: torch.Tensor) -> None:
    flipped = a.augment(crops, SIZE, Recipe(**{**NOTHING, "flip": True}), draw())
    plain = a.plain(crops, SIZE)
    ways = torch.stack([plain, plain.flip(3), plain.flip(2), plain.flip((2, 3))])
    error = (ways - flipped).abs().amax((2, 3, 4))
    assert error.amin(0).max() < 1e-4
    assert set(error.argmin(0).tolist()) == {0, 1, 2, 3}


@pytest.mark.parametrize("degrees", [-90, 17, 45, 133])
def test_rotation_is_that_of_pillow(crops: torch.Tensor, degrees: Any) -> None:
    angle = math.radians(degrees)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    x = crops[:1].permute(0, 3, 1, 2).float() / 255
    turned = a.turn(x, SIZE, matrix[None])
    wide = Image.fromarray(crops[0].numpy())
    expected = np.asarray(wide.rotate(degrees, Image.Resampling.BILINEAR)) / 255
    margin = (WIDE - SIZE) // 2
    expected = expected[margin:-margin, margin:-margin]
    assert np.abs(turned[0].permute(1, 2, 0).numpy() - expected).max() < 0.02


@given(st.integers(0, 10_000))
def test_rotation_brings_in_no_empty_corner(seed: Any) -> None:
    """What depends on the distance from the middle alone is the same at any angle, also there."""
    offsets = np.arange(WIDE) - (WIDE - 1) / 2
    distance = np.hypot(*np.meshgrid(offsets, offsets))
    ring = np.repeat((distance * 5)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    crop = torch.from_numpy(ring)[None]
    turned = a.augment(crop, SIZE, Recipe(**{**NOTHING, "rotate": 180.0}), draw(seed))
    assert (turned - a.plain(crop, SIZE)).abs().max() < 2.5 / 255 * 5


@pytest.mark.parametrize(
    ("column", "adjust"),
    [
        (0, oracle.adjust_brightness),
        (1, oracle.adjust_contrast),
        (2, oracle.adjust_saturation),
    ],
)
def test_colours_are_those_of_torchvision(crops: torch.Tensor, column: int, adjust: Any) -> None:
    x = a.plain(crops, SIZE)
    for factor in (0.7, 1.3):
        colours = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(x), 1)
        colours[:, column] = factor
        expected = torch.stack([adjust(image, factor) for image in x])
        assert (a.recolour(x, colours) - expected).abs().max() < 2e-3


def test_hue_turns_colours_and_keeps_greys_and_luma() -> None:
    x = torch.rand(4, 3, 8, 8, generator=draw()) * 0.3 + 0.35  # far from being clipped
    grey = torch.tensor(a.GREY)
    for turn in (0.4, -1.0):
        colours = torch.tensor([1.0, 1.0, 1.0, turn]).repeat(4, 1)
        y = a.recolour(x, colours)
        assert (y - x).abs().max() > 0.02
        luma = [torch.einsum("c,nchw->nhw", grey, v) for v in (x, y)]
        assert torch.allclose(luma[0], luma[1], atol=1e-3)
        back = a.recolour(y, colours * torch.tensor([1, 1, 1, -1]))
        assert torch.allclose(back, x, atol=1e-3)
        same = torch.full((4, 3, 8, 8), 0.5)
        assert torch.allclose(a.recolour(same, colours), same, atol=1e-3)


def test_blur_is_a_gaussian_of_each_image_and_of_about_half_of_them(crops: torch.Tensor) -> None:
    x = a.plain(crops, SIZE)
    blurred = a.blur(x.clone(), 1.5, draw(1))
    generator = draw(1)
    chosen = torch.rand(len(x), generator=generator) < 0.5
    sigmas = (torch.rand(len(x), generator=generator) * 1.4 + 0.1).tolist()
    assert 3 < chosen.sum() < 13
    for k in range(len(x)):
        # The kernel reaches 3 of the largest sigma, so it is cut nowhere that matters.
        expected = gaussian_filter(
            x[k].numpy(), (0, sigmas[k], sigmas[k]), mode="mirror", radius=(0, 5, 5)
        )
        assert np.abs(blurred[k].numpy() - (expected if chosen[k] else x[k].numpy())).max() < 1e-4


@given(st.integers(0, 2**40))
def test_white_stays_white_when_blurred(seed: int) -> None:
    white = a.blur(torch.ones(8, 3, SIZE, SIZE), 1.5, draw(seed))
    assert white.max() <= 1
    assert white.min() > 1 - 1e-6


@given(seed=st.integers(0, 2**40), n=st.integers(1, 5))
def test_augmented_patches_are_pixels_and_repeat(seed: Any, n: Any) -> None:
    crops = torch.randint(0, 256, (n, WIDE, WIDE, 3), dtype=torch.uint8, generator=draw(seed))
    x = a.augment(crops, SIZE, Recipe(), draw(seed))
    assert x.shape == (n, 3, SIZE, SIZE)
    assert x.dtype == torch.float32
    assert x.min() >= 0
    assert x.max() <= 1
    assert torch.equal(x, a.augment(crops, SIZE, Recipe(), draw(seed)))
    assert not torch.equal(x, a.augment(crops, SIZE, Recipe(), draw(seed + 1)))
