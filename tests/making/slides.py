"""Slides and datasets that tests draw."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

if TYPE_CHECKING:
    pass


def write_slide(
    path: Path, pixels: np.ndarray, mpp: float | None = 0.25, levels: int = 1, tile: int = 256
) -> Path:
    """Write a tiled, uncompressed TIFF that OpenSlide opens; pixels uint8 (height, width, 3)."""
    with tifffile.TiffWriter(path) as tif:
        for level in range(levels):
            step = 2**level
            resolution = (
                {}
                if mpp is None
                else {"resolution": (1e4 / (mpp * step),) * 2, "resolutionunit": "CENTIMETER"}
            )
            tif.write(
                pixels[::step, ::step],
                tile=(tile, tile),
                photometric="rgb",
                metadata=None,
                subfiletype=int(level > 0),
                **resolution,
            )
    return path


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows under the names of the first one's columns."""
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@dataclass(frozen=True)
class TinyDataset:
    """Generated slides with annotations in a CSV file; rows as written."""

    slides: Path
    csv: Path
    rows: list[dict[str, str]]


def make_tiny(
    folder: Path, *, per_label: int = 6, domains: Sequence[str] = ("a", "b")
) -> TinyDataset:
    """Write two slides a domain with noise, dark discs at mitotic figures and rings elsewhere."""
    rng = np.random.default_rng(5)
    slides = folder / "slides"
    slides.mkdir(parents=True)
    rows = []
    for domain in domains:
        for n in range(2):
            name = f"{domain}{n}.tiff"
            pixels = rng.integers(150, 250, (700, 900, 3), dtype=np.uint8)
            for k in range(2 * per_label):
                x, y = int(rng.integers(60, 840)), int(rng.integers(60, 640))
                label = ("mitotic figure", "non-mitotic figure")[k % 2]
                pixels[y - 9 : y + 9, x - 9 : x + 9] = 30 if k % 2 == 0 else 120
                rows.append(
                    {
                        "slide": name,
                        "x": f"{x}.5",
                        "y": f"{y}",
                        "label": label,
                        "domain": domain,
                        "case": f"case-{domain}",
                    }
                )
            write_slide(slides / name, pixels)
    return TinyDataset(slides, write_csv(folder / "tiny.csv", rows), rows)
