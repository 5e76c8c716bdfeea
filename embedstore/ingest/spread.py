"""An ingest on a cluster: portions of slides, given to workers that hold the networks."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from embedstore.cluster import spread
from embedstore.embed import Waited
from embedstore.errors import UsageError
from embedstore.files.objects import everywhere
from embedstore.ingest.embedding import Embedding, Prepared, tidy
from embedstore.ingest.options import IngestOptions, IngestReport, Interrupted, OnProgress
from embedstore.ingest.plan import plan
from embedstore.slides.patches import VIEW_SETS
from embedstore.store import Store

PORTIONS = 64
"""Portions that the slides are cut into at most, each to be done by one worker: so much is done
again where a node is lost, and so long may the last one keep the others waiting."""


class Embedder:
    """A worker: one opened ingest, which embeds the portions that it is given."""

    def __init__(
        self, uri: str, dataset: str, models: Sequence[str], options: IngestOptions
    ) -> None:
        """Look up what is missing; networks are opened with the first portion."""
        from embedstore.ingest.missing import prepare

        self._store, self._options = Store.open(uri, write=True), options
        self._prepared = prepare(self._store, dataset, models, options)
        self._embedding: Embedding | None = None

    def do(self, slides: Sequence[str], tell: Callable[[int], None]) -> IngestReport:
        """Embed these slides; return the report of all that this worker has done."""
        report = self._prepared.report
        if self._prepared.needed:
            if self._embedding is None:
                self._embedding = Embedding(self._store, self._prepared, self._options)
            try:
                self._embedding.embed(slides, lambda done, total, waited: tell(done))
            except Interrupted as e:
                raise KeyboardInterrupt from e
        return replace(report, models=[replace(m) for m in report.models], waited=report.waited)


def embed_on_cluster(
    store: Store,
    prepared: Prepared,
    models: Sequence[str],
    options: IngestOptions,
    on_progress: OnProgress,
) -> None:
    """Have a cluster embed all that is prepared; fill its report with what came of it.

    Raises Interrupted on Ctrl-C, once the workers have stored what they had.
    """
    todo, report, cluster = prepared.todo, prepared.report, options.cluster
    assert cluster is not None
    if options.limit is not None:
        raise UsageError("--limit is for one process; leave it out with --engine ray")
    total, waited = sum(todo.n_vectors.values()), Waited()
    done = 0
    of_slide = total / max(todo.n, 1)

    def on_done(slides: Sequence[str], of_worker: IngestReport) -> None:
        nonlocal done
        done += round(of_slide * sum(todo.slides[s] for s in slides))
        report.set_aside.update(of_worker.set_aside)
        report.notes += [n for n in of_worker.notes if n not in report.notes]
        on_progress(done, total, waited)

    args = (everywhere(store.uri), todo.dataset, list(models), _for_workers(options))
    try:
        spread(
            Embedder,
            args,
            todo.portions(PORTIONS),
            cluster,
            on_done=on_done,
            on_moved=lambda n: on_progress(min(done + n, total), total, waited),
            on_note=report.notes.append,
        )
    except KeyboardInterrupt:
        _count(store, prepared, options)
        raise Interrupted(report) from None
    _count(store, prepared, options)
    tidy(store, prepared)


def _count(store: Store, prepared: Prepared, options: IngestOptions) -> None:
    """Say in the report how much there is more than before: pieces may have been done twice."""
    views = VIEW_SETS.get(options.views or "", ())
    names = [r.model for r in prepared.report.models]
    after = plan(store, prepared.todo.dataset, names, views)
    for r in prepared.report.models:
        r.n_embedded = after.n_done[r.model] - r.n_before
        lacked = prepared.todo.n_vectors[r.model] - after.n_vectors[r.model]
        r.n_views = max(lacked - r.n_embedded, 0) if views else 0
    after.con.close()


def _for_workers(options: IngestOptions) -> IngestOptions:
    """Return the options of a worker: weights as others find them, and no cluster of its own."""
    weights = {k: everywhere(v, must_be_there=True) for k, v in options.weights.items()}
    return replace(options, weights=weights, cluster=None)
