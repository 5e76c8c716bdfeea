"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embedstore.crops import slide_jobs
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.identity import (
    IDENTITY,
    check_model_name,
    check_same,
    entry_of,
    recorded_models,
    weights_for,
)
from embedstore.ingest.plan import plan, retry_slides
from embedstore.models.checkpoints import Weights
from embedstore.models.registry import NO_VARIATION, Variation, check_name
from embedstore.slides.patches import PLAIN, VIEW_SETS, PatchGeometry
from embedstore.slides.slide import is_plausible_mpp
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from embedstore.writer import SAME, Writer

N_SAMPLE = 16
"""Patches on which a dtype is held against float32."""


@dataclass(frozen=True)
class IngestOptions:
    """How patches are cut and embedded: see `embedstore ingest --help`."""

    weights: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    variation: Variation = NO_VARIATION
    views: str | None = None
    patch_px: int = 224
    mpp_out: float = 0.25
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None
    patch_cache: bool = True


@dataclass
class ModelReport:
    """What one model has after an ingest; n_left: on its slide, not embedded yet.

    n_views counts the views embedded beside; parity is the lowest cosine to float32 seen.
    """

    model: str
    n_before: int = 0
    n_embedded: int = 0
    n_left: int = 0
    n_views: int = 0
    parity: float | None = None
    dtype: str = ""
    weights: str = ""


@dataclass
class IngestReport:
    """What an ingest did: one ModelReport a model, the slides set aside (name: why), seconds.

    n_cached: patches that were read from slides and kept.
    """

    dataset: str
    models: list[ModelReport]
    n_annotations: int
    n_off_slide: int
    set_aside: dict[str, str]
    seconds: float = 0.0
    n_cached: int = 0


class Interrupted(Exception):  # noqa: N818  (not an error: the work done is safe)
    """Raised after Ctrl-C once everything embedded so far is stored; carries the report."""

    def __init__(self, report: IngestReport) -> None:
        """Hold the report of what was done."""
        super().__init__()
        self.report = report


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
    names = _check(store, dataset, models, options, recorded)
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
    open_models = [m for m, n in names.items() if any(n in r["wants"] for r in wanted)]
    weights = {
        m: weights_for(
            m, n, recorded.get(n), _asked(m, options), _spec(m, options), m in open_models
        )
        for m, n in names.items()
    }
    if wanted:
        try:
            _embed_missing(store, dataset, names, weights, wanted, options, report, on_progress)
        finally:
            report.seconds = time.monotonic() - started
    recorded = recorded_models(store)
    for r in report.models:
        r.n_left = todo.n_annotations - todo.n_off_slide - r.n_before - r.n_embedded
        r.dtype = recorded.get(r.model, {}).get("dtype", "")
        r.weights = recorded.get(r.model, {}).get("weights", "")
        r.parity = recorded.get(r.model, {}).get("parity")
    report.seconds = time.monotonic() - started
    return report


def _check(
    store: Store,
    dataset: str,
    models: Sequence[str],
    options: IngestOptions,
    recorded: Mapping[str, Any],
) -> dict[str, str]:
    """Return the key under which each model's embeddings are stored; all names are checked."""
    check_dataset(store, connect(store), dataset)
    if not models:
        raise EmbedstoreError("name at least one model with --model")
    if options.name is not None and len(models) != 1:
        raise UsageError("--as NAME goes with exactly one --model")
    for model in models:
        check_name(model)
        check_model_name(options.name or model, recorded)
    if unknown := [w for w in options.weights if not _names(w, models)]:
        raise UsageError(
            f"--weights names {', '.join(unknown)}, which no --model does; models: "
            f"{', '.join(models)}"
        )
    if options.variation != NO_VARIATION and len(models) != 1:
        raise UsageError("--pooling, --mean and --std go with exactly one --model")
    options.variation.check()
    if options.views is not None and options.views not in VIEW_SETS:
        raise UsageError(f"unknown --views '{options.views}'; allowed: {', '.join(VIEW_SETS)}")
    if not 16 <= options.patch_px <= 2048:
        raise UsageError(f"--patch-px {options.patch_px} is not between 16 and 2048")
    if not is_plausible_mpp(options.mpp_out):
        raise UsageError(f"--mpp-out {options.mpp_out:g} is not between 0.05 and 2.0 um/px")
    return {m: options.name or m for m in models}


def _names(key: str, models: Sequence[str]) -> bool:
    return any(key in (m, *_short(m)) for m in models)


