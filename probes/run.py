"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.identity import how_to_embed
from embedstore.slides.patches import VIEW_SETS
from embedstore.store import Store
from embedstore.store.sql import (
    check_dataset,
    connect,
    connect_to,
    embedded_models,
    fetch,
    fetch_rows,
    literal,
)
from embedstore.store.tidy import compact
from probes.methods.corrections import Correction
from probes.methods.fits import Fit, Task, corrected_matrix, fit_tasks, recorded_fits
from probes.methods.table import METHODS, TARGETS, USUAL
from probes.outcomes import Scorer, codes_in
from probes.scores.best_pool import BEST, record_best, with_variants
from probes.scores.metrics import best_cut
from probes.scores.results import (
    Outcome,
    Run,
    RunReport,
    Standing,
    load_results,
    record,
    recorded_runs,
)
from probes.slices import Matrix, label_order, newest
from probes.splits.asked import splits_for
from probes.splits.candidates import Candidates
from probes.splits.elsewhere import Elsewhere, audit_elsewhere, elsewhere, left_out
from probes.splits.schemes import trains_by_domain
from probes.splits.spec import Asked, ManifestSpec

RECORD_SECONDS = 5.0
"""Finished runs are written together; a kill costs at most that much work."""


@dataclass(frozen=True)
class RunOptions:
    """Which fits of a manifest; models None: all that have embeddings.

    target is what is learnt, label or domain; views a set of views to train on and average over;
    eval_dataset another dataset to score instead; pool: BEST records what is best on validation;
    correct: a correction of the embeddings as KIND:COLUMN, transductive: by test rows as well.
    """

    models: Sequence[str] | None = None
    methods: Sequence[str] = (USUAL,)
    splits: Asked = field(default_factory=Asked)
    target: str = TARGETS[0]
    views: str | None = None
    eval_dataset: str | None = None
    force: bool = False
    pool: str | None = None
    correct: str | None = None
    transductive: bool = False

    @property
    def correction(self) -> Correction | None:
        """The correction, None where none is asked for; UsageError for one that is not known."""
        return Correction.parse(self.correct, transductive=self.transductive)


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
    _check(store, spec, options)
    models = _models(store, spec.dataset, options)
    manifest, splits, notes = splits_for(store, spec, options.splits)
    runs = [
        Run(
            s,
            name,
            _params(name, options),
            m["model"],
            m["weights"],
            m["weights_sha256"],
            options.target,
        )
        for m in models
        for s in splits
        for name in options.methods
    ]
    other = None
    if options.eval_dataset is not None:
        other = elsewhere(store, spec, options.eval_dataset)
        order = label_order(store, manifest, options.target)
        notes = [*notes, *left_out(other, order, options.target)]
    ids = [r.run_id for r in runs]
    recorded = {} if options.force else recorded_runs(store, ids, options.eval_dataset)
    # A recorded run stands as long as the embeddings it was made of do.
    age = _ages(store, manifest, [m["model"] for m in models], options)
    digest = None if other is None else other.digest
    todo = [r for r in runs if recorded.get(r.run_id) != Standing(age[r.model].of_scores, digest)]
    if manifest.n_left_out:
        notes = [*notes, f"{manifest.n_left_out} annotations with a problem are in no split"]
    done = 0
    on_progress(0, len(todo))
    for model in dict.fromkeys(r.model for r in todo):
        of_model = [r for r in todo if r.model == model]

        def tell(n: int, before: int = done) -> None:
            on_progress(before + n, len(todo))

        _run_model(store, manifest, of_model, options, other, age[model], tell)
        done += len(of_model)
    if options.pool == BEST:
        best, more = record_best(store, runs)
        ids, notes = [*ids, *(r.run_id for r in best)], [*notes, *more]
    for table in ("splits", "results", "predictions", "probes") if todo or options.pool else ():
        compact(store, table)
    rows = load_results(store, ids, options.eval_dataset)
    audits = None if other is None else audit_elsewhere(store, manifest, splits, other)
    n_recorded = len(runs) - len(todo)
    return RunReport(manifest.manifest_id, rows, len(todo), n_recorded, notes, splits, audits)


@dataclass(frozen=True)
class _Age:
    """When the newest embedding was made that a model's fits, and that its scores, depend on."""

    of_fits: datetime | None
    of_scores: datetime | None


def _ages(
    store: Store, manifest: Candidates, models: Sequence[str], options: RunOptions
) -> dict[str, _Age]:
    dataset, ids, views = options.eval_dataset, manifest.pool.ids, options.views
    ages = {m: newest(store, m, ids, views) for m in models}
    if dataset is None:
        return {m: _Age(newest_at, newest_at) for m, newest_at in ages.items()}
    sql = f"select annotation_id from _annotations where dataset = {literal(dataset)}"
    both = [*ids, *fetch(connect_to(store, "annotations"), sql)["annotation_id"].to_pylist()]
    return {m: _Age(newest_at, newest(store, m, both, views)) for m, newest_at in ages.items()}


