"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import time
from collections.abc import Callable, Collection, Sequence

from embedstore.embeddings.identity import recorded_models, weights_for
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.ingest.embedding import Embedding, Prepared, tidy
from embedstore.ingest.options import (
    Estimate,
    IngestOptions,
    IngestReport,
    ModelReport,
    OnProgress,
    asked_identity,
    weights_spec,
)
from embedstore.ingest.plan import Plan, plan
from embedstore.ingest.retrying import retry_slides
from embedstore.ingest.spread import embed_on_cluster
from embedstore.ingest.variants import Variant, variants
from embedstore.models.corpora import may_have_seen
from embedstore.slides.patches import (
    VIEW_SETS,
    PatchGeometry,
)
from embedstore.slides.placement import JITTER, check_room
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect


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
    prepared = prepare(store, dataset, models, options)
    todo, report = prepared.todo, prepared.report
    if todo.n:
        try:
            if options.cluster is None:
                _embed_here(store, prepared, options, on_progress, on_estimate)
            else:
                embed_on_cluster(store, prepared, models, options, on_progress)
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


def prepare(store: Store, dataset: str, models: Sequence[str], options: IngestOptions) -> Prepared:
    """Return what is to be embedded, with which weights, all checked; nothing is opened yet."""
    check_dataset(store, connect(store), dataset)
    recorded = recorded_models(store)
    asked = variants(models, options, recorded)
    retry_slides(store, dataset)
    views = VIEW_SETS.get(options.views or "", ())
    names = [v.name for v in asked]
    todo = plan(store, dataset, names, views, options.limit, options.shard)
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
    if options.shard is not None:
        report.notes.append(
            f"shard {options.shard}: {len(todo.slides)} slides with {todo.n:,} annotations to "
            "embed; what else is not embedded is for the other shards"
        )
    if todo.n:
        if n := todo.n_made_anew([v.name for v in needed if v.name in store.models()]):
            report.notes.append(
                f"{n} annotations have moved or lie on another file since they were embedded: anew"
            )
        report.notes += _seen(needed, todo.slides)
    return Prepared(todo, needed, weights, report)


def _embed_here(
    store: Store,
    prepared: Prepared,
    options: IngestOptions,
    on_progress: OnProgress,
    on_estimate: Callable[[Estimate], None],
) -> None:
    embedding = Embedding(store, prepared, options)
    if len(prepared.needed) > 1:
        on_estimate(embedding.estimate())
    embedding.embed(None, on_progress)
    tidy(store, prepared)


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