def _short(model: str) -> list[str]:
    """Return what --weights may call timm:NAME or hf-hub:OWNER/NAME for short."""
    return [model.split(":", 1)[1]] if ":" in model else []


def _spec(model: str, options: IngestOptions) -> str | None:
    """Return what --weights says of a model."""
    return next((options.weights[k] for k in (model, *_short(model)) if k in options.weights), None)


def _asked(model: str, options: IngestOptions) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "registry_name": model,
        "patch_px": options.patch_px,
        "mpp_out": options.mpp_out,
    }
    varied = options.variation
    decided = {
        "dtype": None if options.dtype == "auto" else options.dtype,
        "pooling": varied.pooling,
        "mean": varied.mean and list(varied.mean),
        "std": varied.std and list(varied.std),
    }
    return asked | {k: v for k, v in decided.items() if v is not None}


def _embed_missing(
    store: Store,
    dataset: str,
    names: Mapping[str, str],
    weights: Mapping[str, Weights | None],
    wanted: list[dict[str, Any]],
    options: IngestOptions,
    report: IngestReport,
    on_progress: Callable[[int, int], None],
) -> None:
    from embedstore.embed import SlideFailed, embed_slides
    from embedstore.slides.reading import sample_patches

    geometry = PatchGeometry(options.patch_px, options.mpp_out)
    jobs = slide_jobs([_once(r) for r in wanted])
    needed = {m: n for m, n in names.items() if any(n in r["wants"] for r in wanted)}
    sample = functools.cache(lambda: sample_patches(jobs, geometry, N_SAMPLE))
    opened = [_open_model(store, m, n, weights[m], options, sample) for m, n in needed.items()]
    embedders = [e for e, _ in opened]
    on_cpu = embedders[0].device.type == "cpu"
    rows = {r["annotation_id"]: r for r in wanted}
    writer = Writer(store, dataset, rows, {i["model"]: i for _, i in opened})
    by_name = {r.model: r for r in report.models}
    cache = PatchCache(store, dataset, geometry) if options.patch_cache else None
    total, done = sum(len(v) for job in jobs for p in job.points for v in p.wants.values()), 0
    stream = embed_slides(
        jobs,
        embedders,
        geometry,
        batch_size=options.batch_size or (32 if on_cpu else 256),
        workers=options.workers or min(os.cpu_count() or 1, 16),
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
            _count(by_name[event.model], event, rows)
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
    for name in needed.values():
        store.compact(model_table(name))
    for name in set(needed.values()) & set(store.viewed_models()):
        store.compact(views_table(name))


def _count(report: ModelReport, event: Any, rows: Mapping[str, Mapping[str, Any]]) -> None:
    for i, view in zip(event.annotation_ids, event.views, strict=True):
        wants = rows[i]["wants"][event.model]
        report.n_embedded += view == PLAIN or (view == SAME and PLAIN in wants)
        report.n_views += view != PLAIN


def _once(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose patch is read once, also if wanted both by itself and as a view."""
    wants = {
        m: [v for v in views if v != PLAIN or SAME not in views]
        for m, views in row["wants"].items()
    }
    return row | {"wants": wants}


def _open_model(
    store: Store,
    model: str,
    name: str,
    weights: Weights | None,
    options: IngestOptions,
    sample: Callable[[], Any],
) -> tuple[Any, dict[str, Any]]:
    """Return the model, tried on patches, and its row of the models table, not yet written."""
    # torch comes in only where something is embedded
    from embedstore.models.embedder import choose_device
    from embedstore.models.loading import load_embedder, record_of

    if weights is None:
        raise EmbedstoreError(f"no weights for {model}; give --weights {model}=PATH")
    record, dtype, variation = recorded_models(store).get(name), options.dtype, options.variation
    if record is not None:  # a resumed ingest goes on as it began, on any machine
        dtype = record["dtype"] if dtype == "auto" else dtype
        variation = Variation(
            variation.pooling or record["pooling"],
            variation.mean or tuple(record["mean"]),
            variation.std or tuple(record["std"]),
        )
    embedder = load_embedder(
        name,
        entry_of(model, variation, _spec(model, options)),
        weights,
        dtype=dtype,
        device=choose_device(options.device),
    )
    embedder.check(options.patch_px)
    if record is None:
        embedder.settle_dtype(sample, may_change=dtype == "auto")
    identity = record_of(embedder) | _asked(model, options) | {"dtype": embedder.dtype}
    if record is not None:
        check_same(name, record, {k: identity[k] for k in IDENTITY})
    return embedder, identity


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])
