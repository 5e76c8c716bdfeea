"""A slide whose annotations lie in clusters, as mitoses do, for benchmarks of reading."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.demo.files import write_pyramid

SIDE, MPP, TILE_PX = 6144, 0.25, 256
N_CLUSTERS, SPREAD_PX = 20, 150.0


@dataclass(frozen=True)
class Clustered:
    """A slide, the centres (n, 2) of its annotations in level-0 pixels, and their table."""

    slide: Path
    table: Path
    centres: NDArray[np.float64]


def write_clustered(folder: Path, n: int, *, seed: int = 0) -> Clustered:
    """Write a slide, tiled JPEG with texture at several scales, and n annotations in file order."""
    rng = np.random.default_rng(seed)
    slides = folder / "slides"
    slides.mkdir(parents=True)
    slide = slides / "clustered.tiff"
    write_pyramid(slide, _texture(rng), MPP)
    middles = rng.uniform(400, SIDE - 400, (N_CLUSTERS, 2))
    centres = middles[rng.integers(N_CLUSTERS, size=n)] + rng.normal(0, SPREAD_PX, (n, 2))
    centres = np.clip(np.round(centres, 1), 10, SIDE - 10)
    lines = [
        f"{slide.name},{x},{y},{('mitotic figure', 'non-mitotic figure')[k % 2]}"
        for k, (x, y) in enumerate(centres)
    ]
    table = folder / "annotations.csv"
    table.write_text("\n".join(["slide,x,y,label", *lines]) + "\n")
    return Clustered(slide, table, centres)


def touched_tiles(centres: NDArray[np.float64], size_px: int) -> list[tuple[int, int]]:
    """Return the tiles (column, row) of level 0 that patches around these centres touch."""
    tiles = set()
    for x, y in centres:
        left, top = (max(int(v - size_px / 2), 0) // TILE_PX for v in (x, y))
        right, bottom = (min(int(v + size_px / 2), SIDE - 1) // TILE_PX for v in (x, y))
        tiles |= {(i, j) for i in range(left, right + 1) for j in range(top, bottom + 1)}
    return sorted(tiles)


def _texture(rng: np.random.Generator) -> NDArray[np.uint8]:
    grey = np.zeros((SIDE, SIDE), np.float32)
    for scale, strength in ((64, 40), (16, 25), (4, 20)):
        noise = rng.normal(size=(SIDE // scale, SIDE // scale)).astype(np.float32)
        large = Image.fromarray(noise).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grey += strength * np.asarray(large)
    channels = [np.clip(base + k * grey, 0, 255) for base, k in ((200, 0.5), (140, 1), (190, 0.6))]
    return np.stack(channels, axis=-1).astype(np.uint8)
