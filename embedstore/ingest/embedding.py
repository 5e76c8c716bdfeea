"""An opened ingest: networks, caches and writer, ready to embed any of the slides to be done."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from embedstore.embed import SlideFailed, embed_slides
from embedstore.embeddings.crops import Placed
from embedstore.embeddings.writer import Writer
from embedstore.ingest.options import (
    Estimate,
    IngestOptions,
    IngestReport,
    Interrupted,
    ModelReport,
    OnProgress,
)
from embedstore.ingest.plan import Plan
from embedstore.ingest.variants import Variant
from embedstore.models.checkpoints import Weights
from embedstore.slides.patches import PLAIN, PatchGeometry, is_own_row
from embedstore.slides.reading import ahead, sample_patches, usual_threads
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.patch_cache import PACKED, PatchCache
from embedstore.store.sql import connect, fetch_rows, literal
from embedstore.store.tidy import compact

if TYPE_CHECKING:
    from embedstore.ingest.looks import Opened

N_SAMPLE = 16
"""Patches on which a dtype is held against float32."""


@dataclass(frozen=True)
class Prepared:
    """What an ingest has to do: the plan, the models that lack something, all models' weights.

    report is filled as it goes.
    """

    todo: Plan
    needed: Sequence[Variant]
    weights: Mapping[str, Weights | None]
    report: IngestReport


class Embedding:
    """The networks of a prepared ingest, opened."""

    def __init__(self, store: Store, prepared: Prepared, options: IngestOptions) -> None:
        """Open the networks; nothing is written. EmbedstoreError where one cannot be."""
        # torch comes in only where something is embedded
        from embedstore.ingest.looks import open_looks

        self._store, self._todo, self.report = store, prepared.todo, prepared.report
        todo = prepared.todo
        sample = functools.cache(lambda g: sample_patches(todo.sample(N_SAMPLE), g, N_SAMPLE))
        weights = dict(prepared.weights)
        self._opened = open_looks(store, prepared.needed, weights, options, sample)
        self.report.notes += self._opened.notes
        geometries = dict.fromkeys(look.geometry for look in self._opened.looks)
        self._caches = {
            g: PatchCache(store, todo.dataset, g) for g in geometries if options.patch_cache
        }
        self._batch_size = options.batch_size or self._opened.batch_size
        self._workers = options.workers or usual_threads()

    def embed(self, slides: Sequence[str] | None, on_progress: OnProgress) -> None:
        """Embed what the plan has of some slides, or of all, and store it.

        Raises Interrupted on Ctrl-C, nothing lost.
        """
        report, waited, todo = self.report, self.report.waited, self._todo
        by_name = {r.model: r for r in report.models}
        total, done = sum(todo.n_vectors.values()), 0
        writer = Writer(self._store, self._opened.identities, self._keep_patches)
        at_once = {"batch_size": self._batch_size, "workers": self._workers}
        jobs = todo.jobs(slides)
        stream = embed_slides(
            jobs, self._opened.looks, **at_once, crops=self._caches, waited=waited
        )
        on_progress(0, total, waited)
        try:
            for event in stream:
                if isinstance(event, SlideFailed):
                    report.set_aside[event.slide] = event.problem
                    _set_aside(self._store, todo.dataset, event.slide, event.problem)
                    continue
                placed = cast(list[Placed], event.points)
                writer.add(event.model, (placed, event.views, event.vectors))
                _count(by_name[event.model], placed, event.views)
                with waited.on("writing"):
                    writer.flush_if_due()
                done += len(placed)
                on_progress(done, total, waited)
        except KeyboardInterrupt:
            raise Interrupted(report) from None
        finally:
            stream.close()
            with waited.on("writing"):
                writer.close()
                self._keep_patches()
                report.n_cached = sum(cache.n_kept for cache in self._caches.values())
            if slides is None:
                report.notes += self._opened.halved()

    def _keep_patches(self) -> None:
        """Write the patches that wait: before their vectors, after which nobody cuts them again."""
        for cache in self._caches.values():
            cache.flush()

    def estimate(self) -> Estimate:
        """Return what all of the plan will take."""
        return _estimate(self._opened, self._todo, self._caches, self._batch_size, self._workers)


def tidy(store: Store, prepared: Prepared) -> None:
    """Merge the fragments that writing has left of the models that were embedded."""
    prepared.todo.con.close()
    names = {v.name for v in prepared.needed}
    for name in names & set(store.models()):
        compact(store, model_table(name))
    for name in names & set(store.viewed_models()):
        compact(store, views_table(name))


def _estimate(
    opened: "Opened",
    todo: Plan,
    caches: Mapping[PatchGeometry, PatchCache],
    batch_size: int,
    workers: int,
) -> Estimate:
    fields = list(dict.fromkeys(look.geometry for look in opened.looks))
    squares = {g: g.wide() if g in caches else g for g in fields}
    to_keep = {g: sum(i not in cache for i in todo.ids()) for g, cache in caches.items()}
    batches = sum(3 * look.geometry.size_px**2 for look in opened.looks) * batch_size
    return Estimate(
        len(opened.identities),
        len({id(look.network) for look in opened.looks}),
        len(fields),
        todo.n,
        sum(4 * opened.identities[m]["dim"] * n for m, n in todo.n_vectors.items() if n),
        round(sum(3 * squares[g].size_px ** 2 * n * PACKED for g, n in to_keep.items())),
        sum(3 * s.size_px**2 for s in squares.values()) * ahead(workers, squares.values())
        + batches,
    )


def _count(report: ModelReport, placed: Sequence[Placed], views: Sequence[str]) -> None:
    for p, view in zip(placed, views, strict=True):
        report.n_embedded += is_own_row(view, p.wants[report.model])
        report.n_views += view != PLAIN


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])
