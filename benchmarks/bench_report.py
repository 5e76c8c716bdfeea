"""How long the report of 1,000 runs and 3 million predictions takes, and comparing two of them.

Runs alone: 20 models of random vectors with some signal on 6,000 annotations of five domains, each
run on five folds of four fractions, of case-level splits, and of five train domains: 1,000 runs.
Prints the seconds of the report against those of one read of all predictions by DuckDB, and of
`compare` of the best model with one other; --json FILE writes them; --quick is a small version.
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

from embedstore.store import Store
from embedstore.store.layout import model_schema, model_table
from embedstore.store.sql import connect, fetch_rows
from probes.compare import CompareOptions, compare
from probes.report import report
from probes.run import RunOptions, run
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec

DIM, DOMAINS, N_SLIDES = 64, 5, 100
SPECS = (
    (ManifestSpec("cells"), RunOptions(fractions=(0.01, 0.1, 0.5, 1.0), n_resamples=20)),
    (ManifestSpec("cells", group_by="case"), RunOptions(n_resamples=20)),
    (ManifestSpec("cells", scheme="cross-domain"), RunOptions(n_resamples=20)),
)


def fill(uri: str, n: int, n_models: int) -> Store:
    """Return a store with annotations and, for each model, vectors that tell labels a little."""
    store = Store.open(uri, create=True)
    rng = np.random.default_rng(0)
    positive = rng.random(n) < 0.45
    slides = [f"s{k:03d}.svs" for k in range(N_SLIDES)]
    store.merge("datasets", [{"dataset": "cells", "positive_label": "mitotic figure"}])
    store.merge(
        "slides",
        [
            {
                "slide_id": f"cells/{s}",
                "dataset": "cells",
                "slide": s,
                "kind": "slide",
                "case_id": s,
                "mpp": 0.25,
                "status": "ok",
                "width": 10**5,
                "height": 10**5,
            }
            for s in slides
        ],
    )
    rows = [
        {
            "annotation_id": f"cells/{slides[k % N_SLIDES]}/{k}",
            "dataset": "cells",
            "slide": slides[k % N_SLIDES],
            "case_id": slides[k % N_SLIDES],
            "domain": f"domain {k % N_SLIDES % DOMAINS}",
            "source_id": str(k),
            "label": "mitotic figure" if positive[k] else "non-mitotic figure",
            "x_l0": float(1000 + k),
            "y_l0": 500.0,
        }
        for k in range(n)
    ]
    store.merge("annotations", rows)
    keys = ("annotation_id", "dataset", "domain", "label", "slide")
    for m in range(n_models):
        name = f"model-{m:02d}"
        vectors = rng.standard_normal((n, DIM), dtype=np.float32)
        vectors[:, :4] += positive[:, None] * (0.3 + 0.05 * m)
        store.make_model_table(name, DIM)
        store.merge("models", [{"model": name, "dim": DIM, "weights": "made up"}])
        schema = model_schema(DIM)
        columns: dict[str, Any] = {c: [r[c] for r in rows] for c in keys}
        flat = pa.array(vectors.ravel())
        columns |= {
            "model": [name] * n,
            "embedded_at": [None] * n,
            "resized": [None] * n,
            "vector": pa.FixedSizeListArray.from_arrays(flat, DIM),
        }
        store.merge(
            model_table(name), pa.table({c: columns[c] for c in schema.names}, schema=schema)
        )
    return store


def seconds(what: Any) -> float:
    """Return the time of a call."""
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    n, n_models = (2_000, 3) if args.quick else (6_000, 20)
    with tempfile.TemporaryDirectory() as folder:
        store = fill(str(Path(folder) / "s"), n, n_models)
        for spec, options in SPECS:
            run(store, spec, options)
        counts = fetch_rows(
            connect(store),
            "select (select count(distinct run_id) from results) as runs, "
            "(select sum(len(score)) from _predictions) as predictions",
        )[0]
        sides = Side("uni", f"model-{n_models - 1:02d}"), Side("uni", "model-00")
        pair = CompareOptions(fractions=[1.0])

        def read() -> None:
            fetch_rows(connect(store), "select role, avg(score) as m from predictions group by 1")

        times = {
            "compare": seconds(
                lambda: compare(store, ManifestSpec("cells"), sides[0], [sides[1]], pair)
            ),
            "read": seconds(read),
            "report": seconds(lambda: report(store, [], Path(folder) / "r")),
        }
        size = (Path(folder) / "r" / "index.html").stat().st_size
    found = {
        **{k: int(v) for k, v in counts.items()},
        "seconds": times,
        "page_bytes": size,
        "ratio_report": times["report"] / times["read"],
        "cores": len(os.sched_getaffinity(0)),
    }
    print(f"{found['runs']:,} runs, {found['predictions']:,} predictions, {n_models} models")
    for name, value in times.items():
        print(f"  {name:<8}{value:8.2f} s")
    print(f"  report / read of predictions {found['ratio_report']:.1f}; page {size / 2**20:.1f} MB")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
