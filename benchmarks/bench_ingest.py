"""How much of the model's own speed an ingest keeps, and what the store costs.

Runs alone: generates a small demonstration dataset, then times in turn, over several rounds,
(a) the model on patches that lie in memory, (b) reading patches alone, (c) the embedding loop, that
reads and embeds, (d) the whole ingest into a fresh store. Prints medians and ratios; --json FILE
writes them. On a machine of few cores reading and embedding share them, so (c) is held against what
(a) and (b) one after the other would give as well.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from embedstore.add import AddOptions, add
from embedstore.demo.dataset import write_demo
from embedstore.embed import Embedded, embed_slides
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder
from embedstore.models.registry import REGISTRY
from embedstore.slides.patches import PLAIN, PatchGeometry, read_patch
from embedstore.slides.reading import Point, SlideJob
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


def measure(folder: Path, rounds: int) -> dict[str, float]:
    """Return medians (patches a second) and ratios of one run."""
    demo = write_demo(folder / "demo", n_slides_per_domain=2)
    source = str(folder / "source")
    add(source, "demo", demo.midog_json, AddOptions(slides=demo.slides))
    rows = fetch_rows(
        connect(Store.open(source)),
        "select annotation_id, slide, x_l0, y_l0, path, s.mpp from annotations a join slides s "
        "using (dataset, slide) where a.status = 'ok' order by slide",
    )
    jobs = []
    for slide in dict.fromkeys(r["slide"] for r in rows):
        mine = [r for r in rows if r["slide"] == slide]
        points = [Point(r["annotation_id"], r["x_l0"], r["y_l0"], {MODEL: [PLAIN]}) for r in mine]
        jobs.append(SlideJob(slide, mine[0]["path"], mine[0]["mpp"], points))
    entry = REGISTRY[MODEL]
    weights = find_weights(MODEL, entry.default_weights, entry.hub)
    model = load_embedder(MODEL, entry, weights, dtype="auto", device=choose_device("auto"))
    batch = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    n = len(rows)

    def read() -> None:
        for job in jobs:
            assert job.mpp is not None
            with Slide(job.path) as slide:
                for p in job.points:
                    read_patch(slide, p.x_l0, p.y_l0, job.mpp, PatchGeometry())

    def loop() -> None:
        events = embed_slides(jobs, [model], PatchGeometry(), batch_size=32, workers=2)
        assert sum(len(e.annotation_ids) for e in events if isinstance(e, Embedded)) == n

    def whole(k: int) -> None:
        uri = str(folder / f"store{k}")
        add(uri, "demo", demo.midog_json, AddOptions(slides=demo.slides))
        ingest(Store.open(uri), "demo", [MODEL], IngestOptions())

    model.embed(batch)
    seen: dict[str, list[float]] = {"model": [], "read": [], "loop": [], "ingest": []}
    for k in range(rounds):
        seen["model"].append(rate(32 * 20, lambda: [model.embed(batch) for _ in range(20)]))
        seen["read"].append(rate(n, read))
        seen["loop"].append(rate(n, loop))
        seen["ingest"].append(rate(n, partial(whole, k)))
    median = {k: statistics.median(v) for k, v in seen.items()}
    in_turn = 1 / (1 / median["model"] + 1 / median["read"])
    return {
        **{f"{k}_patches_per_second": v for k, v in median.items()},
        "loop_to_model": median["loop"] / median["model"],
        "loop_to_model_and_read_in_turn": median["loop"] / in_turn,
        "ingest_to_loop": median["ingest"] / median["loop"],
    }


if __name__ == "__main__":
    main()
