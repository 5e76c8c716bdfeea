"""The verb `ingest`: what is missing, embedded and stored batch by batch; it can stop anywhere."""

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.checkpoints import Weights
from embedstore.errors import EmbedstoreError
from embedstore.patches import PatchGeometry
from embedstore.plan import check_same, plan, recorded_models, retry_slides, weights_for
from embedstore.query import check_dataset, check_model_name, connect, fetch_rows, literal
from embedstore.registry import check_name
from embedstore.slides import is_plausible_mpp
from embedstore.store import Store, model_schema, model_table, now

IDENTITY = ("arch", "dim", "pooling", "dtype", "patch_px", "mpp_out", "weights_sha256", "mean",
            "std")  # fmt: skip
"""What a model's name stands for."""

FLUSH_ROWS = 512
FLUSH_SECONDS = 10.0
"""Embeddings are written when either is reached: a kill costs at most that much work."""


@dataclass(frozen=True)
class IngestOptions:
    """How patches are cut and embedded: see `embedstore ingest --help`."""

    weights: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    patch_px: int = 224
    mpp_out: float = 0.25
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    limit: int | None = None


@dataclass
class ModelReport:
    """What one model has after an ingest; n_left: on its slide, not embedded yet."""

    model: str
    n_before: int = 0
    n_embedded: int = 0
    n_left: int = 0
    dtype: str = ""
    weights: str = ""


