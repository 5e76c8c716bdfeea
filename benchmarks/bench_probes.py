"""How much faster all fits of the paper's two datasets are at once than one by one.

Runs alone: generates embeddings of the real sizes (72,845 and 20,552 rows of 1,536 numbers,
power-law spectrum, offset mean, domains as shifts, AUROC about 0.9 at full size), cuts them by the
project's own split protocol into 65 fits (five folds x four fractions each, five folds x five train
domains), and fits `uni` (a) here, all at once, (b) by UNI's recipe, fit by fit (torch LBFGS, strong
Wolfe), (c) by scikit-learn's lbfgs at the matching C, fit by fit: in float32, on all cores, in one
run. (b) and (c) find their rows gathered, (a) gathers them. Every objective is computed anew in
float64 and held against the best known. Also: `logreg` with 20 values of C against one `uni` fit,
and the peak memory. Prints a table; --json FILE writes it; --quick is a small smoke version.
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from probe_baselines import (
    SETS,
    Data,
    Solutions,
    load,
    objective,
    one_by_one,
    sklearn_recipe,
    uni_recipe,
)
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from probes.methods.linear import LogRegProbe, UniProbe
from probes.methods.together import Task, fit_many
from probes.solver import curvature, lockstep, solver


def ours(data: Data, n_threads: int | None, tol: float | None = None) -> Solutions:
    """Return (v, b) of every fit, all at once."""
    probes = [UniProbe() if tol is None else UniProbe(tol=tol) for _ in data.fits]
    tasks = [
        Task(p, s.train, data.y[s.train]) for p, s in zip(probes, data.fits.values(), strict=True)
    ]
    fit_many(data.x, tasks, n_threads=n_threads)
    return {
        name: (p.coef_[1] - p.coef_[0], float(p.intercept_[1] - p.intercept_[0]))
        for name, p in zip(data.fits, probes, strict=True)
    }


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def peak_memory(work: Callable[[], object]) -> int:
    """Return by how many bytes the resident memory grows at most while work runs."""
    size, done, page = [0], threading.Event(), os.sysconf("SC_PAGE_SIZE")

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    def watch() -> None:
        while not done.wait(0.002):
            size[0] = max(size[0], resident())

    before = resident()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return size[0] - before


def where_time_goes(data: list[Data], n_threads: int | None) -> dict[str, float]:
    """Return wall seconds by part of one more run, and how often the matrix was read."""
    spent: dict[str, float] = defaultdict(float)
    parts = [
        (solver, "fit_newton", "tiny fits (summed over threads)"),
        (solver, "Moments", "covariance"),
        (curvature.Shape, "_factor", "factoring"),
        (lockstep, "sweep", "reads of the matrix"),
    ]
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in parts]
    for owner, name, label in parts:

        def watched(
            *args: Any, _of: Any = getattr(owner, name), _as: str = label, **kw: Any
        ) -> Any:
            started = time.perf_counter()
            try:
                return _of(*args, **kw)
            finally:
                spent[_as] += time.perf_counter() - started
                spent[_as + ", calls"] += 1

        setattr(owner, name, watched)
    try:
        spent["whole"] = timed(lambda: [ours(d, n_threads) for d in data])
    finally:
        for owner, name, original in kept:
            setattr(owner, name, original)
    return dict(spent)


def path_ratio(data: Data, n_threads: int | None, repeats: int) -> dict[str, Any]:
    """Return the seconds of `logreg`, 20 values of C, and of one `uni` fit to the same rows."""
    split = next(reversed(data.fits.values()))
    y, y_val = data.y[split.train], data.y[split.val]
    seconds: dict[str, list[float]] = {"uni": [], "logreg": []}
    for _ in range(repeats):
        for name, probe in (("uni", UniProbe()), ("logreg", LogRegProbe())):
            task = Task(probe, split.train, y, split.val, y_val)
            seconds[name].append(timed(partial(fit_many, data.x, [task], n_threads=n_threads)))
    uni, logreg = (statistics.median(seconds[k]) for k in ("uni", "logreg"))
    return {"uni": uni, "logreg": logreg, "ratio": logreg / uni, "n_train": len(y)}


def race(data: Data, args: argparse.Namespace, solutions: dict[str, Solutions]) -> dict[str, Any]:
    """Return the seconds of each way over one dataset's fits, and add what they find to solutions.

    Ours is a list of repeats, half of them after the others, in case the machine got busier.
    """

    def fit_ours() -> None:
        solutions["ours"].update(ours(data, args.threads))

    def by_sklearn(x: Any, y: Any, fit: str) -> tuple[Any, float]:
        return sklearn_recipe(x, y, solutions["ours"][fit][0], args.tol)

    seconds: dict[str, Any] = {"ours": [timed(fit_ours) for _ in range(args.repeats)]}
    for method, recipe in (("uni", lambda x, y, fit: uni_recipe(x, y)), ("sklearn", by_sklearn)):
        fitted, seconds[method] = one_by_one(data, recipe, args.baseline_repeats)
        solutions[method] |= fitted
    seconds["ours"] += [timed(lambda: ours(data, args.threads)) for _ in range(args.repeats)]
    return seconds


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return all figures of one run."""
    data = {name: load(name, args.quick) for name in SETS}
    memory = {
        k: 1 + peak_memory(partial(ours, d, args.threads)) / d.x.nbytes for k, d in data.items()
    }
    solutions: dict[str, Solutions] = {"ours": {}, "uni": {}, "sklearn": {}}
    seconds: dict[str, dict[str, Any]] = {}
    loads = [os.getloadavg()[0]]
    for name, d in data.items():
        seconds[name] = race(d, args, solutions)
        loads.append(os.getloadavg()[0])
    excess, auroc = check(data, solutions, args.threads)
    total = {
        m: sum(
            statistics.median(s[m]) if m == "ours" else sum(s[m].values()) for s in seconds.values()
        )
        for m in solutions
    }
    path = path_ratio(data["A"], args.threads, args.repeats)
    return {
        "ratio_uni": total["uni"] / total["ours"],
        "ratio_sklearn": total["sklearn"] / total["ours"],
        "worst_relative_objective_excess": max(excess["ours"].values()),
        "ratio_path": path["ratio"],
        "peak_memory_ratio": max(memory.values()),
        "details": {
            "seconds": seconds,
            "total_seconds": total,
            "excess": excess,
            "auroc": auroc,
            "path": path,
            "memory": memory,
            "where": where_time_goes(list(data.values()), args.threads),
            "load": loads,
            "threads": args.threads or len(os.sched_getaffinity(0)),
            "sklearn_tol": args.tol,
        },
    }


