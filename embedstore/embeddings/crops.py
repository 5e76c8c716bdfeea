"""Where annotations lie, and the crops around them, read from slides or from the store."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from embedstore.errors import EmbedstoreError
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.reading import Point, SlideJob, read_ahead
from embedstore.store.layout import CUT
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.store import Store

PLACES = (
    "select a.annotation_id, a.dataset, a.slide, a.case_id, a.domain, a.label, a.x_l0, a.y_l0, "
    "a.status, s.kind, s.path, s.mpp, s.width, s.height, s.status as slide_status, "
    "a.source_slide, s.fingerprint from annotations a join slides s using (dataset, slide) "
    "where dataset = $dataset"
)
"""Where the annotations of a dataset lie."""

DOWN_THE_SLIDES = (
    "order by slide, floor(y_l0 / 1024), floor(x_l0 / 1024), y_l0, x_l0, annotation_id"
)
"""The order in which patches are read: slide by slide, neighbours after one another."""


@dataclass(frozen=True, kw_only=True)
class Placed(Point):
    """An annotation to read and where it lies: a row of `PLACES`.

    mpp (um per level-0 pixel), width and height (level-0 pixels), kind ("patch" for a pre-cropped
    one) and path are of its slide.
    """

    dataset: str
    slide: str
    case_id: str
    domain: str
    label: str
    status: str
    kind: str | None
    path: str
    mpp: float | None
    width: int | None
    height: int | None
    slide_status: str
    source_slide: str | None = None
    fingerprint: str | None = None

    @property
    def from_slide(self) -> str:
        """The slide that it comes from; a patch whose slide is not named is its own."""
        return self.source_slide or self.slide

    @property
    def is_patch(self) -> bool:
        """Whether it was cropped before, so that its file is the patch."""
        return self.kind == "patch"

    @property
    def can_be_read(self) -> bool:
        """Whether its slide can be, as far as is known."""
        return self.slide_status == "ok"

    @property
    def cut(self) -> dict[str, Any]:
        """What its pixels are of, as the columns `CUT`: a patch has no place but its file."""
        x, y, mpp = (None, None, None) if self.is_patch else (self.x_l0, self.y_l0, self.mpp)
        return dict(zip(CUT, (x, y, mpp, self.fingerprint), strict=True))


def slide_jobs(placed: Sequence[Placed]) -> list[SlideJob]:
    """Return the reading of some annotations, slide by slide."""
    by_slide: dict[str, list[Placed]] = {}
    for p in placed:
        by_slide.setdefault(p.slide, []).append(p)
    return [
        SlideJob(
            slide,
            on_slide[0].path,
            None if on_slide[0].is_patch else on_slide[0].mpp,
            on_slide,
            on_slide[0].fingerprint,
        )
        for slide, on_slide in by_slide.items()
    ]


def located(store: Store, dataset: str) -> dict[str, Placed]:
    """Return where each usable annotation of a dataset lies, by id."""
    rows = fetch_rows(connect(store), f"{PLACES} {DOWN_THE_SLIDES}", {"dataset": dataset})
    return {r["annotation_id"]: Placed(**r) for r in rows if r["status"] == "ok"}


def fill(
    cache: PatchCache,
    placed: Sequence[Placed],
    geometry: PatchGeometry,
    *,
    workers: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Read and keep the crops of these annotations that are not kept.

    EmbedstoreError naming the slides that could not be read; what was read is kept.
    """
    missing = [p for p in placed if p.annotation_id not in cache and not p.is_patch]
    failed: dict[str, str] = {}
    done = 0
    on_progress(0, len(missing))
    stream = read_ahead(slide_jobs(missing), [geometry], workers, {geometry: cache})
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
