"""The verbs that cut and fit: split, run."""

from collections.abc import Sequence
from dataclasses import asdict

from embedstore.python.asked import Many, bytes_of, cluster_of, many, several
from embedstore.python.handle import Store, tables_of
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, rows_of
from embedstore.store.tidy import compact
from probes.methods.table import TARGETS, USUAL
from probes.runs import RunOptions, run_on_cluster
from probes.runs import run as fit
from probes.scores.results import summarise
from probes.splits.candidates import candidates
from probes.splits.copied import copies_seen
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec, spec_of


def split(
    store: Store | str,
    dataset: str,
    *,
    scheme: str = ManifestSpec.scheme,
    group_by: str = ManifestSpec.group_by,
    stratify: str = ManifestSpec.stratify,
    size_matched: bool = False,
    where: str | None = ManifestSpec.where,
    seed: int = ManifestSpec.seed,
    folds: int = 5,
    fractions: Sequence[float] | None = None,
) -> Rows:
    """Write the split manifest; return its splits, with what leaks from train to test.

    See `probes split --help`.
    """
    spec = spec_of(dataset, scheme, group_by, stratify, where, seed, size_matched=size_matched)
    opened = tables_of(store, write=True)
    manifest = candidates(opened, spec)
    splits, notes = ensure_splits(
        opened, manifest, folds=range(folds), fractions=None if fractions is None else [*fractions]
    )
    compact(opened, "splits")
    if manifest.n_left_out:
        notes = [*notes, f"{manifest.n_left_out} annotations with a problem are in no split"]
    title = f"manifest {manifest.manifest_id}: {dataset}, {spec.scheme}, by {spec.group_by}"
    rows = [asdict(s.row) for s in splits]
    return rows_of(title, rows, [*notes, *copies_seen(opened, splits, None)])


def run(
    store: Store | str,
    dataset: str,
    *,
    scheme: str = ManifestSpec.scheme,
    group_by: str = ManifestSpec.group_by,
    stratify: str = ManifestSpec.stratify,
    size_matched: bool = False,
    where: str | None = ManifestSpec.where,
    seed: int = ManifestSpec.seed,
    fraction: float | Sequence[float] | None = None,
    fold: int | Sequence[int] | None = None,
    train_domain: Many = None,
    manifest: str | None = None,
    target: str = TARGETS[0],
    views: str | None = None,
    pool: str | None = None,
    correct: str | None = None,
    transductive: bool = False,
    engine: str = "local",
    ray_address: str | None = None,
    num_gpus: float | None = None,
    model: Many = None,
    method: Many = None,
    eval_dataset: str | None = None,
    force: bool = False,
    max_memory: str | int | None = None,
) -> Rows:
    """Fit and score probes on a manifest, made if it is missing; recorded runs are skipped.

    Returns a row per run, metric and eval domain, with the columns of the view `results`; in a
    notebook the mean AUROC per model and fraction is shown. See `probes run --help`.
    """
    spec = spec_of(dataset, scheme, group_by, stratify, where, seed, size_matched=size_matched)
    options = RunOptions(
        models=many(model),
        methods=tuple(many(method) or (USUAL,)),
        splits=Asked(several(fraction), several(fold), many(train_domain), manifest),
        target=target,
        views=views,
        eval_dataset=eval_dataset,
        force=force,
        pool=pool,
        correct=correct,
        transductive=transductive,
        max_memory=bytes_of(max_memory),
    )
    cluster, opened = cluster_of(engine, ray_address, num_gpus), tables_of(store, write=True)
    with progress("fitting", "fits") as bar:
        if cluster is None:
            report = fit(opened, spec, options, bar)
        else:
            report = run_on_cluster(opened, spec, options, cluster, bar)
    title = f"AUROC: {dataset}, {spec.words()} (manifest {report.manifest_id})"
    names = {"low": "a run's 95% CI, low", "high": "high", "where": "test"}
    shown = [
        {names.get(k, k): v for k, v in asdict(line).items()} for line in summarise(report.rows)
    ]
    return rows_of(title, [asdict(r) for r in report.rows], report.notes, shown=shown)
