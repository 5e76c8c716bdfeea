"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.patches import VIEW_SETS
from embedstore.query import check_dataset, connect, fetch_rows, literal
from embedstore.store import Store, now
from probes.fits import METHODS, Fit, Task, fit_tasks
from probes.manifest_files import recorded_manifest
from probes.manifests import Candidates, ManifestSpec, StoredSplit, candidates, ensure_splits
from probes.metrics import best_cut
from probes.results import Outcome, Run, Scored, load_results, record, recorded_runs
from probes.scoring import ALL, evaluate_by, evaluate_split, seed_of
from probes.slices import Matrix, codes_of, newest
from probes.statistics import N_RESAMPLES

TARGETS = ("label", "domain")
RECORD_SECONDS = 5.0
"""Finished runs are written together; a kill costs at most that much work."""


@dataclass(frozen=True)
class RunOptions:
    """Which fits of a manifest; None: all models, the fraction 1, five folds, all domains.

    target is what is learnt, label or domain; views a set of views to train on and average over;
    eval_dataset another dataset to score instead; manifest a recorded one, all of its splits that
    folds, fractions and train domains leave.
    """

    models: Sequence[str] | None = None
    methods: Sequence[str] = ("uni",)
    fractions: Sequence[float] | None = None
    folds: Sequence[int] | None = None
    train_domains: Sequence[str] | None = None
    target: str = "label"
    views: str | None = None
    eval_dataset: str | None = None
    manifest: str | None = None
    n_resamples: int = N_RESAMPLES
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
    _check(store, options)
    models = _models(store, spec.dataset, options.models)
    found, splits, notes = splits_for(store, spec, options)
    runs = [
        Run(s, name, _params(name, options), m["model"], m["weights"], m["weights_sha256"],
            options.target)
        for m in models for s in splits for name in options.methods
    ]  # fmt: skip
    ids = [r.run_id for r in runs]
    known = {} if options.force else recorded_runs(store, ids, options.eval_dataset)
    # A recorded run stands as long as the embeddings it was made of do.
    age = {m["model"]: newest(store, m["model"], found.pool.ids) for m in models}
    todo = [r for r in runs if r.run_id not in known or known[r.run_id] != age[r.model]]
    if found.n_left_out:
        notes = [*notes, f"{found.n_left_out} annotations with a problem are in no split"]
    done = 0
    on_progress(0, len(todo))
    for model in dict.fromkeys(r.model for r in todo):
        mine = [r for r in todo if r.model == model]

        def tell(n: int, before: int = done) -> None:
            on_progress(before + n, len(todo))

        _run_model(store, found, mine, options, age[model], tell)
        done += len(mine)
    for table in ("splits", "results", "predictions", "probes"):
        store.compact(table)
    rows = load_results(store, ids, options.eval_dataset)
    return RunReport(found.manifest_id, rows, len(todo), len(runs) - len(todo), notes, splits)


class Asked(Protocol):
    """Which splits of a manifest are asked for: see RunOptions."""

    @property
    def fractions(self) -> Sequence[float] | None:
        """None: the fraction 1, or all of a recorded manifest."""

    @property
    def folds(self) -> Sequence[int] | None:
        """None: the first five, or all of a recorded manifest."""

    @property
    def train_domains(self) -> Sequence[str] | None:
        """None: all."""

    @property
    def manifest(self) -> str | None:
        """The id of a recorded manifest, or None: what the spec makes."""


def splits_for(
    store: Store, spec: ManifestSpec, options: Asked
) -> tuple[Candidates, list[StoredSplit], list[str]]:
    """Return a manifest's annotations, the splits asked for, made where missing, and notes."""
    if options.manifest is None:
        found = candidates(store, spec)
        splits, notes = ensure_splits(
            store, found, folds=options.folds if options.folds is not None else range(5),
            fractions=options.fractions or (1.0,), domains=options.train_domains,
        )  # fmt: skip
        return found, splits, notes
    found, every = recorded_manifest(store, spec.dataset, options.manifest)
    asked = {"fold": options.folds, "fraction": options.fractions,
             "train_domain": options.train_domains}  # fmt: skip
    splits = [s for s in every if all(v is None or s.row[k] in v for k, v in asked.items())]
    if not splits:
        raise EmbedstoreError(
            f"manifest {options.manifest} has no such split; it has: "
            + "; ".join(sorted(s.split_id.partition("/")[2] for s in every)[:20])
        )
    return found, splits, []


def _check(store: Store, options: RunOptions) -> None:
    if unknown := [m for m in options.methods if m not in METHODS]:
        raise EmbedstoreError(f"unknown method {', '.join(unknown)}; allowed: {', '.join(METHODS)}")
    if options.target not in TARGETS:
        raise EmbedstoreError(f"unknown --target '{options.target}'; allowed: {', '.join(TARGETS)}")
    if options.views is not None and options.views not in VIEW_SETS:
        raise EmbedstoreError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if options.eval_dataset is not None:
        check_dataset(store, connect(store), options.eval_dataset)


def _params(method: str, options: RunOptions) -> dict[str, Any]:
    params: dict[str, Any] = METHODS[method]().get_params()
    return params | ({"views": options.views} if options.views else {})


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


