"""From a point on a slide to a patch: which level, which region, which resampling.

Frames: (x_l0, y_l0) are continuous level-0 coordinates; pixel i spans [i, i + 1).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.slides.placement import JITTER, shift_um


@dataclass(frozen=True)
class PatchGeometry:
    """The square every patch covers: size_px pixels at mpp_out micrometres per pixel."""

    size_px: int = 224
    mpp_out: float = 0.25

    def wide(self) -> "PatchGeometry":
        """Return the square around the patch that holds it turned by any angle.

        It is wider by a whole number of pixels on each side, so that its middle is the patch.
        """
        margin = math.ceil(self.size_px * (math.sqrt(2) - 1) / 2) + 1
        return PatchGeometry(self.size_px + 2 * margin, self.mpp_out)


def centre(crop: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return the middle of a square crop (wide, wide, 3), uint8 (size_px, size_px, 3), as a view.

    wide - size_px is even.
    """
    margin = (crop.shape[0] - size_px) // 2
    return crop[margin : margin + size_px, margin : margin + size_px]


PLAIN = ""
"""The view of a patch as it lies on the slide, which the model's own table holds."""

D4: dict[str, tuple[bool, int]] = {
    "r0": (False, 0),
    "r90": (False, 1),
    "r180": (False, 2),
    "r270": (False, 3),
    "m0": (True, 0),
    "m90": (True, 1),
    "m180": (True, 2),
    "m270": (True, 3),
}
"""The eight symmetries of a square: whether mirrored left to right, then turned counter-clockwise
by how many quarters. r0 is the patch itself."""

SAME = next(iter(D4))
"""The view that is the patch itself."""

VIEW_SETS: dict[str, tuple[str, ...]] = {"d4": tuple(D4), "jitter": JITTER}
"""What --views takes: the views of each set."""


def is_own_row(view: str, wanted: Collection[str]) -> bool:
    """Return whether what is embedded as this view stands for the patch itself.

    A patch that is wanted both by itself and as a view is embedded once, as SAME.
    """
    return view == PLAIN or (view == SAME and PLAIN in wanted)


def embedded_views(wanted: Sequence[str]) -> list[str]:
    """Return the views to embed for what is wanted of a patch: PLAIN only where SAME is not."""
    return [v for v in wanted if v != PLAIN or SAME not in wanted]


def view_of(
    crop: NDArray[np.uint8], view: str, annotation_id: str, geometry: PatchGeometry
) -> NDArray[np.uint8]:
    """Return a view of a patch, uint8 (size_px, size_px, 3), from a crop around it.

    A view that is shifted needs a crop as wide as `geometry.wide()`.
    """
    size = geometry.size_px
    if view not in JITTER:
        return turn(centre(crop, size), view)
    dx, dy = (round(um / geometry.mpp_out) for um in shift_um(annotation_id, view))
    margin = (crop.shape[0] - size) // 2
    return crop[margin + dy : margin + dy + size, margin + dx : margin + dx + size]


def turn(patch: NDArray[np.uint8], view: str) -> NDArray[np.uint8]:
    """Return a view of a patch (size, size, 3): PLAIN or a key of D4."""
    if view == PLAIN:
        return patch
    mirrored, quarters = D4[view]
    return np.rot90(patch[:, ::-1] if mirrored else patch, quarters)


def fit_patch(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """Return a pre-cropped patch as uint8 (size_px, size_px, 3).

    An image of another size is resized (bicubic, anti-aliased), one that is no square is cut to its
    centred square before.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size != (size_px, size_px):
        box = (left, top, left + side, top + side)
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.uint8)


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
    return read_patches(slide, x_l0, y_l0, mpp, [geometry])[geometry]


def read_patches(
    slide: Readable, x_l0: float, y_l0: float, mpp: float, geometries: Collection[PatchGeometry]
) -> dict[PatchGeometry, NDArray[np.uint8]]:
    """Return the patches of several geometries around one centre, each as `read_patch` does.

    Those of one level are cut from one region, read once; the pixels are the same to the last bit.
    """
    by_level: dict[int, list[_Cut]] = {}
    for geometry in dict.fromkeys(geometries):
        cut = _cut(slide.downsamples, x_l0, y_l0, mpp, geometry)
        # Between whole pixels of level 0 a region is not the part of a larger one.
        level = cut.level if slide.downsamples[cut.level] % 1 == 0 else -1 - len(by_level)
        by_level.setdefault(level, []).append(cut)
    patches = {}
    for cuts in by_level.values():
        left, top = min(c.x for c in cuts), min(c.y for c in cuts)
        right, bottom = max(c.x + c.side for c in cuts), max(c.y + c.side for c in cuts)
        level = cuts[0].level
        x0, y0 = (round(v * slide.downsamples[level]) for v in (left, top))
        region = slide.read_region(x0, y0, level, right - left, bottom - top)
        for cut in cuts:
            x, y = cut.x - left, cut.y - top
            part = region if len(cuts) == 1 else region.crop((x, y, x + cut.side, y + cut.side))
            patches[cut.geometry] = cut.patch(part)
    return patches


@dataclass(frozen=True)
class _Cut:
    """What is read for a patch: a square of a level's pixels from (x, y), and what is made of it.

    box: the part (left, top, right, bottom) that is resampled to the patch; None: taken as it is.
    """

    geometry: PatchGeometry
    level: int
    x: int
    y: int
    side: int
    box: tuple[float, float, float, float] | None

    def patch(self, region: Image.Image) -> NDArray[np.uint8]:
        if self.box is None:
            return np.asarray(region, dtype=np.uint8)
        size = (self.geometry.size_px, self.geometry.size_px)
        resampled = region.resize(size, Image.Resampling.BICUBIC, box=self.box)
        return np.asarray(resampled, dtype=np.uint8)


def _cut(
    downsamples: tuple[float, ...], x_l0: float, y_l0: float, mpp: float, geometry: PatchGeometry
) -> _Cut:
    size = geometry.size_px
    scale = geometry.mpp_out / mpp
    level = pick_level(downsamples, scale)
    down = downsamples[level]
    zoom = scale / down  # source pixels (of `level`) per patch pixel
    x, y = x_l0 / down, y_l0 / down
    if abs(zoom - 1) < 1e-3:
        # Half pixels always go the same way, unlike with Python's round.
        x0, y0 = (math.floor(centre - size * zoom / 2 + 0.5) for centre in (x, y))
        return _Cut(geometry, level, x0, y0, size, None)
    # Pillow keeps a box in float32. Steps of 1/4096 pixel are exact there, so that the middle of a
    # wider patch is the patch to the last bit; they move an edge by 0.02 source pixels at most.
    x, y, zoom = (round(v * 4096) / 4096 for v in (x, y, zoom))
    left, top = x - size * zoom / 2, y - size * zoom / 2
    # The bicubic filter reaches 2 source pixels, or 2 patch pixels where it shrinks: keep them.
    margin = math.ceil(2 * max(zoom, 1)) + 1
    x0, y0 = math.floor(left) - margin, math.floor(top) - margin
    span = math.ceil(size * zoom) + 2 * margin + 1
    box = (left - x0, top - y0, left - x0 + size * zoom, top - y0 + size * zoom)
    return _Cut(geometry, level, x0, y0, span, box)
