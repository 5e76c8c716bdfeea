"""Results and predictions: how a run is named, recorded exactly once, and summed up."""

import functools
import hashlib
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.query import connect, fetch_rows, literal
from embedstore.store import Store, now
from probes.manifests import StoredSplit

SOFTWARE = ("scikit-learn", "scipy", "numpy", "duckdb", "pylance")


@dataclass(frozen=True)
class Run:
    """One fit: what it is made of decides its id, and nothing else does."""

    split: StoredSplit
    method: str
    params: Mapping[str, Any]
    model: str
    weights: str
    weights_sha256: str | None  # None: the embeddings were imported
    target: str = "label"

    @property
    def run_id(self) -> str:
        """Return 16 hex digits over manifest, method, model with weights, target and split."""
        row = self.split.row
        parts = [row["manifest_id"], self.method, json.dumps(dict(self.params), sort_keys=True),
                 self.model, self.weights_sha256, self.target, row["fold"],
                 repr(row["fraction"]), row["train_domain"]]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Scored:
    """The scores of one role: ids, and probabilities float64 (n, K) in the order of `labels`."""

    annotation_ids: Sequence[str]
    probabilities: NDArray[np.float64]
    labels: Sequence[str]


def recorded_runs(store: Store, run_ids: Sequence[str]) -> dict[str, datetime | None]:
    """Return those of run_ids whose results are recorded, each with the age of its embeddings."""
    listed = ", ".join(map(literal, run_ids)) or "''"
    sql = (
        f"select run_id, max(embedded_at) as a from _results where run_id in ({listed}) group by 1"
    )
    return {r["run_id"]: r["a"] for r in fetch_rows(connect(store), sql)}


def record(
    store: Store,
    run: Run,
    *,
    metrics: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[str, int | None]],
    scores: Mapping[str, Scored],
    facts: Mapping[str, Any],
) -> None:
    """Write a run: metrics and counts per eval domain, scores per role, facts for every row.

    Predictions come first and results last, each in one atomic step, so a run that has results is
    complete; writing it again replaces it.
    """
    run_id = run.run_id
    predictions = [
        {"prediction_id": f"{run_id}/{role}/{label}", "run_id": run_id, "role": role,
         "label": label, "annotation_id": list(s.annotation_ids),
         "score": s.probabilities[:, k].astype(np.float32).tolist()}
        for role, s in scores.items()
        for k, label in enumerate(s.labels)
        if len(s.labels) > 2 or k == 1  # of two labels the positive one says it all
    ]  # fmt: skip
    row = run.split.row
    same = {
        **{k: row[k] for k in ("manifest_id", "dataset", "scheme", "group_by", "stratify",
                               "where_sql", "fold", "fraction", "train_domain", "seed")},
        "run_id": run_id, "method": run.method,
        "params": json.dumps(dict(run.params), sort_keys=True),
        "model": run.model, "weights": run.weights, "weights_sha256": run.weights_sha256,
        "target": run.target, "n_train": row["n_train"], "n_val": row["n_val"],
        "software": software(), "created_at": now(), **facts,
    }  # fmt: skip
    results = [
        {**same, "result_id": f"{run_id}/{metric}/{domain}", "eval_domain": domain,
         "metric": metric, "value": None if np.isnan(value) else value, **counts[domain]}
        for domain, values in metrics.items()
        for metric, value in values.items()
    ]  # fmt: skip
    store.merge("predictions", predictions)
    store.merge("results", results)


@functools.cache
def software() -> str:
    """Return the versions that decide a number, as JSON."""
    versions = {name: version(name) for name in SOFTWARE}
    return json.dumps({"python": platform.python_version(), **versions})


def load_results(store: Store, run_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of the results view for these runs, in a stable order."""
    listed = ", ".join(map(literal, run_ids)) or "''"
    sql = (
        f"select * from results where run_id in ({listed}) order by model, method, train_domain, "
        "fraction, fold, metric, eval_domain"
    )
    return fetch_rows(connect(store), sql)


@dataclass(frozen=True)
class Summary:
    """One line of a table: mean and sample SD of a metric over the n_runs runs that have one."""

    model: str
    weights: str
    method: str
    fraction: float
    n_train: int
    where: str
    mean: float
    sd: float
    n_runs: int
    n_failed: int


def summarise(rows: Sequence[Mapping[str, Any]], metric: str = "auroc") -> list[Summary]:
    """Return a line per model, method and fraction; by-domain schemes give in- and out-of-domain.

    Out of domain, a run's value is the mean over its other domains, and mean and SD are over runs,
    as in Table 2 of the paper. Domains without a value (one label in test) are left out.
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for r in rows:
        if r["metric"] == metric:
            where = "all" if r["train_domain"] is None else (
                "in domain" if r["eval_domain"] == r["train_domain"] else "out of domain"
            )  # fmt: skip
            groups[r["model"], r["weights"], r["method"], r["fraction"], where].append(r)
    lines = []
    for (model, weights, method, fraction, where), members in sorted(groups.items()):
        by_run: dict[str, list[float]] = defaultdict(list)
        for r in members:
            if r["value"] is not None:
                by_run[r["run_id"]].append(r["value"])
        values = [float(np.mean(v)) for v in by_run.values()]
        failed = {r["run_id"] for r in members if r["state"] != "ok"}
        lines.append(Summary(
            model, weights, method, fraction,
            n_train=round(float(np.mean([r["n_train"] for r in members]))), where=where,
            mean=float(np.mean(values)) if values else float("nan"),
            sd=float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
            n_runs=len(values), n_failed=len(failed),
        ))  # fmt: skip
    return lines