def check(
    data: dict[str, Data], found: dict[str, Solutions], n_threads: int | None
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Return each solution's excess over the best known objective, and our test AUROC."""
    excess: dict[str, dict[str, float]] = {m: {} for m in found}
    auroc = {}
    for d in data.values():
        tight = ours(d, n_threads, tol=1e-10)
        for name, split in d.fits.items():
            values = {m: objective(d.x, d.y, split.train, *s[name]) for m, s in found.items()}
            best = min(objective(d.x, d.y, split.train, *tight[name]), *values.values())
            for m, value in values.items():
                excess[m][name] = value / best - 1
            v, b = found["ours"][name]
            auroc[name] = float(roc_auc_score(d.y[split.test], d.x[split.test] @ v + b))
    return excess, auroc


def report(result: dict[str, Any]) -> None:
    """Print the table."""
    details = result["details"]
    print(f"{details['threads']} threads, load {' '.join(f'{v:.1f}' for v in details['load'])}\n")
    print(f"{'':22}{'fits':>6}{'ours':>10}{'UNI':>10}{'sklearn':>10}{'x UNI':>8}{'x sklearn':>11}")
    rows = [
        (
            k,
            len(s["uni"]),
            statistics.median(s["ours"]),
            *(sum(s[m].values()) for m in ("uni", "sklearn")),
        )
        for k, s in details["seconds"].items()
    ]
    total = details["total_seconds"]
    rows.append(("all", sum(r[1] for r in rows), total["ours"], total["uni"], total["sklearn"]))
    for name, n, a, b, c in rows:
        print(f"{name:22}{n:6}{a:9.2f}s{b:9.2f}s{c:9.2f}s{b / a:8.1f}{c / a:11.1f}")
    for k, s in details["seconds"].items():
        print(f"  {k}, our runs: {' '.join(f'{v:.2f}' for v in s['ours'])}")
    print("\nexcess over the best known objective (relative): median, worst")
    for m, values in details["excess"].items():
        print(f"  {m:10}{statistics.median(values.values()):10.1e}{max(values.values()):10.1e}")
    path = details["path"]
    print(
        f"\nlogreg, 20 values of C, {path['n_train']} rows: {path['logreg']:.2f}s; "
        f"one uni fit {path['uni']:.2f}s: {path['ratio']:.1f}x"
    )
    print(
        "peak memory, in matrices:", " ".join(f"{k} {v:.3f}" for k, v in details["memory"].items())
    )
    print("\nwhere our time goes (one more run)")
    for part, value in details["where"].items():
        print(f"  {part:42}{value:8.0f}" if "calls" in part else f"  {part:42}{value:8.2f}s")


def main() -> None:
    """Measure, print, and write --json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="of ours, before and after")
    parser.add_argument("--baseline-repeats", type=int, default=1, help="the fastest counts")
    parser.add_argument(
        "--tol", type=float, default=1e-5, help="scikit-learn's; float32 gets no closer below it"
    )
    parser.add_argument("--threads", type=int, default=None, help="for all three; default: all")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    with threadpool_limits(args.threads):
        result = measure(args)
    report(result)
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
