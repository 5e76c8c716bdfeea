"""How long the report of 1,000 runs and 3 million predictions takes, and all studies of 8 models.

Runs alone: 20 models of random vectors with some signal on 6,000 annotations of five domains, each
run on five folds of four fractions, of case-level splits, and of five train domains: 1,000 runs.
Prints the seconds of the report against those of one read of all predictions by DuckDB, and of
`compare` of the best model with one other. Then 8 models of 768 numbers on 20,000 annotations: the
seconds of each study, of 1,000 support sets of 16 cells a class of one model, and of the report of
all of them. --json FILE writes them; --quick is a small version.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from filled import NEGATIVE, POSITIVE, Cell, make_model, make_store, put_vectors

from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.sides import Side
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from probes.studies.copies import copies
from probes.studies.doubtful import doubtful
from probes.studies.fusion import fusion
from probes.studies.gap import gap
from probes.studies.likeness import likeness
from probes.studies.robustness import robustness
from probes.studies.shots import shots

DIM, DOMAINS, N_SLIDES = 64, 5, 100
SPECS = (
    (
        ManifestSpec("cells"),
        RunOptions(splits=Asked((0.01, 0.1, 0.5, 1.0))),
    ),
    (ManifestSpec("cells", group_by="case"), RunOptions()),
    (ManifestSpec("cells", scheme="cross-domain"), RunOptions()),
)


def fill(uri: str, n: int, n_models: int, dim: int = DIM) -> Store:
    """Return a store with annotations and, for each model, vectors that tell labels a little."""
    rng = np.random.default_rng(0)
    is_positive = rng.random(n) < 0.45
    cells = [
        Cell(
            source_id=str(k),
            slide=f"s{k % N_SLIDES:03d}.svs",
            domain=f"domain {k % N_SLIDES % DOMAINS}",
            label=POSITIVE if is_positive[k] else NEGATIVE,
            x_l0=float(1000 + k),
            y_l0=500.0,
        )
        for k in range(n)
    ]
    store = make_store(uri, "cells", cells)
    for m in range(n_models):
        vectors = rng.standard_normal((n, dim), dtype=np.float32)
        vectors[:, :4] += is_positive[:, None] * (0.3 + 0.05 * m)
        make_model(store, f"model-{m:02d}", dim)
        put_vectors(store, f"model-{m:02d}", "cells", cells, vectors)
    return store


def seconds(work: Callable[[], object]) -> float:
    """Return the time of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(store: Store, n_models: int, output: Path) -> dict[str, Any]:
    """Return how many runs and predictions there are, and the seconds that each work takes."""
    for spec, run_options in SPECS:
        run(store, spec, run_options)
    (counts,) = fetch_rows(
        connect(store),
        "select (select count(distinct run_id) from results) as runs, "
        "(select sum(len(probability)) from _predictions) as predictions",
    )
    best, other = Side("uni", f"model-{n_models - 1:02d}"), Side("uni", "model-00")
    options = CompareOptions(fractions=[1.0])

    def read() -> None:
        fetch_rows(connect(store), "select role, avg(score) as m from predictions group by 1")

    times = {
        "compare": seconds(lambda: compare(store, ManifestSpec("cells"), best, [other], options)),
        "read": seconds(read),
        "report": seconds(lambda: report(store, [], output)),
    }
    return {
        **{k: int(v) for k, v in counts.items()},
        "seconds": times,
        "page_bytes": (output / "index.html").stat().st_size,
        "ratio_report": times["report"] / times["read"],
        "cores": len(os.sched_getaffinity(0)),
    }


def studies(store: Store, output: Path, n_sets: int) -> dict[str, float]:
    """Return the seconds of each study of the store's models, and of the report of all of them."""
    spec = ManifestSpec("cells", group_by="slide")
    work: dict[str, Callable[[], object]] = {
        "gap": lambda: gap(store, "cells"),
        "shots": lambda: shots(store, "cells"),
        f"{n_sets} sets of 16": lambda: shots(
            store, "cells", models=["model-00"], sizes=(16,), n_sets=n_sets
        ),
        "robustness": lambda: robustness(store, "cells"),
        "corrections": lambda: run(store, spec, RunOptions(correct="centre:slide")),
        "fusion": lambda: fusion(store, "cells", steps=2),
        "likeness": lambda: likeness(store, "cells"),
        "doubtful": lambda: doubtful(store, "cells"),
        "copies": lambda: copies(store, "cells"),
        "report": lambda: report(store, [], output),
    }
    times = {}
    for name, of in work.items():
        times[name] = seconds(of)
        print(f"  {name:<18}{times[name]:8.2f} s", flush=True)
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    n, n_models = (2_000, 3) if args.quick else (6_000, 20)
    with tempfile.TemporaryDirectory() as folder:
        store = fill(str(Path(folder) / "s"), n, n_models)
        result = measure(store, n_models, Path(folder) / "r")
    print(f"{result['runs']:,} runs, {result['predictions']:,} predictions, {n_models} models")
    for name, value in result["seconds"].items():
        print(f"  {name:<8}{value:8.2f} s")
    megabytes = result["page_bytes"] / 2**20
    print(f"  report / read of predictions {result['ratio_report']:.1f}; page {megabytes:.1f} MB")
    n, n_models, n_sets = (1_500, 3, 50) if args.quick else (20_000, 8, 1_000)
    with tempfile.TemporaryDirectory() as folder:
        store = fill(str(Path(folder) / "s"), n, n_models, 64 if args.quick else 768)
        print(f"studies of {n_models} models, {n:,} annotations")
        result["studies"] = studies(store, Path(folder) / "r", n_sets)
    total = sum(result["studies"].values())
    print(f"  {'all':<18}{total:8.2f} s")
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
