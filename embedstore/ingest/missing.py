"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from embedstore.crops import Placed, slide_jobs
from embedstore.errors import EmbedstoreError
from embedstore.identity import (
    IDENTITY,
    check_same,
    entry_of,
    recorded_models,
    weights_for,
)
from embedstore.ingest.options import (
    IngestOptions,
    IngestReport,
    Interrupted,
    ModelReport,
    asked_identity,
    checked_names,
    weights_spec,
)
from embedstore.ingest.plan import plan, retry_slides
from embedstore.models.checkpoints import Weights
from embedstore.models.registry import RGB, Variation
from embedstore.slides.patches import (
    PLAIN,
    VIEW_SETS,
    PatchGeometry,
    embedded_views,
    is_own_row,
)
from embedstore.slides.reading import usual_threads
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows, literal, stale
from embedstore.writer import Writer

N_SAMPLE = 16
"""Patches on which a dtype is held against float32."""


def ingest(
    store: Store,
    dataset: str,
    models: Sequence[str],
    options: IngestOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> IngestReport:
    """Embed every annotation that a model lacks; what is there already is left alone.

    on_progress(done, total) counts patches through models. Slides that cannot be read are set
    aside, told in the report, and tried again at the next call. Raises Interrupted on Ctrl-C,
    nothing lost.
    """
    started = time.monotonic()
    recorded = recorded_models(store)
    names = checked_names(store, dataset, models, options, recorded)
    retry_slides(store, dataset)
    todo = plan(store, dataset, list(names.values()), VIEW_SETS.get(options.views or "", ()))
    report = IngestReport(
        dataset,
        [ModelReport(n, todo.n_done[n]) for n in names.values()],
        todo.n_annotations,
        todo.n_off_slide,
        dict(todo.set_aside),
    )
    wanted = todo.missing[: options.limit]
    open_models = [m for m, n in names.items() if any(n in p.wants for p in wanted)]
    weights = {
        m: weights_for(
            m,
            n,
            recorded.get(n),
            asked_identity(m, options),
            weights_spec(m, options),
            m in open_models,
        )
        for m, n in names.items()
    }
    if wanted:
        report.notes += _made_anew(store, wanted)
        try:
            _embed_missing(store, dataset, names, weights, wanted, options, report, on_progress)
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
    names: Mapping[str, str],
    weights: Mapping[str, Weights | None],
    wanted: list[Placed],
    options: IngestOptions,
    report: IngestReport,
    on_progress: Callable[[int, int], None],
) -> None:
    from embedstore.embed import SlideFailed, embed_slides
    from embedstore.slides.reading import sample_patches

    geometry = PatchGeometry(options.patch_px, options.mpp_out)
    jobs = slide_jobs([_once(p) for p in wanted])
    needed = {m: n for m, n in names.items() if any(n in p.wants for p in wanted)}
    sample = functools.cache(lambda: sample_patches(jobs, geometry, N_SAMPLE))
    opened = [_open_model(store, m, n, weights[m], options, sample) for m, n in needed.items()]
    embedders = [e for e, _ in opened]
    report.notes += [note for e in embedders for note in e.notes]
    on_cpu = embedders[0].device.type == "cpu"
    placed = {p.annotation_id: p for p in wanted}
    writer = Writer(store, placed, {i["model"]: i for _, i in opened})
    by_name = {r.model: r for r in report.models}
    cache = PatchCache(store, dataset, geometry) if options.patch_cache else None
    total, done = sum(len(v) for job in jobs for p in job.points for v in p.wants.values()), 0
    stream = embed_slides(
        jobs,
        embedders,
        geometry,
        batch_size=options.batch_size or (32 if on_cpu else 256),
        workers=options.workers or usual_threads(),
        crops=cache,
    )
    on_progress(0, total)
    try:
        for event in stream:
            if isinstance(event, SlideFailed):
                report.set_aside[event.slide] = event.problem
                _set_aside(store, dataset, event.slide, event.problem)
                continue
            writer.add(event.model, (event.annotation_ids, event.views, event.vectors))
            _count(by_name[event.model], event, placed)
            writer.flush_if_due()
            done += len(event.annotation_ids)
            on_progress(done, total)
    except KeyboardInterrupt:
        raise Interrupted(report) from None
    finally:
        stream.close()
        writer.flush()
        if cache is not None:
            cache.flush()
            report.n_cached = cache.n_kept
    for name in set(needed.values()) & set(store.models()):
        store.compact(model_table(name))
    for name in set(needed.values()) & set(store.viewed_models()):
        store.compact(views_table(name))


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


def _open_model(
    store: Store,
    registry_name: str,
    model: str,
    weights: Weights | None,
    options: IngestOptions,
    sample: Callable[[], Any],
) -> tuple[Any, dict[str, Any]]:
    """Return the model, tried on patches, and its row of the models table, not yet written."""
    # torch comes in only where something is embedded
    from embedstore.models.embedder import choose_device
    from embedstore.models.loading import load_embedder, record_of

    if weights is None:
        raise EmbedstoreError(
            f"no weights for {registry_name}; give --weights {registry_name}=PATH"
        )
    record, dtype, variation = recorded_models(store).get(model), options.dtype, options.variation
    if record is not None:  # a resumed ingest goes on as it began, on any machine
        dtype = record.dtype or dtype if dtype == "auto" else dtype
        variation = Variation(
            variation.pooling or record.pooling,
            variation.mean or _rgb(record.mean),
            variation.std or _rgb(record.std),
        )
    embedder = load_embedder(
        model,
        entry_of(registry_name, variation, weights_spec(registry_name, options)),
        weights,
        dtype=dtype,
        device=choose_device(options.device),
    )
    embedder.check(options.patch_px)
    if record is None:
        embedder.settle_dtype(sample, may_change=dtype == "auto")
    identity = (
        record_of(embedder) | asked_identity(registry_name, options) | {"dtype": embedder.dtype}
    )
    if record is not None:
        check_same(model, record, {k: identity[k] for k in IDENTITY})
    return embedder, identity


def _rgb(values: Sequence[float] | None) -> RGB | None:
    return None if values is None else (values[0], values[1], values[2])


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])
