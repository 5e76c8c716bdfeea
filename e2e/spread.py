"""Training on a cluster: a run each, on workers that have a GPU or a node to themselves."""

from collections.abc import Callable
from dataclasses import replace

from e2e.run import Listener, TrainOptions, run
from embedstore.cluster import Cluster, spread
from embedstore.files.objects import everywhere
from embedstore.store import Store
from probes.scores.results import RunReport
from probes.splits.asked import splits_for
from probes.splits.spec import ManifestSpec

Split = tuple[float, int, str | None]
"""Fraction, fold and train domain of a run."""


class Trainer:
    """A worker: it trains, scores and records the runs it is given."""

    def __init__(self, uri: str, spec: ManifestSpec, options: TrainOptions) -> None:
        """Open the store."""
        self._store, self._spec, self._options = Store.open(uri, write=True), spec, options

    def do(self, split: Split, tell: Callable[[int], None]) -> int:
        """Return whether a run was trained (1) or recorded before (0)."""
        fraction, fold, domain = split
        asked = replace(
            self._options.splits,
            fractions=[fraction],
            folds=[fold],
            train_domains=None if domain is None else [domain],
        )
        listener = Listener(
            reading=lambda done, total: tell(0), step=lambda done, total: tell(done)
        )
        options = replace(self._options, splits=asked)
        return run(self._store, self._spec, options, listener).n_new


def run_on_cluster(
    store: Store,
    spec: ManifestSpec,
    options: TrainOptions,
    cluster: Cluster,
    listener: Listener = Listener(),
) -> RunReport:
    """Do what `run` does, each run on a worker of the cluster; the manifest is made here."""
    options.recipe.check()
    _, splits, _ = splits_for(store, spec, options.splits)
    pieces: list[Split] = [(s.row.fraction, s.row.fold, s.row.train_domain) for s in splits]
    n_fitted = n_back = 0

    def on_done(split: Split, n: int) -> None:
        nonlocal n_fitted, n_back
        n_fitted, n_back = n_fitted + n, n_back + 1
        fraction, fold, domain = split
        at = f"{domain}, " if domain is not None else ""
        did = "trained" if n else "recorded before"
        listener.line(f"{at}fold {fold}, fraction {fraction:g}: {did} ({n_back} of {len(pieces)})")

    weights = options.weights and everywhere(options.weights, must_be_there=True)
    spread(
        Trainer,
        (everywhere(store.uri), spec, replace(options, weights=weights)),
        pieces,
        cluster,
        on_done=on_done,
        on_moved=lambda n: listener.step(n, 0),
        on_note=lambda text: listener.line(f"note: {text}"),
    )
    report = run(store, spec, replace(options, force=False), listener)
    return replace(report, n_new=n_fitted, n_recorded=report.n_recorded - n_fitted)
