"""What a sweep of pools and fields of view costs beside one of them.

Runs alone: generates a small demonstration dataset and ingests it into fresh stores with a ViT-S at
random weights, in turn over several rounds: one pool of one field; four pools of it; four pools of
two fields. Prints medians and ratios; --json FILE writes them. A pool should be free and a field
cost a pass, so that two fields by four pools take no more than 2.2 times one. bytes_ratio is what
the tables of vectors take on disk by what the vectors hold.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from embedstore.add import AddOptions, add
from embedstore.demo.dataset import write_demo
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows

MODEL = "timm:vit_small_patch16_224"
POOLS = ("cls", "mean", "centre2", "centre4")
SWEEPS = {
    "one": IngestOptions(pools=POOLS[:1], weights={MODEL: "random"}),
    "pools": IngestOptions(pools=POOLS, weights={MODEL: "random"}),
    "sweep": IngestOptions(pools=POOLS, mpp_out=(0.25, 0.125), weights={MODEL: "random"}),
}


def main() -> None:
    """Time the sweeps in turn and print medians and ratios."""
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
    """Return medians (seconds) and ratios of one run."""
    demo = write_demo(folder / "demo", n_slides_per_domain=2)
    seconds: dict[str, list[float]] = {name: [] for name in SWEEPS}
    ratios = list[float]()
    for n in range(rounds):
        for name, options in SWEEPS.items():
            uri = str(folder / f"{name}{n}")
            add(uri, "demo", demo.midog_json, AddOptions(slides=demo.slides))
            store = Store.open(uri)
            started = time.perf_counter()
            ingest(store, "demo", [MODEL], options)
            seconds[name].append(time.perf_counter() - started)
            ratios.append(bytes_ratio(store))
    median = {name: statistics.median(v) for name, v in seconds.items()}
    return {
        **{f"{name}_seconds": v for name, v in median.items()},
        "pools_ratio": median["pools"] / median["one"],
        "sweep_ratio": median["sweep"] / median["one"],
        "bytes_ratio": statistics.median(ratios),
    }


def bytes_ratio(store: Store) -> float:
    """Return what the tables of all models take on disk by the bytes of their vectors."""
    sql = "select model, count(*) * any_value(len(vector)) * 4 as n from embeddings group by 1"
    rows = fetch_rows(connect(store), sql)
    tables = (Path(store.uri) / f"{model_table(r['model'])}.lance" for r in rows)
    on_disk = sum(f.stat().st_size for t in tables for f in t.rglob("*") if f.is_file())
    return on_disk / sum(float(r["n"]) for r in rows)


if __name__ == "__main__":
    main()
