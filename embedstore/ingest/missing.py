"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from embedstore.crops import Placed
from embedstore.embed import SlideFailed, embed_slides
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.identity import recorded_models, weights_for
from embedstore.ingest.options import (
    Estimate,
    IngestOptions,
    IngestReport,
    Interrupted,
    ModelReport,
    OnProgress,
    asked_identity,
    weights_spec,
)
from embedstore.ingest.plan import Plan, plan, retry_slides
from embedstore.ingest.variants import Variant, variants
from embedstore.models.checkpoints import Weights
from embedstore.models.corpora import may_have_seen
from embedstore.slides.patches import (
    PLAIN,
    VIEW_SETS,
    PatchGeometry,
    is_own_row,
)
from embedstore.slides.placement import JITTER, check_room
from embedstore.slides.reading import ahead, sample_patches, usual_threads
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.patch_cache import PACKED, PatchCache
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from embedstore.store.tidy import compact
from embedstore.writer import Writer

if TYPE_CHECKING:
    from embedstore.ingest.looks import Opened

N_SAMPLE = 16
"""Patches on which a dtype is held against float32."""


def ingest(
    store: Store,
    dataset: str,
    models: Sequence[str],
    options: IngestOptions,
    on_progress: OnProgress = lambda done, total, waited: None,
    on_estimate: Callable[[Estimate], None] = lambda estimate: None,
) -> IngestReport:
    """Embed every annotation that a model lacks; what is there already is left alone.

    on_progress(done, total, waited) counts patches through models and is told what was waited for;
    on_estimate is told what several models take before the first patch is read. Slides that cannot
    be read are set aside, told in the report, and tried again at the next call. Raises Interrupted
    on Ctrl-C, nothing lost.
    """
    started = time.monotonic()
    check_dataset(store, connect(store), dataset)
    recorded = recorded_models(store)
    asked = variants(models, options, recorded)
    retry_slides(store, dataset)
    views = VIEW_SETS.get(options.views or "", ())
    todo = plan(store, dataset, [v.name for v in asked], views, options.limit)
    _check_fields(dataset, options, list(dict.fromkeys(v.geometry for v in asked)), todo)
    report = IngestReport(
        dataset,
        [ModelReport(v.name, todo.n_done[v.name]) for v in asked],
        todo.n_annotations,
        todo.n_off_slide,
        dict(todo.set_aside),
    )
    needed = [v for v in asked if todo.n_vectors[v.name]]
    weights = {
        v.name: weights_for(
            v.registry_name,
            v.name,
            recorded.get(v.name),
            asked_identity(v, options),
            weights_spec(v.registry_name, options),
            v in needed,
        )
        for v in asked
    }
    if todo.n:
        if n := todo.n_made_anew([v.name for v in needed if v.name in store.models()]):
            report.notes.append(
                f"{n} annotations have moved or lie on another file since they were embedded: anew"
            )
        report.notes += _seen(needed, todo.slides)
        try:
            _embed_missing(store, todo, needed, weights, options, report, on_progress, on_estimate)
        finally:
            report.seconds = time.monotonic() - started
        _check_any(report, todo.slides)
    recorded = recorded_models(store)
    for r in report.models:
        r.n_left = todo.n_annotations - todo.n_off_slide - r.n_before - r.n_embedded
        if (record := recorded.get(r.model)) is not None:
            r.dtype, r.weights, r.parity = record.dtype or "", record.weights or "", record.parity
    report.seconds = time.monotonic() - started
    return report


def _embed_missing(
    store: Store,
    todo: Plan,
    needed: Sequence[Variant],
    weights: dict[str, Weights | None],
    options: IngestOptions,
    report: IngestReport,
    on_progress: OnProgress,
    on_estimate: Callable[[Estimate], None],
) -> None:
    # torch comes in only where something is embedded
    from embedstore.ingest.looks import open_looks

    sample = functools.cache(lambda g: sample_patches(todo.sample(N_SAMPLE), g, N_SAMPLE))
    opened = open_looks(store, needed, weights, options, sample)
    report.notes += opened.notes
    writer = Writer(store, opened.identities)
    by_name = {r.model: r for r in report.models}
    geometries = dict.fromkeys(look.geometry for look in opened.looks)
    caches = {g: PatchCache(store, todo.dataset, g) for g in geometries if options.patch_cache}
    total, done = sum(todo.n_vectors.values()), 0
    batch_size = options.batch_size or opened.batch_size
    workers = options.workers or usual_threads()
    if len(needed) > 1:
        on_estimate(_estimate(opened, todo, caches, batch_size, workers))
    waited, at_once = report.waited, {"batch_size": batch_size, "workers": workers}
    stream = embed_slides(todo.jobs(), opened.looks, **at_once, crops=caches, waited=waited)
    on_progress(0, total, waited)
    try:
        for event in stream:
            if isinstance(event, SlideFailed):
                report.set_aside[event.slide] = event.problem
                _set_aside(store, todo.dataset, event.slide, event.problem)
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
            for cache in caches.values():
                cache.flush()
                report.n_cached += cache.n_kept
        report.notes += opened.halved()
    todo.con.close()
    _tidy(store, {v.name for v in needed})


def _tidy(store: Store, names: set[str]) -> None:
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


def _seen(needed: Sequence[Variant], slides: Collection[str]) -> list[str]:
    """Return a note for each network that was trained on a collection these slides are of."""
    return [
        f"{name} was trained on {collection}, and {n} of {len(slides)} slides are named as its: it "
        "may have seen these very slides"
        for name in dict.fromkeys(v.registry_name for v in needed)
        for collection, n in may_have_seen(name, slides).items()
    ]


def _check_fields(
    dataset: str, options: IngestOptions, fields: Sequence[PatchGeometry], todo: Plan
) -> None:
    """Raise UsageError where patches cannot have the fields of view, or views, that are asked."""
    n_patches = todo.n_patches
    if options.views and set(VIEW_SETS[options.views]) & set(JITTER):
        for field in fields:
            check_room((field.wide().size_px - field.size_px) // 2, field.mpp_out, field.size_px)
        if n_patches:
            raise UsageError(
                f"{dataset} has {n_patches} patches that were cropped before: there is nothing "
                "beside them that a shifted view could show; --views d4 turns them"
            )
    if n_patches and len(fields) > 1:
        raise UsageError(
            f"{dataset} has {n_patches} patches that were cropped before, which are embedded whole:"
            " they have one field of view; give --mpp-out once"
        )


def _check_any(report: IngestReport, slides: Collection[str]) -> None:
    """Raise EmbedstoreError where not one of the slides that were wanted could be read."""
    failed = {s: why for s, why in report.set_aside.items() if s in slides}
    if len(failed) < len(slides) or any(r.n_embedded or r.n_views for r in report.models):
        return
    said = "".join(f"\n- {s}: {why}" for s, why in list(failed.items())[:10])
    more = f"\n- and {len(failed) - 10} more" if len(failed) > 10 else ""
    raise EmbedstoreError(
        f"nothing was embedded, none of {len(slides)} slides could be read:{said}{more}\nmend the "
        "files and ingest again"
    )


def _count(report: ModelReport, placed: Sequence[Placed], views: Sequence[str]) -> None:
    for p, view in zip(placed, views, strict=True):
        report.n_embedded += is_own_row(view, p.wants[report.model])
        report.n_views += view != PLAIN


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])