def _check(store: Store, spec: ManifestSpec, options: RunOptions) -> None:
    if unknown := [m for m in options.methods if m not in METHODS]:
        raise UsageError(f"unknown method {', '.join(unknown)}; allowed: {', '.join(METHODS)}")
    if options.target not in TARGETS:
        raise UsageError(f"unknown --target '{options.target}'; allowed: {', '.join(TARGETS)}")
    if options.views is not None and options.views not in VIEW_SETS:
        raise UsageError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if options.eval_dataset is not None:
        check_dataset(store, connect(store), options.eval_dataset)
    if options.pool not in (None, BEST):
        raise UsageError(f"unknown --pool '{options.pool}'; allowed: {BEST}")
    if options.pool and options.eval_dataset:
        raise UsageError(f"--pool {BEST} is not for --eval-dataset; run it without first")
    if options.correction is not None and (options.pool or options.eval_dataset):
        raise UsageError("--correct is not for --pool or --eval-dataset; run it without")
    if options.target == "domain" and trains_by_domain(spec.scheme):
        raise UsageError(
            f"--scheme {spec.scheme} trains without some domains, so that --target domain cannot "
            "learn them; use --scheme monte-carlo or predefined"
        )


def _params(method: str, options: RunOptions) -> dict[str, Any]:
    params: dict[str, Any] = METHODS[method].make().get_params()
    params |= {"views": options.views} if options.views else {}
    return params | (options.correction.params if options.correction else {})


def _models(store: Store, dataset: str, options: RunOptions) -> list[dict[str, Any]]:
    """Return the models' rows: those asked for, or all that have embeddings of the dataset."""
    con, asked = connect(store), options.models
    have: list[dict[str, Any]] = fetch_rows(
        con,
        "select * from models where list_contains($models, model) order by model",
        {"models": embedded_models(con, dataset)},
    )
    if not have:
        raise EmbedstoreError(
            f"dataset '{dataset}' has no embeddings; make them with "
            f"`{how_to_embed(store, dataset, asked[0] if asked else 'MODEL')}`"
        )
    if options.pool == BEST:
        asked = with_variants(asked, [r["model"] for r in have])
    if asked is None:
        return have
    by_name = {r["model"]: r for r in have}
    if unknown := [m for m in asked if m not in by_name]:
        raise EmbedstoreError(
            f"no embeddings of {', '.join(unknown)} for '{dataset}'; there: {', '.join(by_name)}; "
            f"make them with `{how_to_embed(store, dataset, unknown[0])}`"
        )
    return [by_name[m] for m in dict.fromkeys(asked)]


def _run_model(
    store: Store,
    manifest: Candidates,
    runs: Sequence[Run],
    options: RunOptions,
    eval_on: Elsewhere | None,
    age: _Age,
    on_progress: Callable[[int], None],
) -> None:
    """Fit, score and record all runs of one model.

    What is recorded and still stands is not fitted again to score another dataset with it.
    """
    model, views, other = runs[0].model, options.views, options.eval_dataset
    order = label_order(store, manifest, options.target)
    scorer = Scorer(order, options.target, views, age.of_scores, eval_on)
    matrix = None if other is None else Matrix(store, model, other, views)
    recorded: dict[str, tuple[Fit, float]] = {}
    if matrix is not None and not options.force:
        recorded = recorded_fits(store, {r.run_id: r.method for r in runs}, order, age.of_fits)
    todo = [r for r in runs if r.run_id not in recorded]

    def outcomes() -> Iterator[Outcome]:
        if todo:
            correction = options.correction
            yield from _fitted(store, manifest, todo, scorer, matrix, correction, on_progress)
        for run in runs:
            if matrix is not None and run.run_id in recorded:
                yield scorer.elsewhere(run, *recorded[run.run_id], matrix)

    _record(store, outcomes())
    on_progress(len(runs))


def _fitted(
    store: Store,
    manifest: Candidates,
    runs: Sequence[Run],
    scorer: Scorer,
    other: Matrix | None,
    correction: Correction | None,
    on_progress: Callable[[int], None],
) -> Iterator[Outcome]:
    """Yield what came of each run, all fitted on the model's one matrix, or on a split's each."""
    matrix = Matrix(store, runs[0].model, manifest.spec.dataset, scorer.views)
    rows = {s.split_id: matrix.rows(s) for s in {r.split.split_id: r.split for r in runs}.values()}
    codes = codes_in(matrix, scorer.target, scorer.order)
    tasks = [Task(r.method, rows[r.split.split_id], codes, len(scorer.order)) for r in runs]
    if correction is not None:
        for n, (run, task) in enumerate(zip(runs, tasks, strict=True)):
            at = corrected_matrix(matrix, task.rows, correction)
            (fit,) = fit_tasks(at, [task], lambda done, total: None)
            on_progress(n + 1)
            yield scorer.outcome(run, fit, task, at)
        return
    fits = fit_tasks(matrix, tasks, lambda done, total: on_progress(done))
    for run, task, fit in zip(runs, tasks, fits, strict=True):
        if other is None:
            yield scorer.outcome(run, fit, task, matrix)
        else:
            val = task.rows["val"]
            cut = best_cut(codes[val], fit.scores(matrix, val)[0])
            yield scorer.elsewhere(run, fit, cut, other)


def _record(store: Store, outcomes: Iterable[Outcome]) -> None:
    waiting, last = [], time.monotonic()
    for outcome in outcomes:
        waiting.append(outcome)
        if time.monotonic() - last > RECORD_SECONDS:
            record(store, waiting)
            waiting, last = [], time.monotonic()
    record(store, waiting)
