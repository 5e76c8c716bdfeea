"""Shared fixtures: generated slides and datasets, the real data beside the checkout, the commands."""

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from hypothesis import settings

if TYPE_CHECKING:
    from embedstore.store import Store

os.environ["HF_HUB_OFFLINE"] = "1"
# The networks of most tests are tiny, and threads would mostly wait for each other. Processes that
# tests start take what threads they like.
os.environ["OMP_NUM_THREADS"] = "1"

# Tests say what is right, not how fast a busy machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real slides and annotations."""
    if not (SHARED / "data").is_dir():
        pytest.skip("the real slides are not beside this checkout (../shared/data)")
    return SHARED / "data"


@pytest.fixture(scope="session")
def vits14_file() -> Path:
    """A real checkpoint: DINOv2 ViT-S/14, fp16 safetensors."""
    file = SHARED / "weights" / "vit_small_patch14_dinov2.safetensors"
    if not file.is_file():
        pytest.skip("the real checkpoint is not beside this checkout (../shared/weights)")
    return file


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


def write_csv(path: Path, rows: Sequence[dict]) -> Path:
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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyDataset:
    """Two domains, four slides, 48 annotations."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    def json(self) -> list[dict]:
        """The rows it printed."""
        assert self.code == 0, self.err
        return json.loads(self.out)


def outside() -> dict[str, str]:
    """The environment of a process of its own: with what threads it likes, as for a user."""
    return {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}


def run_command(*words: object, env: dict[str, str] | None = None) -> Ran:
    """Run a console script of this environment as a real process."""
    command = [str(BIN / str(words[0])), *map(str, words[1:])]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**outside(), **(env or {})}
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def call_command(*words: object, env: dict[str, str] | None = None) -> Ran:
    """Call what a console script calls, in this process: no start of Python, no imports.

    `test_a_call_shows_what_a_process_shows` holds that both are one.
    """
    import cli

    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    code: object = 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", list(map(str, words)))
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        try:
            getattr(cli, str(words[0]))()
        except SystemExit as e:
            code = e.code or 0
    assert isinstance(code, int)
    return Ran(code, *(f.buffer.getvalue().decode() for f in (out, err)))


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory, tiny: TinyDataset) -> str:
    """A store with the tiny dataset and two models of different widths. Read it, do not write."""
    from embedstore.add import AddOptions, add
    from embedstore.ingest import IngestOptions, ingest
    from embedstore.store import Store

    uri = str(tmp_path_factory.mktemp("embedded") / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    models = ["timm:test_resnet", "timm:test_vit"]
    ingest(Store.open(uri), "tiny", models, IngestOptions(weights=dict.fromkeys(models, "random")))
    return uri


def bare_store(uri: str, dataset: str, cells: Sequence[dict]) -> "Store":
    """A store in which these cells (slide, source_id and what else is said) are a dataset."""
    from embedstore.store import Store

    store = Store.open(uri, create=True)
    store.merge("datasets", [{"dataset": dataset, "positive_label": "mitotic figure"}])
    slides = dict.fromkeys(c["slide"] for c in cells)
    store.merge(
        "slides",
        [
            {
                "slide_id": f"{dataset}/{s}",
                "dataset": dataset,
                "slide": s,
                "case_id": s,
                "status": "missing",
                "width": 10_000,
                "height": 10_000,
            }
            for s in slides
        ],
    )
    store.merge(
        "annotations",
        [
            {
                "annotation_id": f"{dataset}/{c['slide']}/{c['source_id']}",
                "dataset": dataset,
                "case_id": c["slide"],
                "domain": "a",
                "label": ("mitotic figure", "other")[n % 2],
                "x_l0": 100.0 + n,
                "y_l0": 200.0,
                **c,
            }
            for n, c in enumerate(cells)
        ],
    )
    return store


def put_embeddings(store: "Store", model: str, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Write float32 vectors (n, dim) of annotations straight into a model's table, and a record."""
    import pyarrow as pa

    from embedstore.store.sql import connect_to, fetch_rows
    from embedstore.store.store import model_schema, model_table, now

    dim = vectors.shape[1]
    known = {
        r["annotation_id"]: r
        for r in fetch_rows(connect_to(store, "annotations"), "from _annotations")
    }
    rows = [
        {**known[i], "model": model, "vector": v.tolist()}
        for i, v in zip(ids, vectors, strict=True)
    ]
    store.make_model_table(model, dim)
    store.merge(
        "models",
        [
            {
                "model": model,
                "arch": "a",
                "dim": dim,
                "pooling": "token",
                "dtype": "float16",
                "patch_px": 224,
                "mpp_out": 0.25,
                "n_params": 7,
                "weights": "w@1",
                "weights_sha256": "ab",
                "created_at": now(),
                "mean": [0.1, 0.2, 0.3],
                "std": [0.7, 0.8, 0.9],
            }
        ],
        replace=False,
    )
    store.merge(model_table(model), pa.Table.from_pylist(rows, schema=model_schema(dim)))
