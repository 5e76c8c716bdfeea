"""Patches on their way from slides: read by threads a bounded way ahead, each of them once.

OpenSlide and Pillow release the interpreter lock, so threads are enough; nothing here knows of a
store.
"""

import os
import threading
from collections import deque
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import SlideError
from embedstore.slides.images import read_image
from embedstore.slides.patches import PatchGeometry, centre, fit_patch, read_patches
from embedstore.slides.placement import JITTER
from embedstore.slides.slide import CHANGED, Slide, check_fingerprint, state_of

CHUNK = 16
"""Patches one task reads; small enough to share a slide among threads."""


def ahead(workers: int) -> int:
    """Return how many patches at most are read ahead of those that are taken."""
    return 4 * workers * CHUNK


def usual_threads() -> int:
    """Return how many threads read patches where nothing else is asked for."""
    return min(os.cpu_count() or 1, 16)


@dataclass(frozen=True)
class Point:
    """An annotation to embed: its centre in level-0 pixels and, by model, the views it lacks.

    A model stands for one geometry; without wants a point is read in every geometry.
    """

    annotation_id: str
    x_l0: float
    y_l0: float
    wants: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SlideJob:
    """The points of one slide; mpp in micrometres per level-0 pixel, None for a pre-cropped patch.

    A file without mpp is one patch, whole: no scale is applied to it. fingerprint is what the file
    must have; None leaves that open.
    """

    slide: str
    path: str
    mpp: float | None
    points: Sequence[Point]
    fingerprint: str | None = None


class Crops(Protocol):
    """Where wider crops of patches are kept between readings; used by several threads at once."""

    def read(self, annotation_ids: Sequence[str]) -> Mapping[str, NDArray[np.uint8]]:
        """Return those crops that are kept, each uint8 (wide, wide, 3), wide of `geometry.wide`."""
        ...

    def keep(self, job: SlideJob, point: Point, crop: NDArray[np.uint8]) -> None:
        """Take a crop that was read from a slide."""
        ...


