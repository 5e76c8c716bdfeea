"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.query import connect, fetch_rows, literal
from embedstore.store import Store
from probes.linear import UniProbe
from probes.manifests import Candidates, ManifestSpec, StoredSplit, candidates, ensure_splits
from probes.metrics import evaluate
from probes.results import Run, Scored, load_results, record, recorded_runs
from probes.slices import Matrix, Slice, label_codes, newest

METHODS: dict[str, Callable[[], Any]] = {"uni": UniProbe}
"""Probe by name: a function that makes an unfitted classifier in scikit-learn's grammar."""


@dataclass(frozen=True)
class RunOptions:
    """Which fits of a manifest; None: all models, the fraction 1, five folds, all domains."""

    models: Sequence[str] | None = None
    methods: Sequence[str] = ("uni",)
    fractions: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    train_domains: Sequence[str] | None = None
    force: bool = False


@dataclass(frozen=True)
class RunReport:
    """The results of all runs asked for (rows of the view), and how many of them are new."""

    manifest_id: str
    rows: list[dict[str, Any]]
    n_new: int
    n_recorded: int
    notes: list[str]
    splits: list[StoredSplit]


def run(
    store: Store,
    spec: ManifestSpec,
    options: RunOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> RunReport:
    """Fit and score what is asked for and not recorded; the manifest is made if it is missing.

    on_progress(done, total) counts fits. All names are checked and all slices found before the
    first fit of a model; EmbedstoreError otherwise, with nothing of it recorded.
    """
    _check_methods(options.methods)
    found = candidates(store, spec)
    models = _models(store, spec.dataset, options.models)
    splits, notes = ensure_splits(
        store, found, folds=options.folds if options.folds is not None else range(5),
        fractions=options.fractions or (1.0,), domains=options.train_domains,
    )  # fmt: skip
    runs = [
        Run(s, name, METHODS[name]().get_params(), m["model"], m["weights"], m["weights_sha256"])
        for m in models for s in splits for name in options.methods
    ]  # fmt: skip
    ids = [r.run_id for r in runs]
    known = {} if options.force else recorded_runs(store, ids)
    # A recorded run stands as long as the embeddings it was made of do.
    age = {m["model"]: newest(store, m["model"], found.pool.ids) for m in models}
    todo = [r for r in runs if r.run_id not in known or known[r.run_id] != age[r.model]]
    labels = _label_order(store, found)
    if found.n_left_out:
        notes = [*notes, f"{found.n_left_out} annotations with a problem are in no split"]
    matrix: Matrix | None = None
    on_progress(0, len(todo))
    for n, one in enumerate(todo, start=1):
        if matrix is None or matrix.model != one.model:
            matrix = None  # let go of the last model's before the next is loaded
            matrix = Matrix(store, one.model, spec.dataset)
            for split in {r.split.split_id: r.split for r in todo if r.model == one.model}.values():
                matrix.check(split)
        _fit(store, one, matrix, labels, age[one.model])
        on_progress(n, len(todo))
    for table in ("splits", "results", "predictions"):
        store.compact(table)
    return RunReport(
        found.manifest_id, load_results(store, ids), len(todo), len(runs) - len(todo), notes, splits
    )


def _check_methods(methods: Sequence[str]) -> None:
    if unknown := [m for m in methods if m not in METHODS]:
        raise EmbedstoreError(f"unknown method {', '.join(unknown)}; allowed: {', '.join(METHODS)}")


def _models(store: Store, dataset: str, asked: Sequence[str] | None) -> list[dict[str, Any]]:
    """Return the models' rows: those asked for, or all that have embeddings of the dataset."""
    con = connect(store)
    have: list[dict[str, Any]] = fetch_rows(
        con, "select * from models where model in (select distinct model from embeddings where "
        f"dataset = {literal(dataset)}) order by model",
    )  # fmt: skip
    if not have:
        raise EmbedstoreError(
            f"dataset '{dataset}' has no embeddings; make them with "
            f"`embedstore ingest {dataset} --model MODEL`"
        )
    if asked is None:
        return have
    by_name = {r["model"]: r for r in have}
    if unknown := [m for m in asked if m not in by_name]:
        raise EmbedstoreError(
            f"no embeddings of {', '.join(unknown)} for '{dataset}'; there: {', '.join(by_name)}; "
            f"make them with `embedstore ingest {dataset} --model {unknown[0]}`"
        )
    return [by_name[m] for m in dict.fromkeys(asked)]


def _label_order(store: Store, found: Candidates) -> list[str]:
    """Return the labels of the manifest, the positive one last where there are two."""
    sql = f"select positive_label from datasets where dataset = {literal(found.spec.dataset)}"
    positive = fetch_rows(connect(store), sql)[0]["positive_label"]
    return sorted(set(found.pool.labels), key=lambda label: (label == positive, label))


def _fit(
    store: Store, run: Run, matrix: Matrix, labels: list[str], embedded_at: datetime | None
) -> None:
    started = time.perf_counter()
    slices = matrix.slice(run.split)
    probe = METHODS[run.method]()
    probe.fit(slices["train"].X, label_codes(slices["train"].labels, labels))
    if len(probe.classes_) != len(labels):
        raise EmbedstoreError(
            f"{run.method} was trained on {len(probe.classes_)} of the labels {', '.join(labels)}; "
            "the manifest lacks some in train"
        )
    roles = {r: slices[r] for r in ("val", "test") if slices[r].ids}
    scores = {
        r: Scored(s.ids, np.asarray(probe.predict_proba(s.X)), labels) for r, s in roles.items()
    }
    metrics, counts = _evaluate(run, slices["test"], scores["test"].probabilities, labels)
    state = "ok" if getattr(probe, "converged_", True) else "not converged"
    if getattr(probe, "collapsed_", False):
        state = "collapsed"
    facts = {
        "state": state, "embeddings_version": matrix.version, "embedded_at": embedded_at,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip
    record(store, run, metrics=metrics, counts=counts, scores=scores, facts=facts)


def _evaluate(
    run: Run, test: Slice, p: NDArray[np.float64], labels: list[str]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int | None]]]:
    """Return metrics and counts per eval domain: 'all', or each domain of a by-domain scheme."""
    by_domain = run.split.row["train_domain"] is not None
    domain = np.array(test.domains if by_domain else ["all"] * len(test.ids))
    codes = label_codes(test.labels, labels)
    metrics: dict[str, dict[str, float]] = {}
    counts: dict[str, dict[str, int | None]] = {}
    for name in sorted(set(domain.tolist())):
        mine = domain == name
        metrics[name] = evaluate(codes[mine], p[mine])
        n_pos = int((codes[mine] == len(labels) - 1).sum()) if len(labels) == 2 else None
        counts[name] = {"n_test": int(mine.sum()), "n_pos": n_pos}
    return metrics, counts
