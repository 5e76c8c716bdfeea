"""Cells by kind, painted as stamps of stain amount."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


@dataclass
class Stamp:
    """A square of stain around one cell; u, v are micrometres from its centre."""

    u: Array
    v: Array
    mpp: float

    def noise(self, rng: np.random.Generator, scale_um: float) -> Array:
        """Return smooth noise of that grain over the square."""
        return smooth_noise(rng, self.u.shape, (scale_um / self.mpp,) * 2)

    def blob(
        self,
        rng: np.random.Generator,
        radii_um: tuple[float, float],
        *,
        centre_um: tuple[float, float] = (0.0, 0.0),
        angle: float = 0.0,
        ragged: float = 0.0,
    ) -> Array:
        """Return the signed distance (um, negative inside) to a wavy, if ragged frayed, ellipse."""
        du, dv = self.u - centre_um[0], self.v - centre_um[1]
        cos, sin = np.cos(angle), np.sin(angle)
        p, q = (du * cos + dv * sin) / radii_um[0], (dv * cos - du * sin) / radii_um[1]
        theta = np.arctan2(q, p)
        edge = np.ones_like(theta)
        for order in range(2, 8):
            size = rng.normal() * (0.05 + ragged) / order
            edge += np.float32(size) * np.cos(order * theta + np.float32(rng.uniform(0, 6.28)))
        distance = (np.hypot(p, q) - edge) * np.float32(np.sqrt(radii_um[0] * radii_um[1]))
        if ragged:
            distance += np.float32(4.5 * ragged) * self.noise(rng, 0.9)
        return np.asarray(distance, np.float32)


def stamp_of(half_um: float, mpp: float) -> Stamp:
    """Return the empty square of that half width at a scale in um per pixel."""
    n = int(np.ceil(half_um / mpp))
    axis = np.arange(-n, n + 1, dtype=np.float32) * np.float32(mpp)
    u, v = np.meshgrid(axis, axis)
    return Stamp(u, v, mpp)


def fill(distance: Array, edge_um: float = 0.25) -> Array:
    """Return 1 inside (distance below 0), 0 outside, with a soft edge."""
    return np.asarray(1 / (1 + np.exp(np.clip(distance / edge_um, -30, 30))), np.float32)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], scale_px: tuple[float, float]
) -> Array:
    """Return noise of unit variance, (h, w) float32, of grain scale_px (down, across) pixels."""
    h, w = shape
    rows, cols = (int(np.ceil(n / max(s, 1.0))) + 3 for n, s in zip(shape, scale_px, strict=True))
    coarse = Image.fromarray(rng.standard_normal((rows, cols), dtype=np.float32))
    # a box of the coarse grid, so that the grain keeps its size whatever the shape
    box = (1.0, 1.0, 1.0 + w / max(scale_px[1], 1.0), 1.0 + h / max(scale_px[0], 1.0))
    fine = np.asarray(coarse.resize((w, h), Image.Resampling.BICUBIC, box=box), np.float32)
    return fine / np.float32(0.75)


def _plate(rng: np.random.Generator, s: Stamp) -> Array:
    angle = rng.uniform(0, np.pi)
    radii = (rng.uniform(4.2, 6.8), rng.uniform(1.2, 2.2))
    return fill(s.blob(rng, radii, angle=angle, ragged=rng.uniform(0.04, 0.16)))


def _clump(rng: np.random.Generator, s: Stamp) -> Array:
    r = rng.uniform(3.2, 5.2)
    d = s.blob(rng, (r, r * rng.uniform(0.65, 1.0)), angle=rng.uniform(0, 3.1), ragged=0.10)
    return fill(d + np.float32(rng.uniform(0.3, 0.9)) * s.noise(rng, 0.9), 0.3)


def _ring(rng: np.random.Generator, s: Stamp) -> Array:
    r = rng.uniform(3.8, 5.4)
    outer = s.blob(rng, (r, r * rng.uniform(0.7, 1.0)), ragged=rng.uniform(0.04, 0.12))
    hole = s.blob(rng, (r * 0.42, r * 0.3), angle=rng.uniform(0, 3.1), ragged=0.1)
    return fill(outer) * (1 - np.float32(rng.uniform(0.4, 0.9)) * fill(hole, 0.4))


def _anaphase(rng: np.random.Generator, s: Stamp) -> Array:
    angle, gap = rng.uniform(0, np.pi), rng.uniform(2.0, 3.8)
    out = np.zeros_like(s.u)
    for side in (-1.0, 1.0):
        centre = (-np.sin(angle) * gap * side, np.cos(angle) * gap * side)
        radii = (rng.uniform(2.8, 4.4), rng.uniform(0.9, 1.6))
        tilt = angle + rng.normal() * 0.15
        d = s.blob(rng, radii, centre_um=centre, angle=tilt, ragged=rng.uniform(0.03, 0.13))
        out = np.maximum(out, fill(d))
    return out


def _pyknotic(rng: np.random.Generator, s: Stamp) -> Array:
    r = rng.uniform(1.9, 3.6)
    d = s.blob(rng, (r, r * rng.uniform(0.75, 1.0)), angle=rng.uniform(0, 3.1), ragged=0.01)
    return fill(d, 0.2)


def _fragments(rng: np.random.Generator, s: Stamp) -> Array:
    out = np.zeros_like(s.u)
    for _ in range(rng.integers(2, 6)):
        r, centre = rng.uniform(0.6, 1.9), rng.normal(size=2) * 1.9
        out = np.maximum(out, fill(s.blob(rng, (r, r), centre_um=(centre[0], centre[1])), 0.2))
    return out


def _hyperchromatic(rng: np.random.Generator, s: Stamp) -> Array:
    r = rng.uniform(2.8, 4.4)
    d = s.blob(rng, (r, r * rng.uniform(0.6, 0.95)), angle=rng.uniform(0, 3.1), ragged=0.015)
    grain = np.asarray((0.74 + 0.12 * s.noise(rng, 1.1)).clip(0.4, 1), np.float32)
    return fill(d, 0.35) * grain


def _elongated(rng: np.random.Generator, s: Stamp) -> Array:
    radii = (rng.uniform(3.6, 6.2), rng.uniform(1.1, 2.1))
    d = s.blob(rng, radii, angle=rng.uniform(0, np.pi), ragged=rng.uniform(0.0, 0.03))
    return fill(d, 0.3) * np.float32(rng.uniform(0.8, 1.0))


def _smudge(rng: np.random.Generator, s: Stamp) -> Array:
    r = rng.uniform(2.2, 3.8)
    d = s.blob(rng, (r, r * rng.uniform(0.5, 0.9)), angle=rng.uniform(0, 3.1), ragged=0.06)
    return fill(d + np.float32(0.3) * s.noise(rng, 1.6), rng.uniform(0.5, 0.9))


Painter = Callable[[np.random.Generator, Stamp], Array]


FIGURES: tuple[Painter, ...] = (_plate, _clump, _ring, _anaphase)


LOOK_ALIKES: tuple[Painter, ...] = (_pyknotic, _fragments, _hyperchromatic, _elongated, _smudge)


def ordinary_nucleus(rng: np.random.Generator, s: Stamp, stroma: bool) -> Array:
    """Return the stain of a nucleus at rest: spindly in stroma, else round."""
    if stroma:
        radii = (rng.uniform(4.0, 6.5), rng.uniform(1.1, 1.9))
        return fill(s.blob(rng, radii, angle=rng.uniform(0, 3.1), ragged=0.01), 0.35) * np.float32(
            rng.uniform(0.35, 0.6)
        )
    r = rng.normal(4.3, 0.6)
    d = s.blob(rng, (r, r * rng.uniform(0.68, 1.0)), angle=rng.uniform(0, 3.1), ragged=0.006)
    # vesicular: pale inside, grained chromatin, a darker membrane, one or two nucleoli
    body = fill(d, 0.3) * (rng.uniform(0.16, 0.36) + 0.10 * s.noise(rng, 0.8)).clip(0.05, 0.8)
    out = body + 0.22 * np.exp(-(((d + 0.3) / 0.4) ** 2))
    for _ in range(rng.integers(0, 3)):
        centre, size = rng.normal(size=2) * 1.2, rng.uniform(0.4, 0.8)
        out += 0.35 * fill(s.blob(rng, (size, size), centre_um=(centre[0], centre[1])), 0.2)
    return np.asarray(out, np.float32)