def sample_patches(jobs: Sequence[SlideJob], geometry: PatchGeometry, n: int) -> NDArray[np.uint8]:
    """Return up to n patches, uint8 (m, size_px, size_px, 3), spread evenly over the jobs.

    Slides that cannot be read give none.
    """
    points = [(job, p) for job in jobs for p in job.points]
    chosen = {round(k) for k in np.linspace(0, len(points) - 1, min(n, len(points)))}
    sampled = []
    for job, point in (points[k] for k in sorted(chosen)):
        read = _read_chunk(_Handle(job, 1), job, [point], _Fields([geometry]))
        sampled += [centre(crops[geometry], geometry.size_px) for _, crops in read.patches]
    size = geometry.size_px
    return np.stack(sampled) if sampled else np.empty((0, size, size, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Read:
    """Crops read, uint8 (side, side, 3) by geometry, and why no more were, if so.

    The patch is the middle of its crop, which is wider where it is kept or shifted views are asked.
    """

    patches: list[tuple[Point, Mapping[PatchGeometry, NDArray[np.uint8]]]]
    problem: str | None


@dataclass(frozen=True)
class _Fields:
    """Which geometries a point is read in, and where wider crops of them are kept, if they are."""

    geometries: Sequence[PatchGeometry]
    of_model: Mapping[str, PatchGeometry] = field(default_factory=dict)
    crops: Mapping[PatchGeometry, Crops] = field(default_factory=dict)

    def of(self, point: Point) -> list[PatchGeometry]:
        wanted = [self.of_model[m] for m in point.wants if m in self.of_model]
        return list(dict.fromkeys(wanted)) or list(self.geometries)


class _Handle:
    """One slide shared by the tasks that read it: opened by the first, closed after the last."""

    def __init__(self, job: SlideJob, n_tasks: int) -> None:
        self.path, self._left = job.path, n_tasks
        self._fingerprint, self._seen = job.fingerprint, ""
        self._lock = threading.Lock()
        self._slide: Slide | None = None
        self._problem: SlideError | None = None

    def open(self) -> Slide:
        with self._lock:
            if self._problem is not None:
                raise self._problem
            if self._slide is None:
                try:
                    self._slide = Slide(self.path)
                    self._seen = state_of(self.path)
                    check_fingerprint(self.path, self._fingerprint)
                except SlideError as e:
                    self._problem = e
                    raise
            return self._slide

    def has_changed(self) -> bool:
        """Return whether the file was written to since it was opened."""
        return state_of(self.path) != self._seen

    def done(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._slide is not None:
                self._slide.close()


def _is_shifted(point: Point) -> bool:
    return any(view in JITTER for views in point.wants.values() for view in views)


def _read_chunk(handle: _Handle, job: SlideJob, points: Sequence[Point], fields: _Fields) -> Read:
    patches: list[tuple[Point, Mapping[PatchGeometry, NDArray[np.uint8]]]] = []
    fresh: list[tuple[Point, PatchGeometry, NDArray[np.uint8]]] = []
    problem = None
    try:
        if job.mpp is None:
            image = read_image(handle.path, job.fingerprint)
            whole = {g: fit_patch(image, g.size_px) for g in fields.geometries}
            return Read([(p, whole) for p in points], None)
        kept = {g: c.read([p.annotation_id for p in points]) for g, c in fields.crops.items()}
        for p in points:
            crops = {g: kept.get(g, {}).get(p.annotation_id) for g in fields.of(p)}
            wide = kept if not _is_shifted(p) else crops
            lacking = {g: g.wide() if g in wide else g for g, c in crops.items() if c is None}
            if lacking:
                read = read_patches(handle.open(), p.x_l0, p.y_l0, job.mpp, lacking.values())
                fresh += [(p, g, read[wanted]) for g, wanted in lacking.items()]
                crops |= {g: read[wanted] for g, wanted in lacking.items()}
            patches.append((p, {g: c for g, c in crops.items() if c is not None}))
    except SlideError as e:
        problem = str(e)
    finally:
        handle.done()
    if fresh and handle.has_changed():  # who knows of which file each patch is
        unsure = {p.annotation_id for p, _, _ in fresh}
        patches = [(p, of_point) for p, of_point in patches if p.annotation_id not in unsure]
        return Read(patches, f"{handle.path} {CHANGED}")
    for p, g, crop in fresh:
        if g in fields.crops:
            fields.crops[g].keep(job, p, crop)
    return Read(patches, problem)


def read_ahead(
    jobs: Iterable[SlideJob],
    geometries: Sequence[PatchGeometry],
    workers: int,
    crops: Mapping[PatchGeometry, Crops] | None = None,
    of_model: Mapping[str, PatchGeometry] | None = None,
) -> Generator[tuple[str, Read], None, None]:
    """Yield the chunks of all jobs in order, reading at most a few chunks a thread ahead.

    A point is read in the geometries (`of_model`) of the models that lack it, else in all. With
    `crops` a patch is the middle of a wider crop, taken from there or kept there.
    """
    fields = _Fields(geometries, of_model or {}, crops or {})
    pending: deque[tuple[str, int, Future[Read]]] = deque()
    n_ahead = 0  # patches, since a chunk of a small slide holds few
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    try:
        for job in jobs:
            chunks = [job.points[i : i + CHUNK] for i in range(0, len(job.points), CHUNK)]
            handle = _Handle(job, len(chunks))
            for chunk in chunks:
                while n_ahead >= ahead(workers):
                    slide, n, future = pending.popleft()
                    n_ahead -= n
                    yield slide, future.result()
                task = pool.submit(_read_chunk, handle, job, chunk, fields)
                pending.append((job.slide, len(chunk), task))
                n_ahead += len(chunk)
        while pending:
            slide, _, future = pending.popleft()
            yield slide, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
