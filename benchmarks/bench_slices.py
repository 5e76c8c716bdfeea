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
from filled import NEGATIVE, POSITIVE, Cell, make_model, make_store, put_vectors

from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.tidy import compact
from probes.slices import Matrix
from probes.splits.candidates import candidates
from probes.splits.manifests import ensure_splits
from probes.splits.spec import ManifestSpec


def fill(uri: str, n: int, dim: int) -> Store:
    """Return a store with one dataset and one model, written in batches as ingest writes them."""
    rng = np.random.default_rng(0)
    is_positive = rng.random(n) < 0.6
    cells = [
        Cell(
            source_id=str(k),
            slide=f"s{k % 32:02d}.svs",
            domain="d",
            label=POSITIVE if is_positive[k] else NEGATIVE,
            x_l0=float(k % 5000),
            y_l0=float(k // 5000),
        )
        for k in range(n)
    ]
    store = make_store(uri, "d", cells)
    make_model(store, "m", dim)
    for start in range(0, n, 2048):
        part = cells[start : start + 2048]
        put_vectors(store, "m", "d", part, rng.standard_normal((len(part), dim), dtype=np.float32))
    compact(store, model_table("m"))
    return store


def seconds(work: Callable[[], Any]) -> float:
    """Return the time of a second call, without the time that letting go of its result takes."""
    work()
    started = time.perf_counter()
    result = work()
    taken = time.perf_counter() - started
    del result
    return taken


def measure(store: Store, repeats: int) -> dict[str, Any]:
    """Return the median seconds of each way to a training set, and their ratios."""
    manifest = candidates(store, ManifestSpec("d"))
    (split,), _ = ensure_splits(store, manifest, folds=[0], fractions=[1.0])
    matrix = Matrix(store, "m", "d")
    rows = matrix.rows(split)["train"]
    places = matrix.places[rows].ravel()

    def floor() -> Any:
        return np.take(matrix.X, places, axis=0, mode="clip")

    def warm() -> Any:
        return matrix.vectors(matrix.rows(split)["train"])

    def load() -> Any:
        return Matrix(store, "m", "d")

    def cold() -> Any:
        fresh = load()
        return fresh, fresh.vectors(fresh.rows(split)["train"])

    assert (warm() == floor()).all()
    times: dict[str, list[float]] = {name: [] for name in ("floor", "warm", "cold", "load")}
    for _ in range(repeats):  # in turns, so that a busy moment strikes all
        for name, work in (("floor", floor), ("warm", warm), ("cold", cold), ("load", load)):
            times[name].append(seconds(work))
    median = {name: statistics.median(t) for name, t in times.items()}
    return {
        "n": len(matrix.ids),
        "dim": matrix.X.shape[1],
        "n_slice": len(rows),
        "repeats": repeats,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": median,
        "ratio_warm": median["warm"] / median["floor"],
        "ratio_cold": median["cold"] / median["floor"],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    n, dim = (4_000, 192) if args.quick else (72_845, 1536)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(fill(str(Path(folder) / "s"), n, dim), args.repeats)
    print(
        f"{result['n_slice']:,} of {result['n']:,} rows x {result['dim']}, median of {args.repeats}"
    )
    for name, value in result["seconds"].items():
        times = value / result["seconds"]["floor"]
        print(f"  {name:<6}{1000 * value:9.1f} ms   x floor {times:6.2f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