@dataclass
class IngestReport:
    """What an ingest did: one ModelReport a model, the slides set aside (name: why), seconds."""

    dataset: str
    models: list[ModelReport]
    n_annotations: int
    n_off_slide: int
    set_aside: dict[str, str]
    seconds: float = 0.0


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

    on_progress(done, total) counts embeddings. Slides that cannot be read are set aside, told in
    the report, and tried again at the next call. Raises Interrupted on Ctrl-C, nothing lost.
    """
    started = time.monotonic()
    recorded = recorded_models(store)
    names = _check(store, dataset, models, options, recorded)
    retry_slides(store, dataset)
    todo = plan(store, dataset, list(names.values()))
    report = IngestReport(
        dataset, [ModelReport(n, todo.n_done[n]) for n in names.values()],
        todo.n_annotations, todo.n_off_slide, dict(todo.set_aside),
    )  # fmt: skip
    wanted = todo.missing[: options.limit]
    open_models = [m for m, n in names.items() if any(n in r["models"] for r in wanted)]
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
        raise EmbedstoreError("--as NAME goes with exactly one --model")
    for model in models:
        check_name(model)
        check_model_name(options.name or model, recorded)
    if unknown := [w for w in options.weights if not _names(w, models)]:
        raise EmbedstoreError(
            f"--weights names {', '.join(unknown)}, which no --model does; models: "
            f"{', '.join(models)}"
        )
    if not 16 <= options.patch_px <= 2048:
        raise EmbedstoreError(f"--patch-px {options.patch_px} is not between 16 and 2048")
    if not is_plausible_mpp(options.mpp_out):
        raise EmbedstoreError(f"--mpp-out {options.mpp_out:g} is not between 0.05 and 2.0 um/px")
    return {m: options.name or m for m in models}


def _names(key: str, models: Sequence[str]) -> bool:
    return key in models or f"timm:{key}" in models


def _spec(model: str, options: IngestOptions) -> str | None:
    """Return what --weights says of a model; timm:NAME may be called NAME there."""
    return options.weights.get(model) or options.weights.get(model.removeprefix("timm:"))


def _asked(model: str, options: IngestOptions) -> dict[str, Any]:
    asked: dict[str, Any] = {
        "registry_name": model, "patch_px": options.patch_px, "mpp_out": options.mpp_out,
    }  # fmt: skip
    return asked if options.dtype == "auto" else asked | {"dtype": options.dtype}


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
    from embedstore.embed import SlideFailed, embed_slides  # torch comes in only when needed

    needed = {m: n for m, n in names.items() if any(n in r["models"] for r in wanted)}
    opened = [_open_model(store, m, n, weights[m], options) for m, n in needed.items()]
    embedders = [e for e, _ in opened]
    on_cpu = embedders[0].device.type == "cpu"
    rows = {r["annotation_id"]: r for r in wanted}
    writer = _Writer(store, dataset, rows, {i["model"]: i for _, i in opened})
    by_name = {r.model: r for r in report.models}
    total, done = sum(len(r["models"]) for r in wanted), 0
    stream = embed_slides(
        _jobs(wanted), embedders, PatchGeometry(options.patch_px, options.mpp_out),
        batch_size=options.batch_size or (32 if on_cpu else 256),
        workers=options.workers or min(os.cpu_count() or 1, 16),
    )  # fmt: skip
    on_progress(0, total)
    try:
        for event in stream:
            if isinstance(event, SlideFailed):
                report.set_aside[event.slide] = event.problem
                _set_aside(store, dataset, event.slide, event.problem)
                continue
            writer.add(event.model, event.annotation_ids, event.vectors)
            by_name[event.model].n_embedded += len(event.annotation_ids)
            done += len(event.annotation_ids)
            on_progress(done, total)
    except KeyboardInterrupt:
        raise Interrupted(report) from None
    finally:
        stream.close()
        writer.flush()
    for name in needed.values():
        store.compact(model_table(name))


def _jobs(wanted: list[dict[str, Any]]) -> Iterator[Any]:
    from embedstore.embed import Point, SlideJob

    by_slide: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in wanted:
        by_slide[row["slide"]].append(row)
    for slide, rows in by_slide.items():
        points = [Point(r["annotation_id"], r["x_l0"], r["y_l0"], r["models"]) for r in rows]
        yield SlideJob(slide, rows[0]["path"], rows[0]["mpp"], points)


def _open_model(
    store: Store, model: str, name: str, weights: Weights | None, options: IngestOptions
) -> tuple[Any, dict[str, Any]]:
    """Return the model, tried on one patch, and its row of the models table, not yet written."""
    from embedstore.models import choose_device, load_embedder, record_of, resolve

    if weights is None:
        raise EmbedstoreError(f"no weights for {model}; give --weights {model}=PATH")
    record = recorded_models(store).get(name)
    dtype = options.dtype
    if record is not None and dtype == "auto":
        dtype = record["dtype"]  # a resumed ingest keeps its dtype on any machine
    embedder = load_embedder(
        name, resolve(model), weights, dtype=dtype, device=choose_device(options.device)
    )
    identity = record_of(embedder) | _asked(model, options) | {"dtype": embedder.dtype}
    if record is not None:
        check_same(name, record, {k: identity[k] for k in IDENTITY})
    embedder.check(options.patch_px)
    return embedder, identity


def _set_aside(store: Store, dataset: str, slide: str, problem: str) -> None:
    con, slide_id = connect(store), literal(f"{dataset}/{slide}")
    (row,) = fetch_rows(con, f"select * from _slides where slide_id = {slide_id}")
    store.merge("slides", [row | {"status": "unreadable", "problem": problem}])


class _Writer:
    """Collects vectors and writes them in batches, each batch whole or not at all."""

    def __init__(
        self,
        store: Store,
        dataset: str,
        rows: Mapping[str, Mapping[str, Any]],
        identities: dict[str, dict[str, Any]],
    ) -> None:
        self._store, self._dataset, self._rows = store, dataset, rows
        self._unrecorded = identities
        self._waiting: dict[str, list[tuple[list[str], NDArray[np.float32]]]] = defaultdict(list)
        self._last = time.monotonic()

    def add(self, model: str, ids: list[str], vectors: NDArray[np.float32]) -> None:
        self._waiting[model].append((ids, vectors))
        n_rows = sum(len(i) for i, _ in self._waiting[model])
        if n_rows >= FLUSH_ROWS or time.monotonic() - self._last > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        for model, batches in self._waiting.items():
            if batches:
                self._record(model)
                ids = [i for batch, _ in batches for i in batch]
                vectors = np.concatenate([v for _, v in batches])
                self._store.merge(model_table(model), self._table(model, ids, vectors))
        self._waiting.clear()
        self._last = time.monotonic()

    def _record(self, model: str) -> None:
        """Record a model with its first vectors, so that a name is bound by nothing less."""
        if (identity := self._unrecorded.pop(model, None)) is not None:
            self._store.make_model_table(model, identity["dim"])
            self._store.merge("models", [identity | {"created_at": now()}], replace=False)
            # Another process may have been first, with something else under this name.
            recorded = recorded_models(self._store)[model]
            check_same(model, recorded, {k: identity[k] for k in IDENTITY})

    def _table(self, model: str, ids: list[str], vectors: NDArray[np.float32]) -> pa.Table:
        rows = [self._rows[i] for i in ids]
        dim = vectors.shape[1]
        columns = {
            "annotation_id": ids,
            **{k: [v] * len(ids) for k, v in (("model", model), ("dataset", self._dataset))},
            **{k: [r[k] for r in rows] for k in ("domain", "label", "slide")},
            "embedded_at": [now()] * len(ids), "resized": [None] * len(ids),
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim),
        }  # fmt: skip
        return pa.table(columns, schema=model_schema(dim))
