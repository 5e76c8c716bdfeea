"""Where annotations lie, and the crops around them, read from slides or from the store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.reading import Point, SlideJob, read_ahead
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.store import Store

PLACES = (
    "select a.annotation_id, a.slide, a.case_id, a.domain, a.label, a.x_l0, a.y_l0, a.status, "
    "s.kind, s.path, s.mpp, s.width, s.height, s.status as slide_status "
    "from annotations a join slides s using (dataset, slide) where dataset = $dataset"
)
"""Where the annotations of a dataset lie."""

DOWN_THE_SLIDES = "order by slide, y_l0, x_l0, annotation_id"
"""The order in which patches are read: slide by slide, row by row."""


def slide_jobs(rows: Sequence[Mapping[str, Any]]) -> list[SlideJob]:
    """Return the reading of some annotations, slide by slide.

    A row has annotation_id, slide, x_l0, y_l0, kind, path, mpp, and `wants`: what each model lacks.
    """
    by_slide: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_slide.setdefault(row["slide"], []).append(row)
    return [
        SlideJob(
            slide,
            on_slide[0]["path"],
            None if on_slide[0]["kind"] == "patch" else on_slide[0]["mpp"],
            [Point(r["annotation_id"], r["x_l0"], r["y_l0"], r.get("wants", {})) for r in on_slide],
        )
        for slide, on_slide in by_slide.items()
    ]


def located(store: Store, dataset: str) -> dict[str, dict[str, Any]]:
    """Return where each usable annotation of a dataset lies, by id: rows for `slide_jobs`."""
    rows = fetch_rows(connect(store), f"{PLACES} {DOWN_THE_SLIDES}", {"dataset": dataset})
    return {r["annotation_id"]: r for r in rows if r["status"] == "ok"}


def fill(
    cache: PatchCache,
    rows: Sequence[Mapping[str, Any]],
    geometry: PatchGeometry,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Read and keep the crops of these annotations (rows of `located`) that are not kept.

    EmbedstoreError naming the slides that could not be read; what was read is kept.
    """
    missing = [r for r in rows if r["annotation_id"] not in cache and r["kind"] != "patch"]
    failed: dict[str, str] = {}
    done = 0
    on_progress(0, len(missing))
    stream = read_ahead(slide_jobs(missing), geometry, workers, cache)
    try:
        for slide, read in stream:
            done += len(read.patches)
            if read.problem is not None:
                failed.setdefault(slide, read.problem)
            on_progress(done, len(missing))
    finally:
        stream.close()
        cache.flush()
    cache.reload()
    if failed:
        said = "; ".join(f"{s}: {why}" for s, why in list(failed.items())[:5])
        raise EmbedstoreError(
            f"{len(failed)} slides cannot be read ({said}); mend the files, or run `embedstore "
            "ingest`: it sets them aside, and a manifest made after that does without"
        )
