"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from embedstore.crops import Placed, slide_jobs
from embedstore.embed import SlideFailed, Waited, embed_slides
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.identity import recorded_models, weights_for
from embedstore.ingest.options import (
    Estimate,
    IngestOptions,
    IngestReport,
    Interrupted,
    ModelReport,
    asked_identity,
    weights_spec,
)
from embedstore.ingest.plan import Plan, plan, retry_slides
from embedstore.ingest.variants import Variant, variants
from embedstore.models.checkpoints import Weights
from embedstore.slides.patches import (
    PLAIN,
    VIEW_SETS,
    PatchGeometry,
    embedded_views,
    is_own_row,
)
from embedstore.slides.placement import JITTER, check_room
from embedstore.slides.reading import ahead, sample_patches, usual_threads
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.patch_cache import PACKED, PatchCache
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal, stale
from embedstore.writer import Writer

if TYPE_CHECKING:
    from embedstore.ingest.looks import Opened

OnProgress = Callable[[int, int, Waited], None]

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
    todo = plan(store, dataset, [v.name for v in asked], VIEW_SETS.get(options.views or "", ()))
    _check_fields(dataset, options, list(dict.fromkeys(v.geometry for v in asked)), todo)
    report = IngestReport(
        dataset,
        [ModelReport(v.name, todo.n_done[v.name]) for v in asked],
        todo.n_annotations,
        todo.n_off_slide,
        dict(todo.set_aside),
    )
    wanted = todo.missing[: options.limit]
    needed = [v for v in asked if any(v.name in p.wants for p in wanted)]
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
    if wanted:
        report.notes += _made_anew(store, wanted)
        try:
            told = on_progress, on_estimate
            _embed_missing(store, dataset, needed, weights, wanted, options, report, *told)
        finally:
            report.seconds = time.monotonic() - started
        _check_any(report, {p.slide for p in wanted})
    recorded = recorded_models(store)
    for r in report.models:
        r.n_left = todo.n_annotations - todo.n_off_slide - r.n_before - r.n_embedded
        if (record := recorded.get(r.model)) is not None:
            r.dtype, r.weights, r.parity = record.dtype or "", record.weights or "", record.parity
    report.seconds = time.monotonic() - started
    return report


def _embed_missing(
    store: Store,
    dataset: str,
    needed: Sequence[Variant],
    weights: dict[str, Weights | None],
    wanted: list[Placed],
    options: IngestOptions,
    report: IngestReport,
    on_progress: OnProgress,
    on_estimate: Callable[[Estimate], None],
) -> None:
    # torch comes in only where something is embedded
    from embedstore.ingest.looks import open_looks

    jobs = slide_jobs([_once(p) for p in wanted])
    sample = functools.cache(lambda geometry: sample_patches(jobs, geometry, N_SAMPLE))
    opened = open_looks(store, needed, weights, options, sample)
    report.notes += opened.notes
    placed = {p.annotation_id: p for p in wanted}
    writer = Writer(store, placed, opened.identities)
    by_name = {r.model: r for r in report.models}
    geometries = dict.fromkeys(look.geometry for look in opened.looks)
    caches = {g: PatchCache(store, dataset, g) for g in geometries if options.patch_cache}
    total, done = sum(len(v) for job in jobs for p in job.points for v in p.wants.values()), 0
    batch_size = options.batch_size or opened.batch_size
    workers = options.workers or usual_threads()
    if len(needed) > 1:
        on_estimate(_estimate(opened, wanted, caches, batch_size, workers))
    waited = report.waited
    stream = embed_slides(
        jobs,
        opened.looks,
        batch_size=batch_size,
        workers=workers,
        crops=caches,
        waited=waited,
    )
    on_progress(0, total, waited)
    try:
        for event in stream:
            if isinstance(event, SlideFailed):
                report.set_aside[event.slide] = event.problem
                _set_aside(store, dataset, event.slide, event.problem)
                continue
            writer.add(event.model, (event.annotation_ids, event.views, event.vectors))
            _count(by_name[event.model], event, placed)
            with waited.on("writing"):
                writer.flush_if_due()
            done += len(event.annotation_ids)
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
    names = {v.name for v in needed}
    for name in names & set(store.models()):
        store.compact(model_table(name))
    for name in names & set(store.viewed_models()):
        store.compact(views_table(name))


def _estimate(
    opened: "Opened",
    wanted: Sequence[Placed],
    caches: Mapping[PatchGeometry, PatchCache],
    batch_size: int,
    workers: int,
) -> Estimate:
    n_vectors = Counter(m for p in wanted for m, views in p.wants.items() for _ in views)
    fields = list(dict.fromkeys(look.geometry for look in opened.looks))
    squares = {g: g.wide() if g in caches else g for g in fields}
    to_keep = {
        g: sum(not p.is_patch and p.annotation_id not in cache for p in wanted)
        for g, cache in caches.items()
    }
    batches = sum(3 * look.geometry.size_px**2 for look in opened.looks) * batch_size
    return Estimate(
        len(opened.identities),
        len({id(look.network) for look in opened.looks}),
        len(fields),
        len(wanted),
        sum(4 * opened.identities[m]["dim"] * n for m, n in n_vectors.items()),
        round(sum(3 * squares[g].size_px ** 2 * n * PACKED for g, n in to_keep.items())),
        sum(3 * s.size_px**2 for s in squares.values()) * ahead(workers, squares.values())
        + batches,
    )


def _check_fields(
    dataset: str, options: IngestOptions, fields: Sequence[PatchGeometry], todo: Plan
) -> None:
    """Raise UsageError where patches cannot have the fields of view, or views, that are asked."""
    n_patches = sum(p.is_patch for p in todo.missing)
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


def _made_anew(store: Store, wanted: Sequence[Placed]) -> list[str]:
    """Return a note on vectors that are there, but of other pixels than are to be cut now."""
    con, lacking = connect(store), {p.annotation_id for p in wanted}
    models = {m for p in wanted for m in p.wants} & set(store.models())
    n = len({i for m in models for i in stale(con, m)} & lacking)
    if not n:
        return []
    return [f"{n} annotations have moved or lie on another file since they were embedded: anew"]


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


def _count(report: ModelReport, event: Any, placed: Mapping[str, Placed]) -> None:
    for i, view in zip(event.annotation_ids, event.views, strict=True):
        wants = placed[i].wants[event.model]
        report.n_embedded += is_own_row(view, wants)
        report.n_views += view != PLAIN


def _once(placed: Placed) -> Placed:
    """Return it to be read once, also if wanted both by itself and as a view."""
    return replace(placed, wants={m: embedded_views(v) for m, v in placed.wants.items()})


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])
