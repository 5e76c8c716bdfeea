"""Draw generated H&E-like tissue with mitotic figures and look-alikes, in pure numpy and Pillow.

Nothing here is real tissue. Two maps of stain amount (hematoxylin, eosin) are painted in level-0
pixels and turned into colour by Beer-Lambert's law with the stain vectors of a domain. Shapes are
sized in micrometres, so one drawing recipe gives the right pixels at any mpp.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from embedstore.demo.domains import StainDomain
from embedstore.demo.stamps import (
    FIGURES,
    LOOK_ALIKES,
    Array,
    fill,
    ordinary_nucleus,
    smooth_noise,
    stamp_of,
)

_FIELD_MPP = 0.5  # um/px of the grid on which background texture is computed before resizing
_CLEARANCE_UM = 9.5  # ordinary nuclei keep this far from an annotated cell


@dataclass(frozen=True)
class CellSpec:
    """One annotated cell to draw: its centre in level-0 pixels and whether it looks mitotic."""

    x_l0: float
    y_l0: float
    looks_mitotic: bool


# --- annotated cells: each returns hematoxylin (h, w) for its stamp, and may tint the cytoplasm ---


def _paste(canvas: Array, stamp: Array, x: float, y: float, cover: Array | None = None) -> None:
    """Add the stamp centred on x, y, or blend it in where cover is 1; clip at the edges."""
    n = stamp.shape[0] // 2
    x0, y0 = int(np.floor(x)) - n, int(np.floor(y)) - n
    h, w = canvas.shape
    ya, yb, xa, xb = max(y0, 0), min(y0 + 2 * n + 1, h), max(x0, 0), min(x0 + 2 * n + 1, w)
    if ya >= yb or xa >= xb:
        return
    inside = slice(ya - y0, yb - y0), slice(xa - x0, xb - x0)
    if cover is None:
        canvas[ya:yb, xa:xb] += stamp[inside]
    else:
        canvas[ya:yb, xa:xb] += cover[inside] * (stamp[inside] - canvas[ya:yb, xa:xb])


def _paint_cell(
    rng: np.random.Generator, domain: StainDomain, stain: tuple[Array, Array], cell: CellSpec
) -> None:
    s = stamp_of(13.0, domain.mpp)
    kinds, weights = (
        (FIGURES, domain.figures) if cell.looks_mitotic else (LOOK_ALIKES, domain.look_alikes)
    )
    share = np.asarray(weights) / np.sum(weights)
    chromatin = kinds[int(rng.choice(len(kinds), p=share))](rng, s)
    grain = (1 + 0.10 * s.noise(rng, 0.7)).clip(0.6, 1.3)
    density = domain.nuclear_od * rng.normal(1.0 if cell.looks_mitotic else 0.93, 0.14)
    # a dividing cell tends to round up and clear its cytoplasm, a dying one to shrink and redden;
    # only tendencies, and of different strength in each domain
    radius = rng.normal(9.2, 1.0) if cell.looks_mitotic else rng.normal(6.3, 1.0)
    tint = domain.clearing if cell.looks_mitotic else domain.reddening
    eosin = 0.42 * np.exp(rng.normal(tint, 0.28)) * (1 + 0.12 * s.noise(rng, 1.5))
    cover = 0.85 * fill(s.blob(rng, (radius, radius * rng.uniform(0.8, 1)), ragged=0.02), 0.5)
    _paste(stain[1], eosin, cell.x_l0, cell.y_l0, cover)
    _paste(stain[0], np.float32(density) * chromatin * grain, cell.x_l0, cell.y_l0)


def _background(
    rng: np.random.Generator,
    size_px: tuple[int, int],
    domain: StainDomain,
    cells: list[CellSpec],
    nuclei_um: Array,
) -> tuple[Array, Array, Array]:
    """Eosin amount, stroma share and open-gap share, each (h, w) float32 at level 0."""
    mpp = domain.mpp
    w, h = (max(8, round(n * mpp / _FIELD_MPP)) for n in size_px)

    def noise(down_um: float, across_um: float | None = None) -> Array:
        across = down_um if across_um is None else across_um
        return smooth_noise(rng, (h, w), (down_um / _FIELD_MPP, across / _FIELD_MPP))

    yy, xx = np.mgrid[0:h, 0:w].astype(np.float32) * np.float32(_FIELD_MPP)
    warped = np.stack([xx + 1.2 * noise(5), yy + 1.2 * noise(5)], axis=-1)
    centres_um = _centres_um(cells, mpp)
    seeds = np.concatenate([nuclei_um, centres_um])
    near = cKDTree(seeds).query(warped.reshape(-1, 2), k=2)[0].astype(np.float32)
    border = np.exp(-(((near[:, 1] - near[:, 0]) / 1.1) ** 2)).reshape(h, w)
    # figures tend to lie in nests of tumour cells, look-alikes in stroma
    lean = rng.normal(0, 1, len(cells)) - np.array([1 if c.looks_mitotic else -1 for c in cells])
    nearest = cKDTree(centres_um).query(warped.reshape(-1, 2))[1].reshape(h, w)
    lean_map = gaussian_filter(lean.astype(np.float32)[nearest], 5 / _FIELD_MPP)
    stroma = 1 / (1 + np.exp(-(2.5 * noise(70) - 4 + domain.context * lean_map)))
    gaps = 1 / (1 + np.exp(-(9 * (noise(14) * 0.75 + 0.35 * noise(40) + 0.3 * stroma) - 15)))
    # fibres: long thin noise, looked up along wavy rows
    rows = np.clip(np.arange(h)[:, None] + 22 * noise(50), 0, h - 1).astype(np.intp)
    fibres = noise(1.4, 26)[rows, np.arange(w)[None, :]]
    cytoplasm = 0.42 + 0.07 * noise(9) + 0.05 * noise(2) + 0.05 * noise(0.9)
    cytoplasm += np.float32(rng.uniform(-0.12, 0.14)) * border
    eosin = (1 - stroma) * cytoplasm + stroma * (0.48 + 0.16 * fibres)
    eosin = (eosin * (1 - 0.93 * gaps)).clip(0.02, None)

    def enlarge(field: NDArray[np.floating]) -> Array:
        image = Image.fromarray(np.asarray(field, np.float32))
        return np.asarray(image.resize(size_px, Image.Resampling.BICUBIC), np.float32)

    return enlarge(eosin).copy(), enlarge(stroma), enlarge(gaps)


def _centres_um(cells: list[CellSpec], mpp: float) -> Array:
    return np.array([(c.x_l0 * mpp, c.y_l0 * mpp) for c in cells], np.float32).reshape(-1, 2)


def _nuclei_positions(
    rng: np.random.Generator, size_px: tuple[int, int], mpp: float, cells: list[CellSpec]
) -> Array:
    """Centres (n, 2) float32 in um of ordinary nuclei: a jittered grid clear of annotated cells."""
    centres = _centres_um(cells, mpp)
    w_um, h_um = size_px[0] * mpp, size_px[1] * mpp
    pitch = rng.uniform(11.5, 13.5)
    grid = np.mgrid[0 : w_um + pitch : pitch, 0 : h_um + pitch : pitch].reshape(2, -1).T
    grid = grid + rng.uniform(-0.36, 0.36, grid.shape) * pitch
    return np.asarray(grid[cKDTree(centres).query(grid)[0] > _CLEARANCE_UM], np.float32)


def draw_slide(
    rng: np.random.Generator,
    domain: StainDomain,
    size_px: tuple[int, int],
    cells: list[CellSpec],
) -> NDArray[np.uint8]:
    """Return a picture (h, w, 3) uint8 RGB at level 0 (domain.mpp um/px) with these cells in it.

    size_px is (width, height); at least one cell is needed. What lies outside is clipped.
    """
    mpp = domain.mpp
    nuclei_um = _nuclei_positions(rng, size_px, mpp, cells)
    eosin, stroma, gaps = _background(rng, size_px, domain, cells, nuclei_um)
    blue = (0.10 + 0.03 * smooth_noise(rng, eosin.shape, (6 / mpp, 6 / mpp))) * (1 - gaps)
    blue = np.asarray(blue.clip(0, None), np.float32)
    small = stamp_of(8.0, mpp)
    # a bank with eight orientations each: drawing every nucleus anew would cost most of the time
    bank = [[ordinary_nucleus(rng, small, kind) for _ in range(40)] for kind in (False, True)]
    for x_um, y_um in nuclei_um:
        x, y = x_um / mpp, y_um / mpp
        pixel = min(max(int(y), 0), size_px[1] - 1), min(max(int(x), 0), size_px[0] - 1)
        if gaps[pixel] > 0.4 or rng.uniform() < 0.12:
            continue
        nucleus = bank[int(stroma[pixel] > 0.5)][int(rng.integers(40))]
        nucleus = np.rot90(nucleus if rng.uniform() < 0.5 else nucleus.T, int(rng.integers(4)))
        strength = np.float32(domain.nuclear_od * rng.normal(0.78, 0.12))
        _paste(blue, nucleus * strength, x, y)
    for cell in cells:
        _paint_cell(rng, domain, (blue, eosin), cell)
    return _develop(rng, domain, blue, eosin)


def _develop(
    rng: np.random.Generator, domain: StainDomain, blue: Array, eosin: Array
) -> NDArray[np.uint8]:
    """Turn stain amounts into the scanner's RGB: Beer-Lambert, blur, noise."""
    h_vec = np.asarray(domain.hematoxylin) * rng.normal(1, 0.04, 3) * rng.normal(1, 0.08)
    e_vec = np.asarray(domain.eosin) * rng.normal(1, 0.06, 3) * rng.normal(1, 0.12)
    picture = np.empty((*blue.shape, 3), np.uint8)
    for channel, white in enumerate(domain.white):
        od = blue * np.float32(h_vec[channel]) + eosin * np.float32(e_vec[channel])
        level = np.float32(white) * np.exp(-od) + np.float32(4)
        level += np.float32(domain.noise) * rng.standard_normal(level.shape, dtype=np.float32)
        picture[..., channel] = level.clip(0, 255)
    soft = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(domain.blur_um / domain.mpp))
    return np.asarray(soft)
