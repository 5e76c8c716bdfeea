"""Results and predictions: how a run is named, recorded exactly once, and summed up."""

import functools
import hashlib
import json
import math
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from embedstore.store import Store, now
from embedstore.store.records import fetch_records
from embedstore.store.sql import connect_to, fetch_rows, literal
from probes.scores.evaluate import ALL, Evaluated
from probes.scores.predictions import Scored
from probes.scores.recorded import ResultRow
from probes.scores.sides import method_of
from probes.scores.statistics import KIND
from probes.splits.manifests import StoredSplit
from probes.splits.schemes import is_in_domain

IN, OUT = "in domain", "out of domain"
"""What the eval domains of runs with train domains are summed up as."""

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

    @functools.cached_property
    def run_id(self) -> str:
        """Return 16 hex digits over manifest, method, model with weights, target and split."""
        row = self.split.row
        parts = [
            row.manifest_id,
            self.method,
            json.dumps(dict(self.params), sort_keys=True),
            self.model,
            self.weights_sha256,
            self.target,
            row.fold,
            repr(row.fraction),
            row.train_domain,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What is to be recorded of a run: evaluations by eval domain, scores by role, and facts.

    facts go to every row of results; learnt is the run's row of the table of probes, if any.
    """

    run: Run
    evaluated: Mapping[str, Evaluated]
    scores: Mapping[str, Scored]
    facts: Mapping[str, Any]
    learnt: Mapping[str, Any] | None = None


class Standing(NamedTuple):
    """What recorded results hold for: embeddings of an age, another dataset of a digest."""

    embedded_at: datetime | None
    eval_digest: str | None = None


def recorded_runs(
    store: Store, run_ids: Sequence[str], eval_dataset: str | None = None
) -> dict[str, Standing]:
    """Return those of run_ids whose results are recorded, each with what they hold for."""
    con = connect_to(store, "results")
    con.register("_ids", pa.table({"run_id": pa.array(list(run_ids), pa.string())}))
    of_dataset = "is null" if eval_dataset is None else f"= {literal(eval_dataset)}"
    sql = (
        "select run_id, max(embedded_at) as a, max(eval_digest) as d from _results "
        f"join _ids using (run_id) where eval_dataset {of_dataset} "
        "group by 1"
    )
    return {r["run_id"]: Standing(r["a"], r["d"]) for r in fetch_rows(con, sql)}


def record(store: Store, outcomes: Sequence[Outcome]) -> None:
    """Write runs: what they learnt and predicted first, results last, each in one atomic step.

    So a run that has results is complete; writing it again replaces it.
    """
    learnt = [{**o.learnt, "run_id": o.run.run_id} for o in outcomes if o.learnt is not None]
    store.merge("probes", learnt)
    store.merge("predictions", [row for o in outcomes for row in _predictions(o)])
    # Eval domains that are no more go with what they were: a run's results are replaced whole.
    of_dataset = defaultdict[str | None, list[str]](list)
    for o in outcomes:
        of_dataset[o.facts.get("eval_dataset")].append(literal(o.run.run_id))
    scopes = [
        f"(run_id in ({', '.join(ids)}) and eval_dataset "
        f"{'is null' if dataset is None else '= ' + literal(dataset)})"
        for dataset, ids in of_dataset.items()
    ]
    rows = [row for o in outcomes for row in _results(o)]
    store.merge("results", rows, instead_of=" or ".join(scopes) or None)


def _predictions(o: Outcome) -> list[dict[str, Any]]:
    dataset = o.facts.get("eval_dataset") or o.run.split.row.dataset
    return [r for role, s in o.scores.items() for r in s.rows(o.run.run_id, dataset, role)]


def _results(o: Outcome) -> list[dict[str, Any]]:
    run, row = o.run, o.run.split.row
    same = {
        **{
            k: getattr(row, k)
            for k in (
                "manifest_id",
                "dataset",
                "scheme",
                "group_by",
                "stratify",
                "where_sql",
                "fold",
                "fraction",
                "train_domain",
                "seed",
            )
        },
        "run_id": run.run_id,
        "method": run.method,
        "params": json.dumps(dict(run.params), sort_keys=True),
        "model": run.model,
        "weights": run.weights,
        "weights_sha256": run.weights_sha256,
        "target": run.target,
        "n_train": row.n_train,
        "n_val": row.n_val,
        "software": software(),
        "created_at": now(),
        **o.facts,
    }
    dataset = same.get("eval_dataset") or ""
    return [
        {
            **same,
            "result_id": f"{run.run_id}/{metric}/{dataset}/{domain}",
            "eval_domain": domain,
            "metric": metric,
            "value": to_null(e.value),
            "ci_low": to_null(e.low),
            "ci_high": to_null(e.high),
            "n_test": intervals.n_test,
            "n_pos": intervals.n_pos,
            "n_groups": intervals.n_groups,
            "ci_kind": KIND,
        }
        for domain, intervals in o.evaluated.items()
        for metric, e in intervals.metrics.items()
    ]


def to_null(value: float | None) -> float | None:
    """Return a number for a column, None (NULL in SQL) for NaN and infinity."""
    return None if value is None or not math.isfinite(value) else float(value)


def from_null(value: float | None) -> float:
    """Return a column's number, NaN for NULL."""
    return math.nan if value is None else value


@functools.cache
def software() -> str:
    """Return the versions that decide a number, as JSON."""
    versions = {name: version(name) for name in SOFTWARE}
    return json.dumps({"python": platform.python_version(), **versions})


def load_results(
    store: Store, run_ids: Sequence[str], eval_dataset: str | None = None
) -> list[ResultRow]:
    """Return the results of these runs, in a stable order."""
    con = connect_to(store, "results")
    con.register("_ids", pa.table({"run_id": pa.array(list(run_ids), pa.string())}))
    of_dataset = "is null" if eval_dataset is None else f"= {literal(eval_dataset)}"
    return fetch_records(
        con,
        ResultRow,
        f"from _results join _ids using (run_id) where eval_dataset {of_dataset} "
        "order by model, method, params, train_domain, fraction, fold, metric, eval_domain",
    )


@dataclass(frozen=True)
class Summary:
    """One line of a table: mean and sample SD of a metric over the n_runs runs that have one.

    low and high are the means of the runs' own bounds: how wide one fold's interval is, not the
    interval of the mean. NaN out of domain, where a run has several.
    """

    model: str
    weights: str
    method: str
    fraction: float
    n_train: int
    where: str
    mean: float
    sd: float
    low: float
    high: float
    n_runs: int
    n_failed: int


def summarise(rows: Sequence[ResultRow], metric: str = "auroc") -> list[Summary]:
    """Return a line per model, method and fraction; by-domain schemes give in- and out-of-domain.

    One set of weights may be called otherwise in later runs: the last name is given. Out of
    domain, a run's value is the mean over its other domains, and mean and SD are over runs,
    as in Table 2 of the paper. Domains without a value (one label in test) are left out.
    """
    groups: dict[tuple[Any, ...], list[ResultRow]] = defaultdict(list)
    for r in rows:
        # Another dataset has a row over all of it beside those of its domains.
        if r.metric == metric and (r.eval_dataset is None or r.eval_domain == ALL):
            key = (r.model, r.weights_sha256 or "", method_of(r), r.fraction, where_of(r))
            groups[key].append(r)
    lines = []
    for (model, _, method, fraction, where), members in sorted(groups.items()):
        weights = max(members, key=lambda r: r.created_at).weights or ""
        by_run: dict[str, list[float]] = defaultdict(list)
        for r in members:
            if r.value is not None:
                by_run[r.run_id].append(r.value)
        values = [float(np.mean(v)) for v in by_run.values()]
        failed = {r.run_id for r in members if r.state != "ok"}
        low, high = (
            float(np.mean([b for r in members if (b := getattr(r, k)) is not None] or [np.nan]))
            if len(members) == len(by_run)
            else float("nan")
            for k in ("ci_low", "ci_high")
        )
        lines.append(
            Summary(
                model,
                weights,
                method,
                fraction,
                n_train=round(float(np.mean([r.n_train for r in members]))),
                where=where,
                mean=float(np.mean(values)) if values else float("nan"),
                sd=float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
                low=low,
                high=high,
                n_runs=len(values),
                n_failed=len(failed),
            )
        )
    return lines


def where_of(r: ResultRow) -> str:
    """Return what a result counts for: all, IN, OUT, or on another dataset."""
    if r.eval_dataset is not None:
        return f"on {r.eval_dataset}"
    if r.train_domain is None:
        return ALL
    return IN if is_in_domain(r.scheme, r.train_domain, r.eval_domain) else OUT


@dataclass(frozen=True)
class RunReport:
    """The results of all runs asked for, and how many of the runs are new."""

    manifest_id: str
    rows: list[ResultRow]
    n_new: int
    n_recorded: int
    notes: list[str]
    splits: list[StoredSplit]
    elsewhere: list[dict[str, float | None]] | None = None
    """Per split what its train gives away of the other dataset that was scored, if one was."""
