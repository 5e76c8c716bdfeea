"""The verb `run`: every fit that is asked for and not recorded yet, fitted, scored, recorded."""

from collections.abc import Callable, Mapping, Sequence

from embedstore.store import Store
from embedstore.store.sql import (
    connect_to,
    fetch,
    literal,
)
from embedstore.store.tidy import compact
from probes.runs.fitting import Age, run_model
from probes.runs.options import RunOptions, check, models_of, params_of
from probes.runs.pins import pin_versions
from probes.scores.best_pool import BEST, record_best
from probes.scores.results import (
    Run,
    RunReport,
    Standing,
    load_results,
    recorded_runs,
)
from probes.slices import label_order, newest
from probes.splits.asked import splits_for
from probes.splits.candidates import Candidates
from probes.splits.copied import copies_seen
from probes.splits.elsewhere import Elsewhere, audit_elsewhere, elsewhere, left_out
from probes.splits.spec import ManifestSpec


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
    check(store, spec, options)
    models = models_of(store, spec.dataset, options)
    manifest, splits, notes = splits_for(store, spec, options.splits)
    runs = [
        Run(
            s,
            name,
            params_of(name, options),
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
    _fit(store, manifest, todo, options, other, age, on_progress)
    if options.pool == BEST:
        best, more = record_best(store, runs)
        ids, notes = [*ids, *(r.run_id for r in best)], [*notes, *more]
    for table in ("splits", "results", "predictions", "probes") if todo or options.pool else ():
        compact(store, table)
    pin_versions(store, [m["model"] for m in models])
    notes = [*notes, *copies_seen(store, splits, options.eval_dataset)]
    rows = load_results(store, ids, options.eval_dataset)
    audits = None if other is None else audit_elsewhere(store, manifest, splits, other)
    n_recorded = len(runs) - len(todo)
    return RunReport(manifest.manifest_id, rows, len(todo), n_recorded, notes, splits, audits)


def _fit(
    store: Store,
    manifest: Candidates,
    todo: Sequence[Run],
    options: RunOptions,
    other: Elsewhere | None,
    age: Mapping[str, Age],
    on_progress: Callable[[int, int], None],
) -> None:
    """Fit, score and record what is to do, model by model."""
    done = 0
    on_progress(0, len(todo))
    for model in dict.fromkeys(r.model for r in todo):
        of_model = [r for r in todo if r.model == model]

        def tell(n: int, before: int = done) -> None:
            on_progress(before + n, len(todo))

        run_model(store, manifest, of_model, options, other, age[model], tell)
        done += len(of_model)


def _ages(
    store: Store, manifest: Candidates, models: Sequence[str], options: RunOptions
) -> dict[str, Age]:
    dataset, ids, views = options.eval_dataset, manifest.pool.ids, options.views
    ages = {m: newest(store, m, ids, views) for m in models}
    if dataset is None:
        return {m: Age(newest_at, newest_at) for m, newest_at in ages.items()}
    sql = f"select annotation_id from _annotations where dataset = {literal(dataset)}"
    both = [*ids, *fetch(connect_to(store, "annotations"), sql)["annotation_id"].to_pylist()]
    return {m: Age(newest_at, newest(store, m, both, views)) for m, newest_at in ages.items()}
