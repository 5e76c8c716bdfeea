"""How much of the model's own speed an ingest keeps, and what the store costs.

Runs alone: generates a small demonstration dataset, then times in turn, over several rounds,
(a) the model on patches that lie in memory, (b) reading patches alone, (c) the embedding loop, that
reads and embeds, (d) the whole ingest into a fresh store. Prints medians and ratios; --json FILE
writes them. On a machine of few cores reading and embedding share them, so (c) is held against what
(a) and (b) one after the other would give as well.
"""

import argparse
import functools
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from embedstore.add import AddOptions, add
from embedstore.demo.dataset import DemoDataset, write_demo
from embedstore.embed import Embedded, Look, embed_slides
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import Embedder, choose_device
from embedstore.models.loading import load_embedder
from embedstore.models.pools import OWN
from embedstore.models.registry import REGISTRY
from embedstore.slides.patches import PLAIN, PatchGeometry
from embedstore.slides.reading import Point, SlideJob
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows

MODEL = "efficientnet-lite0"


def rate(n: int, work: Callable[[], object]) -> float:
    """Return n per second of one call of work."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


def main() -> None:
    """Time the parts in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), args.rounds)
    for name, value in result.items():
        print(f"{name:32} {value:10.2f}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def jobs_of(store: Store) -> list[SlideJob]:
    """Return the reading of all annotations of the dataset, slide by slide."""
    rows = fetch_rows(
        connect(store),
        "select annotation_id, slide, x_l0, y_l0, path, s.mpp from annotations a join slides s "
        "using (dataset, slide) where a.status = 'ok' order by slide",
    )
    jobs = []
    for slide, members in itertools.groupby(rows, key=lambda r: r["slide"]):
        own = list(members)
        points = [Point(r["annotation_id"], r["x_l0"], r["y_l0"], {MODEL: [PLAIN]}) for r in own]
        jobs.append(SlideJob(slide, own[0]["path"], own[0]["mpp"], points))
    return jobs


def read(jobs: Sequence[SlideJob]) -> None:
    """Read every patch in one thread."""
    for job in jobs:
        assert job.mpp is not None
        with Slide(job.path) as slide:
            for p in job.points:
                read_patch(slide, p.x_l0, p.y_l0, job.mpp, PatchGeometry())


def loop(jobs: Sequence[SlideJob], model: Embedder) -> None:
    """Read and embed every patch."""
    events = embed_slides(
        jobs, [Look(model, PatchGeometry(), {model.name: OWN})], batch_size=32, workers=2
    )
    n_embedded = sum(len(e.points) for e in events if isinstance(e, Embedded))
    assert n_embedded == sum(len(job.points) for job in jobs)


def whole(demo: DemoDataset, uri: str) -> None:
    """Add and ingest the dataset into a new store."""
    add(uri, "demo", demo.midog_json, AddOptions(slides=demo.slides))
    ingest(Store.open(uri), "demo", [MODEL], IngestOptions())


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Return medians (patches a second) and ratios of one run."""
    demo = write_demo(folder / "demo", n_slides_per_domain=2)
    source = str(folder / "source")
    add(source, "demo", demo.midog_json, AddOptions(slides=demo.slides))
    jobs = jobs_of(Store.open(source))
    entry = REGISTRY[MODEL]
    weights = find_weights(MODEL, entry.default_weights, entry.hub)
    model = load_embedder(MODEL, entry, weights, dtype="auto", device=choose_device("auto"))
    batch = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    n = sum(len(job.points) for job in jobs)
    model.embed(batch)
    rates: dict[str, list[float]] = {"model": [], "read": [], "loop": [], "ingest": []}
    for k in range(rounds):
        rates["model"].append(rate(32 * 20, lambda: [model.embed(batch) for _ in range(20)]))
        rates["read"].append(rate(n, lambda: read(jobs)))
        rates["loop"].append(rate(n, lambda: loop(jobs, model)))
        rates["ingest"].append(rate(n, functools.partial(whole, demo, str(folder / f"store{k}"))))
    median = {k: statistics.median(v) for k, v in rates.items()}
    in_turn = 1 / (1 / median["model"] + 1 / median["read"])
    return {
        **{f"{k}_patches_per_second": v for k, v in median.items()},
        "loop_to_model": median["loop"] / median["model"],
        "loop_to_model_and_read_in_turn": median["loop"] / in_turn,
        "ingest_to_loop": median["ingest"] / median["loop"],
    }


if __name__ == "__main__":
    main()
