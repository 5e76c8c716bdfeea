"""From points on a slide to patches: which level, which regions, which resampling.

Frames: (x_l0, y_l0) are continuous level-0 coordinates; pixel i spans [i, i + 1).
"""

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.slides.patches import PatchGeometry


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
    """Return the patches of several geometries around one centre, each as `read_patch` does."""
    ((_, patches),) = read_each(slide, [(x_l0, y_l0, geometries)], mpp)
    return patches


Wanted = tuple[float, float, Collection[PatchGeometry]]
"""A centre (x_l0, y_l0) and the squares that are wanted around it, one at least."""


def read_each(
    slide: Readable, wanted: Sequence[Wanted], mpp: float
) -> Iterator[tuple[int, dict[PatchGeometry, NDArray[np.uint8]]]]:
    """Yield the place of each centre in `wanted` and its patches, as soon as these are read.

    Those of one level that overlap are cut from one region: OpenSlide takes as long to draw a
    region as it is large, so what neighbours share is drawn once. The pixels are the same to the
    last bit.
    """
    regions, alone = dict[int, list[_Region]](), list[_Region]()
    for n, (x_l0, y_l0, geometries) in enumerate(wanted):
        for geometry in dict.fromkeys(geometries):
            cut = _cut(slide.downsamples, x_l0, y_l0, mpp, geometry)
            region = _Region(cut.x, cut.y, cut.x + cut.side, cut.y + cut.side, [(n, cut)])
            # Between whole pixels of level 0 a region is not the part of a larger one.
            if slide.downsamples[cut.level] % 1:
                alone.append(region)
            else:
                _join(regions.setdefault(cut.level, []), region)
    n_left = [len(set(geometries)) for _, _, geometries in wanted]
    read: list[dict[PatchGeometry, NDArray[np.uint8]]] = [{} for _ in wanted]
    for region in (*(r for of_level in regions.values() for r in of_level), *alone):
        for n, geometry, patch in region.read(slide):
            read[n][geometry] = patch
            n_left[n] -= 1
            if not n_left[n]:
                yield n, read[n]


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

    def patch(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.box is None:
            return pixels
        size = (self.geometry.size_px, self.geometry.size_px)
        square = Image.fromarray(pixels)
        resampled = square.resize(size, Image.Resampling.BICUBIC, box=self.box)
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


@dataclass
class _Region:
    """A rectangle of a level's pixels, and what is cut from it, each with the place it is of."""

    left: int
    top: int
    right: int
    bottom: int
    cuts: list[tuple[int, _Cut]] = field(default_factory=list)

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)

    def with_(self, other: "_Region") -> "_Region":
        return _Region(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
            self.cuts + other.cuts,
        )

    def read(self, slide: Readable) -> Iterator[tuple[int, PatchGeometry, NDArray[np.uint8]]]:
        level = self.cuts[0][1].level
        down = slide.downsamples[level]
        width, height = self.right - self.left, self.bottom - self.top
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        for left, top, right, bottom in self.parts():
            x0, y0 = round((self.left + left) * down), round((self.top + top) * down)
            drawn = slide.read_region(x0, y0, level, right - left, bottom - top)
            pixels[top:bottom, left:right] = np.asarray(drawn)
        for n, cut in self.cuts:
            x, y = cut.x - self.left, cut.y - self.top
            part = pixels[y : y + cut.side, x : x + cut.side]
            yield n, cut.geometry, cut.patch(part)

    def parts(self) -> list[tuple[int, int, int, int]]:
        """Return rectangles (left, top, right, bottom), from its corner on, that hold all cuts.

        They do not overlap, and leave out most of what no cut needs.
        """
        width, height = self.right - self.left, self.bottom - self.top
        if len(self.cuts) == 1:
            return [(0, 0, width, height)]
        needed = np.zeros((-(-height // _STEP), -(-width // _STEP)), dtype=bool)
        for _, cut in self.cuts:
            x, y = cut.x - self.left, cut.y - self.top
            rows = slice(y // _STEP, -(-(y + cut.side) // _STEP))
            needed[rows, x // _STEP : -(-(x + cut.side) // _STEP)] = True
        # Rows of the same runs of columns are one rectangle a run.
        changes = np.flatnonzero((needed[1:] != needed[:-1]).any(axis=1)) + 1
        parts = []
        for top, bottom in itertools.pairwise([0, *changes.tolist(), len(needed)]):
            edges = np.flatnonzero(np.diff(needed[top], prepend=False, append=False))
            for left, right in edges.reshape(-1, 2).tolist():
                ends = min(right * _STEP, width), min(bottom * _STEP, height)
                parts.append((left * _STEP, top * _STEP, *ends))
        return parts


_STEP = 32
"""Pixels by which a region is divided to see which of it is needed."""


def _join(regions: list[_Region], region: _Region) -> None:
    """Add a region to those of its level: one with any where that is no more to read than two."""
    k = 0
    while k < len(regions):
        joined = regions[k].with_(region)
        if joined.area <= regions[k].area + region.area:
            del regions[k]
            region, k = joined, 0
        else:
            k += 1
    regions.append(region)
