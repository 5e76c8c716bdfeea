"""Augmentation of whole batches on the device: turned, flipped, restained, recoloured, blurred.

All draws come from a generator on the CPU, so that a batch is the same on any device. torchvision's
v2 is no substitute: it draws once for a whole batch, and from torch's global generator.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional

from e2e.recipe import BLUR_SHARE, Recipe
from embedstore.slides.patches import D4

GREY = (0.299, 0.587, 0.114)
"""Luma of RGB, ITU-R BT.601."""


def plain(crops: torch.Tensor, size_px: int) -> torch.Tensor:
    """Return the patches in the middle of crops, uint8 (n, wide, wide, 3), as they are.

    float32 (n, 3, size_px, size_px), values 0 to 1.
    """
    margin = (crops.shape[1] - size_px) // 2
    middle = crops[:, margin : margin + size_px, margin : margin + size_px]
    return middle.permute(0, 3, 1, 2).float().div_(255)


def augment(
    crops: torch.Tensor, size_px: int, recipe: Recipe, generator: torch.Generator
) -> torch.Tensor:
    """Return one random version of each crop, uint8 (n, wide, wide, 3).

    float32 (n, 3, size_px, size_px), values 0 to 1. Turning takes its corners from the crop.
    """
    n = crops.shape[0]
    x = crops.permute(0, 3, 1, 2).float().div_(255)
    x = turn(x, size_px, _draw_placements(n, recipe, generator).to(x.device))
    if recipe.hed:
        x = restain(x, *(v.to(x.device) for v in _draw_stains(n, recipe.hed, generator)))
    x = recolour(x, _draw_colours(n, recipe, generator).to(x.device))
    return blur(x, recipe.blur, generator)


def _uniform(n: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _draw_placements(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Return (n, 2, 2): where offsets from a patch's middle lie in its crop."""
    limit = math.radians(recipe.rotate)
    angle = _uniform(n, -limit, limit, generator)
    flips = torch.randint(0, 2, (2, n), generator=generator) * 2 - 1
    across, down = flips if recipe.flip else torch.ones(2, n)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = (
        torch.stack((across * cos, -down * sin), -1),
        torch.stack((across * sin, down * cos), -1),
    )
    return torch.stack(rows, dim=1)


