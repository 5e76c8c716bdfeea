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
from embedstore.slides.fingerprint import CHANGED, check_fingerprint, state_of
from embedstore.slides.images import read_image
from embedstore.slides.patches import PatchGeometry, centre, fit_patch
from embedstore.slides.placement import JITTER
from embedstore.slides.regions import read_each
from embedstore.slides.slide import Slide

CHUNK = 128
"""Patches one task reads at most: neighbours share what is read, and threads share a slide."""

CHUNK_PX = 2**24
"""Pixels that the patches of one task have at most, where they are more than one."""


def chunk_size(squares: Iterable[PatchGeometry], mpp: float | None = None) -> int:
    """Return how many patches, each in these squares, one task reads of a slide of this mpp."""
    sides = (g.size_px * max(g.mpp_out / (mpp or g.mpp_out), 1) for g in squares)
    return max(1, min(CHUNK, int(CHUNK_PX / sum(side**2 for side in sides))))


def ahead(workers: int, squares: Iterable[PatchGeometry]) -> int:
    """Return how many patches, each in these squares, are read ahead at most."""
    return 2 * workers * chunk_size(squares)


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
    wants: Mapping[str, Sequence[str]] = field(default_factory=dict)


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
    try:
        if job.mpp is None:
            image = read_image(handle.path, job.fingerprint)
            whole = {g: fit_patch(image, g.size_px) for g in fields.geometries}
            return Read([(p, whole) for p in points], None)
        return _read_points(handle, job, points, fields)
    except SlideError as e:
        return Read([], str(e))
    finally:
        handle.done()


def _read_points(handle: _Handle, job: SlideJob, points: Sequence[Point], fields: _Fields) -> Read:
    kept = {g: c.read([p.annotation_id for p in points]) for g, c in fields.crops.items()}
    found: list[dict[PatchGeometry, NDArray[np.uint8]]] = []
    lacking: dict[int, dict[PatchGeometry, PatchGeometry]] = {}  # as which square each is read
    for n, p in enumerate(points):
        crops = {g: kept.get(g, {}).get(p.annotation_id) for g in fields.of(p)}
        found.append({g: crop for g, crop in crops.items() if crop is not None})
        if to_read := [g for g, crop in crops.items() if crop is None]:
            is_wide = {g: g in fields.crops or _is_shifted(p) for g in to_read}
            lacking[n] = {g: g.wide() if is_wide[g] else g for g in to_read}
    fresh, problem = _read_fresh(handle, job, points, lacking)
    if fresh and handle.has_changed():  # who knows of which file each patch is
        fresh, problem = {}, f"{handle.path} {CHANGED}"
    for n, crops_of in fresh.items():
        found[n] |= crops_of
        for g in crops_of.keys() & fields.crops.keys():
            fields.crops[g].keep(job, points[n], crops_of[g])
    is_whole = [n not in lacking or n in fresh for n in range(len(points))]
    return Read([(points[n], found[n]) for n, whole in enumerate(is_whole) if whole], problem)


def _read_fresh(
    handle: _Handle,
    job: SlideJob,
    points: Sequence[Point],
    lacking: Mapping[int, Mapping[PatchGeometry, PatchGeometry]],
) -> tuple[dict[int, dict[PatchGeometry, NDArray[np.uint8]]], str | None]:
    """Return the crops of points by their places, and why those of some are missing, if so."""
    places, fresh = list(lacking), dict[int, dict[PatchGeometry, NDArray[np.uint8]]]()
    wanted = [(points[n].x_l0, points[n].y_l0, lacking[n].values()) for n in places]
    if not wanted or job.mpp is None:
        return fresh, None
    try:
        for k, read in read_each(handle.open(), wanted, job.mpp):
            n = places[k]
            fresh[n] = {g: read[square] for g, square in lacking[n].items()}
    except SlideError as e:
        return fresh, str(e)
    return fresh, None


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
    squares = [g.wide() if g in fields.crops else g for g in geometries]
    pending: deque[tuple[str, int, Future[Read]]] = deque()
    n_ahead, most = 0, ahead(workers, squares)  # patches, since a chunk of a small slide holds few
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    try:
        for job in jobs:
            size = chunk_size(squares, job.mpp)
            chunks = [job.points[i : i + size] for i in range(0, len(job.points), size)]
            handle = _Handle(job, len(chunks))
            for chunk in chunks:
                while n_ahead >= most:
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
