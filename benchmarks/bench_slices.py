"""What a slice costs over taking rows of a matrix that is in memory already.

Runs alone: fills a store with 72,845 embeddings of 1,536 numbers (the size of CCMCT), splits them,
and takes a training set of 46,620 in the manifest's order. Floor: numpy.take by known row numbers.
Warm: the rows found by DuckDB and taken, the matrix loaded. Cold: the matrix loaded as well. Prints
medians and ratios; --json FILE writes them; --quick is a small smoke version.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.store import Store
from embedstore.store.layout import model_schema, model_table
from probes.slices import Matrix
from probes.splits.manifests import candidates, ensure_splits
from probes.splits.spec import ManifestSpec


def fill(uri: str, n: int, dim: int) -> Store:
    """Return a store with one dataset and one model, written in batches as ingest writes them."""
    store = Store.open(uri, create=True)
    rng = np.random.default_rng(0)
    names = [f"s{k:02d}.svs" for k in range(32)]
    slides = [
        {
            "slide_id": f"d/{s}",
            "dataset": "d",
            "slide": s,
            "kind": "slide",
            "case_id": s,
            "case_source": "slide",
            "mpp": 0.25,
            "status": "ok",
        }
        for s in names
    ]
    labels = np.where(rng.random(n) < 0.6, "mitotic figure", "non-mitotic figure")
    annotations = [
        {
            "annotation_id": f"d/{names[k % 32]}/{k}",
            "dataset": "d",
            "slide": names[k % 32],
            "case_id": names[k % 32],
            "domain": "d",
            "label": str(labels[k]),
            "x_l0": float(k % 5000),
            "y_l0": float(k // 5000),
            "source_id": str(k),
        }
        for k in range(n)
    ]
    store.merge("slides", slides)
    store.merge("annotations", annotations)
    store.merge("datasets", [{"dataset": "d", "positive_label": "mitotic figure"}])
    store.make_model_table("m", dim)
    store.merge("models", [{"model": "m", "dim": dim, "weights": "random"}])
    schema = model_schema(dim)
    for start in range(0, n, 2048):
        part = annotations[start : start + 2048]
        flat = rng.standard_normal(len(part) * dim, dtype=np.float32)
        keys = ("annotation_id", "dataset", "domain", "label", "slide")
        columns: dict[str, Any] = {c: [r[c] for r in part] for c in keys}
        columns |= {
            "model": ["m"] * len(part),
            "embedded_at": [None] * len(part),
            "resized": [None] * len(part),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(flat), dim),
        }
        table = pa.table({c: columns[c] for c in schema.names}, schema=schema)
        store.merge(model_table("m"), table)
    store.compact(model_table("m"))
    return store


def seconds(what: Callable[[], Any]) -> float:
    """Return the time of a second call, without the time that letting go of its result takes."""
    what()
    started = time.perf_counter()
    result = what()
    taken = time.perf_counter() - started
    del result
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    n, dim = (4_000, 192) if args.quick else (72_845, 1536)
    with tempfile.TemporaryDirectory() as folder:
        store = fill(str(Path(folder) / "s"), n, dim)
        found = candidates(store, ManifestSpec("d"))
        (split,), _ = ensure_splits(store, found, folds=[0], fractions=[1.0])
        matrix = Matrix(store, "m", "d")
        rows = matrix.rows(split)["train"]
        places = matrix.places[rows].ravel()

        def floor() -> Any:
            return np.take(matrix.X, places, axis=0, mode="clip")

        def warm() -> Any:
            return matrix.vectors(matrix.rows(split)["train"])

        def cold() -> Any:
            fresh = load()
            return fresh, fresh.vectors(fresh.rows(split)["train"])

        def load() -> Any:
            return Matrix(store, "m", "d")

        assert (warm() == floor()).all()
        times: dict[str, list[float]] = {name: [] for name in ("floor", "warm", "cold", "load")}
        for _ in range(args.repeats):  # in turns, so that a busy moment strikes all
            for name, what in (("floor", floor), ("warm", warm), ("cold", cold), ("load", load)):
                times[name].append(seconds(what))
    median = {name: statistics.median(t) for name, t in times.items()}
    report = {
        "n": n,
        "dim": dim,
        "n_slice": len(rows),
        "repeats": args.repeats,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": median,
        "ratio_warm": median["warm"] / median["floor"],
        "ratio_cold": median["cold"] / median["floor"],
    }
    print(f"{len(rows):,} of {n:,} rows x {dim}, median of {args.repeats}")
    for name, value in median.items():
        print(f"  {name:<6}{1000 * value:9.1f} ms   x floor {value / median['floor']:6.2f}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
