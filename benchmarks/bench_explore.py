"""What `explore` takes: a page of many cells with their patches, by its parts, and per 100,000.

Runs alone: fills a store with kept patches of drawn tissue, each a row of its own, and vectors of
768 numbers. Parts: map (vectors read, two principal components), pictures (thumbnails of kept
patches by processes; beside one process), whole (the page written). Floor: the same kept bytes read
and unpacked alone, in one process. Prints seconds, per 100,000 cells too, and ratios; --json FILE
writes them; --quick is a small smoke version.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filled import FINGERPRINT, MPP, NEGATIVE, POSITIVE, Cell, make_model, make_store, put_vectors

from embedstore.demo.dataset import write_demo
from embedstore.reading import thumbnails as pictures
from embedstore.reading.explore import ExploreOptions, explore
from embedstore.reading.projection import principal_components
from embedstore.reading.vectors import vectors_of
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.regions import read_each
from embedstore.slides.slide import Slide
from embedstore.store import Store, now
from embedstore.store.layout import CUT, PATCHES, TABLES
from embedstore.store.patch_cache import decode, encode

DIM, N_CROPS, BATCH = 768, 64, 2_000


def crops(folder: Path) -> list[bytes]:
    """Return crops of drawn tissue as the store keeps them."""
    slides = write_demo(folder, n_slides_per_domain=1, n_annotations_per_slide=8).slides
    geometry = PatchGeometry().wide()
    with Slide(next(iter(sorted(slides.glob("*.tiff"))))) as slide:
        rng = np.random.default_rng(1)
        places = [(float(x), float(y), [geometry]) for x, y in rng.uniform(300, 900, (N_CROPS, 2))]
        return [encode(read[geometry]) for _, read in read_each(slide, places, MPP)]


def fill(uri: str, n: int, packed: list[bytes]) -> Store:
    """Return a store with n cells of a model, the patch of each kept."""
    cells = [
        Cell(str(k), f"{k % 200}.tiff", f"d{k % 4}", (POSITIVE, NEGATIVE)[k % 2], float(k), 1.0)
        for k in range(n)
    ]
    store = make_store(uri, "d", cells)
    make_model(store, "m", DIM)
    rng = np.random.default_rng(0)
    side = PatchGeometry().wide().size_px
    for start in range(0, n, BATCH):
        some = cells[start : start + BATCH]
        put_vectors(store, "m", "d", some, rng.standard_normal((len(some), DIM), dtype=np.float32))
        rows = [
            {
                "patch_id": f"d/{c.slide}/{c.source_id}@{MPP!r}",
                "annotation_id": f"d/{c.slide}/{c.source_id}",
                "dataset": "d",
                "slide": c.slide,
                **dict(zip(CUT, (c.x_l0, c.y_l0, MPP, FINGERPRINT), strict=True)),
                "size_px": side,
                "mpp_out": MPP,
                "n_bytes": len(packed[k % len(packed)]),
                "created_at": now(),
                "pixels": packed[k % len(packed)],
            }
            for k, c in enumerate(some, start=start)
        ]
        store.merge(PATCHES, pa.Table.from_pylist(rows, schema=TABLES[PATCHES]))
    return store


def timed(work: Any) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def unpack(store: Store, n: int) -> None:
    """Read and unpack n kept crops, and do nothing with them."""
    done = 0
    for batch in store.lance(PATCHES).scanner(columns=["size_px", "pixels"]).to_batches():
        for size, pixels in zip(batch["size_px"].to_pylist(), batch["pixels"], strict=True):
            decode(pixels.as_buffer(), size, PatchGeometry().size_px)
            done += 1
            if done == n:
                return


def measure(store: Store, n: int, folder: Path) -> dict[str, float]:
    """Return the seconds of each part, per 100,000 cells, and ratios to the floor."""
    rows = vectors_of(store, "m", "d", None, "annotation_id")[1]
    ids = rows["annotation_id"].to_pylist()
    some = ids[: max(1, n // 8)]
    found = {
        "map": timed(
            lambda: principal_components(vectors_of(store, "m", "d", None, "label, domain")[0])
        ),
        "floor": timed(lambda: unpack(store, len(some))) * n / len(some),
        "pictures, one process": timed(
            lambda: [
                pictures.thumbnails(store, "d", some[k : k + 1_000])
                for k in range(0, len(some), 1_000)
            ]
        )
        * n
        / len(some),
        "pictures": timed(lambda: pictures.thumbnails(store, "d", ids)),
        "whole": timed(lambda: explore(store, ExploreOptions("m", "d"), folder)),
    }
    per = {f"{name}, per 100,000": v * 1e5 / n for name, v in found.items()}
    ratios = {
        "pictures / floor": found["pictures"] / found["floor"],
        "one process / pictures": found["pictures, one process"] / found["pictures"],
    }
    size = (folder / "data" / "dataset.parquet").stat().st_size
    return {"n": n, "cores": os.cpu_count() or 1, **found, **per, **ratios, "MB": size / 1e6}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("-n", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    n = 2_500 if asked.quick else asked.n
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = fill(str(folder / "store"), n, crops(folder / "demo"))
        found = measure(store, n, folder / "map")
    for key, value in found.items():
        print(f"{key:34} {value:.3f}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
