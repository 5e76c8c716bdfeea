"""Whether an ingest goes at the speed of its parts, and what it costs as a store grows.

Runs alone, on a generated slide whose annotations lie in clusters and on stores of generated keys;
prints medians and ratios, --json FILE writes them. Each round times these in turn:

read_vs_naive_clustered  patches a second of one reading thread, against opening the slide anew for
                         each annotation in the order of the file.
read_vs_tile_limit       the same against decoding each tile that is touched once, with OpenSlide.
threads_ratio            patches a second of two reading threads against one.
ingest_efficiency        an ingest with a ViT-S against 1 / (1/read + 1/model): what two machines
                         that share their cores would give one after the other. From the first patch
                         to the last vector in the store; no patches kept.
kept_efficiency          the same where patches are kept for later, as by default.
k_models_ratio           three models in one command against each by itself, one after the other.
pools_ratio              four pools of one field in one command against one pool: a pool is free.
sweep_ratio              four pools of two fields against one: a field is a pass of the network.
bytes_ratio              what a model's table takes on disk after an ingest by what its vectors do.
resume_1m_seconds        an ingest with nothing missing among 10^6 annotations; of 10^4 and 10^5 as
                         well, with what it takes to write 2,048 vectors more.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openslide
from clustered import MPP, TILE_PX, Clustered, touched_tiles, write_clustered
from filled import NEGATIVE, POSITIVE, Cell, make_model, make_store, put_vectors

from embedstore.add import AddOptions, add
from embedstore.ingest import IngestOptions, ingest
from embedstore.ingest.plan import plan
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import Embedder, choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.reading import SlideJob, read_ahead, usual_threads
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.tidy import compact

VIT, NAME = "timm:vit_small_patch16_224", "d"
MODELS = ("efficientnet-lite0", VIT, "timm:resnet50")
RANDOM = {VIT: "random", "timm:resnet50": "random"}
POOLS = ("cls", "mean", "centre2", "centre4")
PATCH = PatchGeometry()
BATCH, WRITTEN, DIM = 32, 2048, 384


def main() -> None:
    """Time the parts in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--annotations", type=int, default=1000)
    parser.add_argument("--keys", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = write_clustered(Path(folder) / "data", args.annotations)
        result = {
            **measure_reading(data, Path(folder), args.rounds),
            **measure_ingest(data, Path(folder), args.rounds),
            **measure_sweep(data, Path(folder), args.rounds),
            **measure_keys(Path(folder), args.keys, args.rounds),
        }
    for name, value in result.items():
        print(f"{name:36} {value:10.3f}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def rate(n: int, work: Callable[[], object]) -> float:
    """Return n per second of one call of work."""
    started = time.perf_counter()
    work()
    return n / (time.perf_counter() - started)


def medians(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each."""
    return {k: statistics.median(v) for k, v in rates.items()}


def new_store(data: Clustered, uri: Path) -> Store:
    """Return a store that holds the annotations and nothing else."""
    add(str(uri), NAME, data.table, AddOptions(slides=data.slide.parent))
    return Store.open(str(uri), write=True)


# --- reading -------------------------------------------------------------------------------------


def measure_reading(data: Clustered, folder: Path, rounds: int) -> dict[str, float]:
    """Return patches a second by each way of reading, and medians of each round's ratios."""
    jobs, n = list(plan(new_store(data, folder / "read"), NAME, [VIT]).jobs()), len(data.centres)
    tiles = touched_tiles(data.centres, PATCH.size_px)
    some = data.centres[:200]
    rates: dict[str, list[float]] = {"naive": [], "tiles": [], "read": [], "read_2_threads": []}
    for _ in range(3 * rounds):
        rates["naive"].append(rate(len(some), lambda: naively(data, some)))
        rates["tiles"].append(rate(n, lambda: each_tile(data.slide, tiles)))
        rates["read"].append(rate(n, lambda: ahead(jobs, 1)))
        rates["read_2_threads"].append(rate(n, lambda: ahead(jobs, 2)))
    ratios = {
        "read_vs_naive_clustered": ("read", "naive"),
        "read_vs_tile_limit": ("read", "tiles"),
        "threads_ratio": ("read_2_threads", "read"),
    }
    return {
        **{f"{k}_patches_per_second": v for k, v in medians(rates).items()},
        **{
            name: statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))
            for name, (one, other) in ratios.items()
        },
    }


def naively(data: Clustered, centres: Any) -> None:
    """Open the slide anew for each annotation, as they come."""
    for x, y in centres:
        with Slide(data.slide) as slide:
            read_patch(slide, x, y, MPP, PATCH)


def each_tile(path: Path, tiles: list[tuple[int, int]]) -> None:
    """Decode each of these tiles once."""
    with openslide.OpenSlide(path) as slide:
        for i, j in tiles:
            slide.read_region((i * TILE_PX, j * TILE_PX), 0, (TILE_PX, TILE_PX))


def ahead(jobs: list[SlideJob], workers: int) -> int:
    """Read all patches as an ingest does."""
    return sum(len(read.patches) for _, read in read_ahead(jobs, [PATCH], workers))


# --- reading, embedding and writing --------------------------------------------------------------


def measure_ingest(data: Clustered, folder: Path, rounds: int) -> dict[str, float]:
    """Return patches a second of an ingest and of its parts, and medians of each round's ratios."""
    n = len(data.centres)
    jobs = list(plan(new_store(data, folder / "parts"), NAME, [VIT]).jobs())
    model = embedder()
    batch = np.random.default_rng(0).integers(0, 255, (BATCH, 224, 224, 3), dtype=np.uint8)
    rates: dict[str, list[float]] = {"model": [], "all_threads": [], "ingest": [], "kept": []}
    ratios: dict[str, list[float]] = {"ingest": [], "kept": [], "k_models": []}

    def model_alone() -> float:
        times = n // BATCH
        return rate(times * BATCH, lambda: [model.embed(batch) for _ in range(times)])

    for k in range(rounds):
        rates["all_threads"].append(rate(n, lambda: ahead(jobs, usual_threads())))
        for name, keep in (("ingest", False), ("kept", True)):
            # A machine's speed drifts: the model's is what it was before and after.
            around = [model_alone()]
            options = IngestOptions(patch_cache=keep)
            rates[name].append(n / ingested(data, folder / f"{name}{k}", [VIT], options))
            around.append(model_alone())
            rates["model"] += around
            in_turn = 1 / (1 / rates["all_threads"][-1] + 1 / statistics.mean(around))
            ratios[name].append(rates[name][-1] / in_turn)
        none_kept = IngestOptions(patch_cache=False)
        each = [ingested(data, folder / f"d{k}-{i}", [m], none_kept) for i, m in enumerate(MODELS)]
        together = ingested(data, folder / f"c{k}", MODELS, none_kept)
        ratios["k_models"].append(together / sum(each))
    return {
        **{f"{k}_patches_per_second": v for k, v in medians(rates).items()},
        "ingest_efficiency": statistics.median(ratios["ingest"]),
        "kept_efficiency": statistics.median(ratios["kept"]),
        "k_models_ratio": statistics.median(ratios["k_models"]),
    }


def embedder() -> Embedder:
    """Return the ViT-S as an ingest opens it."""
    entry = resolve(VIT)
    weights = find_weights(VIT, "random", entry.hub)
    return load_embedder(VIT, entry, weights, dtype="auto", device=choose_device("auto"))


def measure_sweep(data: Clustered, folder: Path, rounds: int) -> dict[str, float]:
    """Return medians of each round's ratios of four pools, and of two fields by four, to one."""
    pools, several = list[float](), list[float]()
    for k in range(rounds):
        one, four, eight = (
            ingested(data, folder / f"sweep{k}-{i}", [VIT], options)
            for i, options in enumerate(
                (
                    IngestOptions(pools=POOLS[:1], patch_cache=False),
                    IngestOptions(pools=POOLS, patch_cache=False),
                    IngestOptions(pools=POOLS, mpp_out=(0.25, 0.125), patch_cache=False),
                )
            )
        )
        pools.append(four / one)
        several.append(eight / one)
    return {"pools_ratio": statistics.median(pools), "sweep_ratio": statistics.median(several)}


def ingested(data: Clustered, uri: Path, models: Sequence[str], options: IngestOptions) -> float:
    """Return the seconds from the first patch to the last vector in a new store."""
    weights = {m: w for m, w in RANDOM.items() if m in models}
    options = replace(options, weights=weights, batch_size=BATCH)
    started = list[float]()
    report = ingest(
        new_store(data, uri),
        NAME,
        list(models),
        options,
        lambda *_: started.append(time.perf_counter()),
    )
    taken = time.perf_counter() - started[0]
    assert all(r.n_left == 0 for r in report.models)
    return taken


# --- what a store costs --------------------------------------------------------------------------


def measure_keys(folder: Path, sizes: list[int], rounds: int) -> dict[str, float]:
    """Return what the table of a store's only model costs as it grows."""
    result = {}
    for n in sizes:
        name = f"1e{len(str(n)) - 1}" if n != 10**6 else "1m"
        store, n_bytes = filled(folder / f"keys{n}", n)
        resume, write = list[float](), list[float]()
        for k in range(rounds):
            started = time.perf_counter()
            (report,) = ingest(store, NAME, ["resnet50-imagenet"], IngestOptions()).models
            resume.append(time.perf_counter() - started)
            assert (report.n_before, report.n_left) == (n + k * WRITTEN, 0)
            more, vectors = cells(WRITTEN, f"more{k}-"), random(WRITTEN)
            make_store(store.uri, NAME, more)
            started = time.perf_counter()
            put_vectors(store, "resnet50-imagenet", NAME, more, vectors)
            write.append(time.perf_counter() - started)
        result[f"resume_{name}_seconds"] = statistics.median(resume)
        result[f"write_2048_at_{name}_seconds"] = statistics.median(write)
        result[f"bytes_ratio_at_{name}"] = n_bytes / (n * DIM * 4)
    result["bytes_ratio"] = max(v for k, v in result.items() if k.startswith("bytes_ratio"))
    return result


def cells(n: int, prefix: str = "") -> list[Cell]:
    """Return n annotations on slides of 500 each."""
    return [
        Cell(
            f"{prefix}{k}",
            f"{prefix}{k // 500:05d}.svs",
            f"domain{k % 7}",
            (POSITIVE, NEGATIVE)[k % 2],
            float(k % 9000),
            float(k // 9000),
        )
        for k in range(n)
    ]


def random(n: int) -> Any:
    """Return n vectors."""
    return np.random.default_rng(n).standard_normal((n, DIM), dtype=np.float32)


def filled(uri: Path, n: int) -> tuple[Store, int]:
    """Return a store of n annotations that a model has all of, and its table's size on disk."""
    store = make_store(str(uri), NAME, own := cells(n))
    make_model(store, "resnet50-imagenet", DIM)
    for start in range(0, n, 8 * WRITTEN):
        part = own[start : start + 8 * WRITTEN]
        put_vectors(store, "resnet50-imagenet", NAME, part, random(len(part)))
    table = model_table("resnet50-imagenet")
    compact(store, table)
    files = (uri / f"{table}.lance").rglob("*")
    return store, sum(f.stat().st_size for f in files if f.is_file())


if __name__ == "__main__":
    main()