def turn(x: torch.Tensor, size_px: int, placements: torch.Tensor) -> torch.Tensor:
    """Return the middles (n, 3, size_px, size_px) of images, each placed by its matrix (2, 2)."""
    scaled = placements * (size_px / x.shape[-1])
    theta = torch.cat((scaled, torch.zeros_like(scaled[:, :, :1])), dim=2)
    grid = functional.affine_grid(theta, [len(x), 3, size_px, size_px], align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


HED = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density in R, G, B of haematoxylin, eosin and DAB (Ruifrok and Johnston 2001)."""
_DARKEST = 1e-6
"""What black is taken for; densities are in units of its own, as scikit-image has them."""


def _draw_stains(
    n: int, limit: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (n, 3) factors of the stains, about 1, and (n, 3) shifts, about 0."""
    factors = _uniform(3 * n, 1 - limit, 1 + limit, generator).reshape(n, 3)
    return factors, _uniform(3 * n, -limit, limit, generator).reshape(n, 3)


def restain(x: torch.Tensor, factors: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Return images (n, 3, height, width) with more or less of each stain (Tellez et al. 2018).

    factors and shifts (n, 3) are of haematoxylin, eosin and the rest. Linear in optical density, so
    together they are one matrix an image.
    """
    scale = math.log(_DARKEST)
    to_rgb = torch.tensor(HED, device=x.device)
    to_hed = torch.linalg.inv(to_rgb)
    density = x.flatten(2).clamp_min(_DARKEST).log() / scale  # (n, 3, pixels)
    stains = (to_hed.T @ density) * factors[:, :, None] + shifts[:, :, None]
    restained: torch.Tensor = ((to_rgb.T @ stains) * scale).exp().clamp_(0, 1)
    return restained.reshape(x.shape)


def mix(
    x: torch.Tensor, shares: torch.Tensor, alpha: float, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch mixed with itself in another order, and its shares (n, K): MixUp.

    One part of the mixture a batch, drawn from Beta(alpha, alpha) (Zhang et al. 2018).
    """
    part = float(rng.beta(alpha, alpha))
    other = torch.from_numpy(rng.permutation(len(x))).to(x.device)
    return torch.lerp(x[other], x, part), torch.lerp(shares[other], shares, part)


def eight(x: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield a batch (n, 3, size, size) in the eight symmetries of a square, itself first."""
    for is_mirrored, quarters in D4.values():
        yield torch.rot90(x.flip(3) if is_mirrored else x, quarters, (2, 3))


def _draw_colours(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Return (n, 4): brightness, contrast, saturation (factors) and hue (radians)."""
    factors = [_uniform(n, 1 - recipe.jitter, 1 + recipe.jitter, generator) for _ in range(3)]
    limit = 2 * math.pi * recipe.hue
    return torch.stack((*factors, _uniform(n, -limit, limit, generator)), dim=1)


def recolour(x: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Return x with hue, saturation, contrast and brightness changed, in this order.

    Each is linear in RGB, so together they are one matrix an image; contrast is about the image's
    mean grey.
    """
    brightness, contrast, saturation, hue = colours.T[:, :, None, None]
    grey = torch.tensor(GREY, device=x.device)
    matrix = _hue_matrix(hue, grey)
    matrix = saturation * matrix + (1 - saturation) * (grey @ matrix)[:, None, :]
    middle = (grey @ matrix * x.mean((2, 3))).sum(1)[:, None, None]  # mean grey after that
    offset = brightness * (1 - contrast) * middle
    mixed = torch.baddbmm(offset.expand(-1, 3, 1), brightness * contrast * matrix, x.flatten(2))
    return mixed.clamp_(0, 1).reshape(x.shape)


def _hue_matrix(hue: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """Return (n, 3, 3) turning colours by hue (n, 1, 1) about the grey axis, luma kept.

    In the basis YIQ, whose chroma plane hue turns (ITU-R BT.601 / NTSC).
    """
    to_yiq = torch.stack(
        (
            grey,
            torch.tensor((0.596, -0.274, -0.322), device=grey.device),
            torch.tensor((0.211, -0.523, 0.312), device=grey.device),
        )
    )
    zero, one, cos, sin = (
        torch.zeros_like(hue),
        torch.ones_like(hue),
        torch.cos(hue),
        torch.sin(hue),
    )
    rows = ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))
    rotation = torch.cat([torch.cat(r, dim=2) for r in rows], dim=1)
    matrix: torch.Tensor = torch.linalg.inv(to_yiq) @ rotation @ to_yiq
    return matrix


def blur(x: torch.Tensor, largest_sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Return x with a share of its images blurred, each by a sigma of its own, in pixels."""
    chosen = torch.rand(len(x), generator=generator) < BLUR_SHARE
    sigma = _uniform(len(x), 0.1, max(largest_sigma, 0.1), generator)[chosen]
    if largest_sigma <= 0.1 or not chosen.any():
        return x
    radius = math.ceil(3 * largest_sigma)
    offsets = torch.arange(-radius, radius + 1)
    kernels = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(3, dim=0)
    kernels, rows = kernels.to(x.device)[:, None, None, :], chosen.to(x.device)
    images = x[rows].flatten(0, 1)[None]
    n = images.shape[1]
    for pad, weight in (
        ((radius, radius, 0, 0), kernels),
        ((0, 0, radius, radius), kernels.transpose(2, 3)),
    ):
        padded = functional.pad(images, pad, mode="reflect")
        images = functional.conv2d(padded, weight, groups=n)
    # A kernel's sum is 1 but for rounding, which white would show.
    x[rows] = images[0].reshape(-1, *x.shape[1:]).clamp_(0, 1)
    return x