def _run_model(
    store: Store,
    found: Candidates,
    runs: Sequence[Run],
    options: RunOptions,
    embedded_at: datetime | None,
    on_progress: Callable[[int], None],
) -> None:
    """Fit all runs of one model on its one matrix, then score and record them."""
    dataset, model = found.spec.dataset, runs[0].model
    matrix = Matrix(store, model, dataset, options.views)
    rows = {s.split_id: matrix.rows(s) for s in {r.split.split_id: r.split for r in runs}.values()}
    elsewhere = None
    if options.eval_dataset is not None:
        elsewhere = Matrix(store, model, options.eval_dataset, options.views)
    order = label_order(store, found, options.target)
    codes = _codes(matrix, options.target, order)
    tasks = [Task(r.method, rows[r.split.split_id], codes, len(order)) for r in runs]
    fits = fit_tasks(matrix, tasks, lambda done, total: on_progress(done))
    waiting, last = [], time.monotonic()
    for run, task, fit in zip(runs, tasks, fits, strict=True):
        scorer = _Scorer(run, fit, task, matrix, order, options, embedded_at)
        waiting.append(scorer.outcome() if elsewhere is None else scorer.elsewhere(elsewhere))
        if time.monotonic() - last > RECORD_SECONDS:
            record(store, waiting)
            waiting, last = [], time.monotonic()
    record(store, waiting)
    on_progress(len(runs))


def label_order(store: Store, found: Candidates, target: str = "label") -> list[str]:
    """Return the labels (or domains) learnt, the positive label last where there are two."""
    if target == "domain":
        return sorted(set(found.pool.domains))
    sql = f"select positive_label from datasets where dataset = {literal(found.spec.dataset)}"
    positive = fetch_rows(connect(store), sql)[0]["positive_label"]
    return sorted(set(found.pool.labels), key=lambda label: (label == positive, label))


def _codes(matrix: Matrix, target: str, order: Sequence[str]) -> NDArray[np.intp]:
    """Return the code of every annotation of the matrix, -1 for what the manifest has none of."""
    facts, known = matrix.facts[target], set(order)
    codes = np.full(len(facts), -1, dtype=np.intp)
    mine = np.array([f in known for f in facts], dtype=bool)
    codes[mine] = codes_of(facts[mine], order)
    return codes


@dataclass(frozen=True)
class _Scorer:
    """A run's fit and what is needed to score it."""

    run: Run
    fit: Fit
    task: Task
    matrix: Matrix
    order: list[str]
    options: RunOptions
    embedded_at: datetime | None

    def outcome(self) -> Outcome:
        """Score val and test of the manifest."""
        row, rows = self.run.split.row, self.task.rows
        p = {r: self.fit.probabilities(self.matrix, rows[r]) for r in ("val", "test")}
        cut = best_cut(self.task.codes[rows["val"]], p["val"])
        scores = {r: Scored(self.matrix.ids[rows[r]], p[r], self.order)
                  for r in p if len(rows[r])}  # fmt: skip
        test = rows["test"]
        groups, ci_by = self._groups(self.matrix, test)
        evaluated = evaluate_split(
            row, self.task.codes[test], p["test"], self.matrix.facts["domain"][test], groups,
            cut=cut, n_resamples=self.options.n_resamples, partial=self._partial,
        )  # fmt: skip
        return Outcome(
            self.run, evaluated, scores, self._facts(cut, ci_by, None), self._learnt(cut)
        )

    def elsewhere(self, other: Matrix) -> Outcome:
        """Score all of another dataset, whole and by domain."""
        codes = _codes(other, self.options.target, self.order)
        known = np.flatnonzero(codes >= 0)
        if not len(known):
            raise EmbedstoreError(
                f"--eval-dataset {other.dataset} has none of: {', '.join(self.order)}"
            )
        val = self.task.rows["val"]
        cut = best_cut(self.task.codes[val], self.fit.probabilities(self.matrix, val))
        p = self.fit.probabilities(other, known, own=False)
        groups, ci_by = self._groups(other, known)
        seed, n = seed_of(other.dataset), self.options.n_resamples
        everything = np.full(len(known), ALL)
        evaluated = evaluate_by(everything, codes[known], p, groups, cut=cut, seed=seed,
                                n_resamples=n, partial=self._partial)  # fmt: skip
        domains = other.facts["domain"][known]
        if len(set(domains.tolist())) > 1:
            evaluated |= evaluate_by(domains, codes[known], p, groups, cut=cut, seed=seed,
                                     n_resamples=n, partial=self._partial)  # fmt: skip
        scores = {f"test:{other.dataset}": Scored(other.ids[known], p, self.order)}
        return Outcome(self.run, evaluated, scores, self._facts(cut, ci_by, other.dataset))

    @property
    def _partial(self) -> bool:
        # A rare domain may be absent from a test set; a label that is leaves nothing to measure.
        return self.options.target == "domain"

    def _groups(self, matrix: Matrix, rows: NDArray[np.int64]) -> tuple[NDArray[Any], str]:
        by = "case" if self.run.split.row["group_by"] == "case" else "slide"
        return matrix.facts["case_id" if by == "case" else "slide"][rows], by

    def _facts(self, cut: float, ci_by: str, eval_dataset: str | None) -> dict[str, Any]:
        return {
            "state": self.fit.state, "embeddings_version": self.matrix.version,
            "embedded_at": self.embedded_at, "seconds": self.fit.seconds, "ci_by": ci_by,
            "threshold": cut if len(self.order) == 2 else None, "eval_dataset": eval_dataset,
            "chosen": json.dumps(self.fit.chosen) if self.fit.chosen else None,
        }  # fmt: skip

    def _learnt(self, cut: float) -> dict[str, Any] | None:
        probe = self.fit.probe
        if not hasattr(probe, "coef_"):
            return None
        coef = np.atleast_2d(probe.coef_)
        return {
            "dataset": self.matrix.dataset, "model": self.run.model, "views": self.options.views,
            "labels": self.order, "coef": coef.ravel(), "intercept": np.ravel(probe.intercept_),
            "threshold": cut, "created_at": now(),
        }  # fmt: skip
