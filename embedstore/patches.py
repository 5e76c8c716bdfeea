"""From a point on a slide to a patch: which level, which region, which resampling.

Frames: (x_l0, y_l0) are continuous level-0 coordinates; pixel i spans [i, i + 1).
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class PatchGeometry:
    """The square every patch covers: size_px pixels at mpp_out micrometres per pixel."""

    size_px: int = 224
    mpp_out: float = 0.25

    def width_l0(self, mpp: float) -> float:
        """Return the patch's width in level-0 pixels of a slide with `mpp` um/px."""
        return self.size_px * self.mpp_out / mpp


class Readable(Protocol):
    """What `read_patch` needs of a slide."""

    downsamples: tuple[float, ...]

    def read_region(self, x_l0: int, y_l0: int, level: int, width: int, height: int) -> Image.Image:
        """Return an RGB region, white beyond the slide."""
        ...


def pick_level(downsamples: tuple[float, ...], scale: float) -> int:
    """Return the coarsest level still at least as fine as `scale` level-0 pixels per pixel."""
    # 1% slack: a level of 2.0005 serves a wanted 2.
    fine = [i for i, d in enumerate(downsamples) if d <= scale * 1.01]
    return max(fine, key=lambda i: downsamples[i], default=0)


def read_patch(
    slide: Readable, x_l0: float, y_l0: float, mpp: float, geometry: PatchGeometry
) -> NDArray[np.uint8]:
    """Return the patch centred on (x_l0, y_l0), uint8 of shape (size_px, size_px, 3), RGB.

    mpp is the slide's, in micrometres per level-0 pixel. Where the source already has the wanted
    scale, pixels are taken as they are; else bicubic resampling with an anti-aliasing support.
    """
    size = geometry.size_px
    scale = geometry.mpp_out / mpp
    level = pick_level(slide.downsamples, scale)
    down = slide.downsamples[level]
    zoom = scale / down  # source pixels (of `level`) per patch pixel
    left, top = x_l0 / down - size * zoom / 2, y_l0 / down - size * zoom / 2
    if abs(zoom - 1) < 1e-3:
        # Half pixels always go the same way, unlike with Python's round.
        corner = (round(math.floor(left + 0.5) * down), round(math.floor(top + 0.5) * down))
        return np.asarray(slide.read_region(*corner, level, size, size), dtype=np.uint8)
    # The bicubic filter reaches 2 source pixels, or 2 patch pixels where it shrinks: keep them.
    margin = math.ceil(2 * max(zoom, 1)) + 1
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    span = math.ceil(size * zoom) + 2 * margin + 1
    region = slide.read_region(round(x0 * down), round(y0 * down), level, span, span)
    box = (left - x0, top - y0, left - x0 + size * zoom, top - y0 + size * zoom)
    patch = region.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.asarray(patch, dtype=np.uint8)
