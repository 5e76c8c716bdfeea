"""What a second node gives, and what a matrix that is streamed takes of memory.

Runs alone, on a Ray cluster of this machine: nodes are confined to one processor each, so it needs
two. Prints medians and ratios; --json FILE writes them.

two_nodes_ingest  seconds of an ingest with a ViT-S on one node against those on two: from the
                  first vector in the store to the last, so without what each worker takes to start.
two_nodes_ingest_whole
                  the same with the start: the whole command.
two_nodes_probes  the same of `probes run`: models of random vectors with some signal, both methods
                  on five folds; two_nodes_probes_whole with the start.
"""

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filled import NEGATIVE, POSITIVE, Cell, make_model, make_store, put_vectors

from embedstore.add import AddOptions, add
from embedstore.cluster import Cluster
from embedstore.demo.dataset import write_demo
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from probes.runs import RunOptions, run_on_cluster
from probes.splits.spec import Asked, ManifestSpec

VIT, DIM = "timm:vit_small_patch16_224", 384
Timed = dict[str, float]


def main() -> None:
    """Time one node and two in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--annotations", type=int, default=40_000, help="of the probes")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--per-slide", type=int, default=40, help="annotations of the ingest")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    processors = sorted(os.sched_getaffinity(0))
    if len(processors) < 2:
        sys.exit("this needs two processors: one a node")
    with tempfile.TemporaryDirectory() as folder:
        write_demo(Path(folder) / "demo", n_annotations_per_slide=args.per_slide)
        store = fill(str(Path(folder) / "probes"), args.annotations, args.models)
        times: dict[str, list[float]] = {}
        for n_round in range(args.rounds):
            for n in (1, 2):
                with cluster(processors[:n]) as at:
                    fresh = str(Path(folder) / f"ingest-{n_round}-{n}")
                    done = {
                        "ingest": time_ingest(Path(folder) / "demo", fresh, at),
                        "probes": time_probes(store, at),
                    }
                for what, timed in done.items():
                    for part, seconds in timed.items():
                        times.setdefault(f"{what}{part} {n}", []).append(seconds)
                        print(f"round {n_round + 1}: {what}{part}, {n} nodes: {seconds:.1f} s")
    result = {}
    for what in ("ingest", "probes"):
        for part in ("", "_whole"):
            one, two = (statistics.median(times[f"{what}{part} {n}"]) for n in (1, 2))
            result[f"two_nodes_{what}{part}"] = one / two
            result[f"{what}{part}_seconds_1"], result[f"{what}{part}_seconds_2"] = one, two
    for name, value in result.items():
        print(f"{name:28} {value:10.3f}")
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


@contextlib.contextmanager
def cluster(processors: list[int]) -> Iterator[Cluster]:
    """Give a cluster with a node on each of these processors, and a head that does no work."""
    import ray
    from ray.cluster_utils import Cluster as Nodes

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    mine = os.sched_getaffinity(0)
    with warnings.catch_warnings(action="ignore"):
        nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            for processor in processors:
                os.sched_setaffinity(0, {processor})  # what is started now is confined to it
                nodes.add_node(num_cpus=1)
                os.sched_setaffinity(0, mine)
            nodes.wait_for_nodes()
            yield Cluster(nodes.address)
        finally:
            os.sched_setaffinity(0, mine)
            ray.shutdown()
            nodes.shutdown()


def timed(do: Callable[[Callable[[int, int], None]], object]) -> Timed:
    """Return the seconds of all, and from the first progress to the end."""
    started = time.perf_counter()
    first: list[float] = []

    def on_progress(done: int, total: int) -> None:
        if done and not first:
            first.append(time.perf_counter())

    do(on_progress)
    ended = time.perf_counter()
    return {"": ended - first[0], "_whole": ended - started}


def time_ingest(demo: Path, uri: str, at: Cluster) -> Timed:
    """Return the seconds of an ingest of the demonstration's slides."""
    add(uri, "demo", demo / "annotations.json", AddOptions(slides=demo / "slides"))
    options = IngestOptions(
        weights={VIT: "random"}, name="vit", dtype="float32", patch_cache=False, cluster=at
    )
    store = Store.open(uri, write=True)
    return timed(
        lambda moved: ingest(
            store, "demo", [VIT], options, lambda done, total, waited: moved(done, total)
        )
    )


def fill(uri: str, n: int, n_models: int) -> Store:
    """Return a store with annotations and, for each model, vectors that tell labels a little."""
    rng = np.random.default_rng(0)
    positive = rng.random(n) < 0.45
    cells = [
        Cell(
            source_id=str(k),
            slide=f"s{k % 100:03d}.svs",
            domain="one",
            label=POSITIVE if positive[k] else NEGATIVE,
            x_l0=float(1000 + k),
            y_l0=1000.0,
        )
        for k in range(n)
    ]
    store = make_store(uri, "cells", cells)
    for k in range(n_models):
        make_model(store, f"m{k}", DIM)
        vectors = rng.normal(size=(n, DIM)).astype(np.float32)
        vectors[:, :8] += 0.3 * positive[:, None]
        put_vectors(store, f"m{k}", "cells", cells, vectors)
    return store


def time_probes(store: Store, at: Cluster) -> Timed:
    """Return the seconds of the runs of all models, made anew."""
    options = RunOptions(methods=("uni", "logreg"), splits=Asked((1.0,)), force=True)
    return timed(lambda moved: run_on_cluster(store, ManifestSpec("cells"), options, at, moved))


if __name__ == "__main__":
    main()
