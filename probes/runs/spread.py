"""Runs on a cluster: a model each, fitted by workers and recorded from there."""

from collections.abc import Callable
from dataclasses import replace

from embedstore.cluster import Cluster, spread
from embedstore.files.objects import everywhere
from embedstore.store import Store
from probes.runs.options import RunOptions, check, models_of
from probes.runs.verb import run
from probes.scores.results import RunReport
from probes.splits.asked import splits_for
from probes.splits.spec import ManifestSpec


class Fitter:
    """A worker: it fits, scores and records what is missing of the models it is given."""

    def __init__(self, uri: str, spec: ManifestSpec, options: RunOptions) -> None:
        """Open the store."""
        self._store, self._spec, self._options = Store.open(uri, write=True), spec, options

    def do(self, model: str, tell: Callable[[int], None]) -> int:
        """Return how many fits of a model were made."""
        options = replace(self._options, models=[model], pool=None)
        return run(self._store, self._spec, options, lambda done, total: tell(done)).n_new


def run_on_cluster(
    store: Store,
    spec: ManifestSpec,
    options: RunOptions,
    cluster: Cluster,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> RunReport:
    """Do what `run` does, each model on a worker of the cluster; the manifest is made here."""
    check(store, spec, options)
    models = [str(m["model"]) for m in models_of(store, spec.dataset, options)]
    _, splits, _ = splits_for(store, spec, options.splits)
    n_each = len(splits) * len(options.methods)
    total, back, n_fitted = n_each * len(models), 0, 0

    def on_done(model: str, n: int) -> None:
        nonlocal back, n_fitted
        back, n_fitted = back + n_each, n_fitted + n
        on_progress(back, total)

    on_progress(0, total)
    spread(
        Fitter,
        (everywhere(store.uri), spec, options),
        models,
        cluster,
        on_done=on_done,
        on_moved=lambda n: on_progress(min(back + n, total), total),
        on_note=on_note,
    )
    # All is recorded now: this fits nothing, but for the choice of the best of several pools.
    report = run(store, spec, replace(options, force=False))
    return replace(report, n_new=n_fitted, n_recorded=report.n_recorded - n_fitted)
