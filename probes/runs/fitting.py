"""The fits of one model: made, scored and recorded, a run at a time."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from embedstore.store import Store
from probes.methods.fits import Fit, MeanFit, Task, corrected_matrix, fit_tasks, recorded_fits
from probes.runs.options import RunOptions
from probes.runs.outcomes import Scorer, codes_in
from probes.scores.metrics import best_cut
from probes.scores.results import (
    Outcome,
    Run,
    record,
)
from probes.slices import Fusion, Matrix, fusion_of, label_order, load_matrix
from probes.splits.candidates import Candidates
from probes.splits.elsewhere import Elsewhere

RECORD_SECONDS = 5.0
"""Finished runs are written together; a kill costs at most that much work."""


@dataclass(frozen=True)
class Age:
    """When the newest embedding was made that a model's fits, and that its scores, depend on."""

    of_fits: datetime | None
    of_scores: datetime | None


def run_model(
    store: Store,
    manifest: Candidates,
    runs: Sequence[Run],
    options: RunOptions,
    eval_on: Elsewhere | None,
    age: Age,
    on_progress: Callable[[int], None],
) -> None:
    """Fit, score and record all runs of one model.

    What is recorded and still stands is not fitted again to score another dataset with it.
    """
    model, views, other = runs[0].model, options.views, options.eval_dataset
    order = label_order(store, manifest, options.target)
    scorer = Scorer(order, options.target, views, age.of_scores, eval_on)
    matrix = None if other is None else load_matrix(store, model, other, views, options.max_memory)
    recorded: dict[str, tuple[Fit, float]] = {}
    if matrix is not None and not options.force:
        recorded = recorded_fits(store, {r.run_id: r.method for r in runs}, order, age.of_fits)
    todo = [r for r in runs if r.run_id not in recorded]

    def outcomes() -> Iterator[Outcome]:
        if todo:
            yield from _fitted(store, manifest, todo, scorer, matrix, options, on_progress)
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
    options: RunOptions,
    on_progress: Callable[[int], None],
) -> Iterator[Outcome]:
    """Yield what came of each run, all fitted on the model's one matrix, or on a split's each."""
    model, dataset = runs[0].model, manifest.spec.dataset
    fusion = fusion_of(model, store.models())
    if fusion is not None and fusion.mean:
        yield from _averaged(store, fusion, dataset, runs, scorer, options, on_progress)
        return
    matrix = load_matrix(store, model, dataset, scorer.views, options.max_memory)
    tasks = _tasks(matrix, runs, scorer)
    codes = tasks[0].codes
    if (correction := options.correction) is not None:
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


def _tasks(matrix: Matrix, runs: Sequence[Run], scorer: Scorer) -> list[Task]:
    rows = {s.split_id: matrix.rows(s) for s in {r.split.split_id: r.split for r in runs}.values()}
    codes = codes_in(matrix, scorer.target, scorer.order)
    return [Task(r.method, rows[r.split.split_id], codes, len(scorer.order)) for r in runs]


def _averaged(
    store: Store,
    fusion: Fusion,
    dataset: str,
    runs: Sequence[Run],
    scorer: Scorer,
    options: RunOptions,
    on_progress: Callable[[int], None],
) -> Iterator[Outcome]:
    """Yield what came of each run of a mean of probes, one a model, all fitted on their own."""
    each = []
    for n, part in enumerate(fusion.parts):
        share = options.max_memory and options.max_memory // len(fusion.parts)
        matrix = Matrix(store, part, dataset, scorer.views, share)
        tasks = _tasks(matrix, runs, scorer)
        each.append((matrix, tasks, fit_tasks(matrix, tasks, lambda done, total: None)))
        on_progress(len(runs) * (n + 1) // len(fusion.parts))
    first, tasks, _ = each[0]
    for n, (run, task) in enumerate(zip(runs, tasks, strict=True)):
        fit = MeanFit.of([(matrix, fits[n]) for matrix, _, fits in each])
        yield scorer.outcome(run, fit, task, first)


def _record(store: Store, outcomes: Iterable[Outcome]) -> None:
    waiting, last = [], time.monotonic()
    for outcome in outcomes:
        waiting.append(outcome)
        if time.monotonic() - last > RECORD_SECONDS:
            record(store, waiting)
            waiting, last = [], time.monotonic()
    record(store, waiting)
