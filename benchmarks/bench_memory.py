"""What `probes run --max-memory` takes of memory and time as a dataset grows.

Runs alone, on stores of generated annotations (as many as --rows says, on a slide per 1,000) and
vectors of 384 numbers that tell labels a little. Each size is run in a process of its own, with the
vectors in memory and streamed; printed and written by --json FILE are

rows, seconds and peak_gb (the most resident memory of the process) of each, objective_difference
(the largest relative difference of the metrics between the two), and over the sizes bytes_per_row
(the slope of the streamed peak) beside the 1,536 that a vector has.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from filled import FINGERPRINT, MPP, NEGATIVE, POSITIVE, make_model

from embedstore.store import Store
from embedstore.store.layout import TABLES, model_schema, model_table
from embedstore.store.sql import connect, fetch_rows
from probes.slices.streamed import BASE_BYTES, ROW_BYTES

DIM, PER_SLIDE, PART = 384, 1000, 200_000
MODEL, DATASET = "m", "cells"


def main() -> None:
    """Fill a store for each size, run on it both ways, and print what that took."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10**5, 10**6])
    parser.add_argument("--in-memory-up-to", type=int, default=10**6)
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    measured: list[dict[str, Any]] = []
    for n in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            uri = str(Path(folder) / "s")
            started = time.perf_counter()
            fill(uri, n)
            print(f"{n:,} rows filled in {time.perf_counter() - started:.0f} s", flush=True)
            row: dict[str, Any] = {"rows": n, "vectors_gb": n * DIM * 4 / 1e9}
            values = []
            for name, limit in (
                ("memory", "1TB"),
                ("streamed", f"{BASE_BYTES + ROW_BYTES * n + 10**8:.0f}"),
            ):
                if name == "memory" and n > args.in_memory_up_to:
                    continue
                row |= {f"{name}_{k}": v for k, v in run(uri, args.folds, limit).items()}
                values.append(results(uri))
            if len(values) == 2:
                pairs = zip(*values, strict=True)
                row["objective_difference"] = max(abs(a - b) / max(abs(a), 1e-9) for a, b in pairs)
            print(json.dumps(row), flush=True)
            measured.append(row)
    result: dict[str, Any] = {"sizes": measured}
    if len(measured) > 1:
        first, last = measured[0], measured[-1]
        grown = (last["streamed_peak_gb"] - first["streamed_peak_gb"]) * 1e9
        result["bytes_per_row"] = grown / (last["rows"] - first["rows"])
        print(f"bytes a row, streamed: {result['bytes_per_row']:.0f}; its vector has {4 * DIM}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


def fill(uri: str, n: int) -> None:
    """Write n annotations and their vectors, in parts."""
    store = Store.open(uri, create=True)
    store.merge("datasets", [{"dataset": DATASET, "positive_label": POSITIVE}])
    slides = [f"s{k:05d}.svs" for k in range(-(-n // PER_SLIDE))]
    known = {"kind": "slide", "mpp": MPP, "fingerprint": FINGERPRINT, "status": "ok"}
    known |= {"width": 10**5, "height": 10**5, "dataset": DATASET, "case_source": "slide"}
    store.merge(
        "slides",
        [{"slide_id": f"{DATASET}/{s}", "slide": s, "case_id": s, **known} for s in slides],
    )
    make_model(store, MODEL, DIM)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=DIM).astype(np.float32) * 0.05
    for start in range(0, n, PART):
        k = np.arange(start, min(start + PART, n))
        positive = rng.random(len(k)) < 0.45
        on = [slides[i // PER_SLIDE] for i in k]
        keys = {
            "annotation_id": [f"{DATASET}/{s}/{i}" for s, i in zip(on, k, strict=True)],
            "dataset": [DATASET] * len(k),
            "domain": ["one"] * len(k),
            "label": np.where(positive, POSITIVE, NEGATIVE),
            "slide": on,
        }
        places = {"x_l0": (k % PER_SLIDE) * 90.0 + 100, "y_l0": np.full(len(k), 1000.0)}
        own = {"case_id": on, "source_id": [str(i) for i in k]}
        add(store, "annotations", TABLES["annotations"], keys | places | own)
        vectors = rng.normal(size=(len(k), DIM)).astype(np.float32)
        vectors += np.where(positive, 1, -1).astype(np.float32)[:, None] * direction
        made = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM)
        of_model = {"model": [MODEL] * len(k), "vector": made}
        add(store, model_table(MODEL), model_schema(DIM), keys | of_model)


def add(store: Store, table: str, schema: pa.Schema, columns: dict[str, Any]) -> None:
    """Append rows; columns that are not given are NULL."""
    n = len(columns["annotation_id"])
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(n, f.type)
        for f in schema
    ]
    store.open_table(table).add(pa.table(arrays, schema=schema))


def run(uri: str, folds: int, limit: str) -> dict[str, float]:
    """Return what a run in a process of its own took."""
    command = [str(Path(sys.executable).parent / "probes"), "run", DATASET, "--store", uri]
    command += [w for k in range(folds) for w in ("--fold", str(k))]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--force", "--max-memory", limit], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    return {"seconds": time.perf_counter() - started, "peak_gb": usage.ru_maxrss * 1024 / 1e9}


def results(uri: str) -> list[float]:
    """Return the metrics that are recorded, in one order."""
    sql = "select value from results order by fold, metric, eval_domain"
    return [float(r["value"]) for r in fetch_rows(connect(Store.open(uri)), sql)]


if __name__ == "__main__":
    main()
