"""The embedding loop: slides in, batches of vectors out; knows nothing of any store.

Patches are read by a pool of threads (OpenSlide and Pillow release the interpreter lock) a bounded
way ahead of the model, so that neither waits for the other and memory stays flat.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import SlideError
from embedstore.patches import PatchGeometry, fit_patch, read_patch, turn
from embedstore.slides import Slide, read_image

CHUNK = 16
"""Patches one task reads; small enough to share a slide among threads."""


@dataclass(frozen=True)
class Point:
    """An annotation to embed: its centre in level-0 pixels and, by model, the views it lacks."""

    annotation_id: str
    x_l0: float
    y_l0: float
    wants: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SlideJob:
    """The points of one slide; mpp in micrometres per level-0 pixel, None for a pre-cropped patch.

    A file without mpp is one patch, whole: no scale is applied to it.
    """

    slide: str
    path: str
    mpp: float | None
    points: Sequence[Point]


@dataclass(frozen=True)
class Embedded:
    """A batch of one model: ids and views, and vectors float32 (n, dim) in the same order."""

    model: str
    annotation_ids: list[str]
    views: list[str]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class SlideFailed:
    """A slide that could not be read, wholly or in part, and why."""

    slide: str
    problem: str


class CanEmbed(Protocol):
    """What the loop needs of a model."""

    name: str

    def embed(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return float32 (n, dim) for uint8 (n, height, width, 3)."""
        ...


def embed_slides(
    jobs: Iterable[SlideJob],
    models: Sequence[CanEmbed],
    geometry: PatchGeometry,
    *,
    batch_size: int,
    workers: int,
) -> Generator[Embedded | SlideFailed, None, None]:
    """Yield every missing embedding once, in batches, and every slide that failed, once.

    Each patch is read once for all models that lack it. A slide that fails does not stop the rest;
    its patches read before the failure are still embedded.
    """
    waiting: dict[str, _Batch] = {m.name: _Batch() for m in models}
    failed: set[str] = set()
    for slide, read in _read_ahead(jobs, geometry, workers):
        for point, patch in read.patches:
            for model in models:
                for view in point.wants.get(model.name, ()):
                    batch = waiting[model.name]
                    batch.add(point.annotation_id, view, patch)
                    if len(batch.ids) == batch_size:
                        yield batch.embed(model)
        if read.problem is not None and slide not in failed:
            failed.add(slide)
            yield SlideFailed(slide, read.problem)
    for model in models:
        if waiting[model.name].ids:
            yield waiting[model.name].embed(model)


def sample_patches(jobs: Sequence[SlideJob], geometry: PatchGeometry, n: int) -> NDArray[np.uint8]:
    """Return up to n patches, uint8 (m, size_px, size_px, 3), spread evenly over the jobs.

    Slides that cannot be read give none.
    """
    points = [(job, p) for job in jobs for p in job.points]
    chosen = {round(k) for k in np.linspace(0, len(points) - 1, min(n, len(points)))}
    found = []
    for job, point in (points[k] for k in sorted(chosen)):
        read = _read_chunk(_Handle(job.path, 1), job.mpp, [point], geometry)
        found += [patch for _, patch in read.patches]
    size = geometry.size_px
    return np.stack(found) if found else np.empty((0, size, size, 3), dtype=np.uint8)


@dataclass
class _Batch:
    ids: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    patches: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, annotation_id: str, view: str, patch: NDArray[np.uint8]) -> None:
        self.ids.append(annotation_id)
        self.views.append(view)
        self.patches.append(turn(patch, view))

    def embed(self, model: CanEmbed) -> Embedded:
        ids, views, patches = self.ids, self.views, np.stack(self.patches)
        self.ids, self.views, self.patches = [], [], []
        return Embedded(model.name, ids, views, model.embed(patches))


@dataclass(frozen=True)
class _Read:
    patches: list[tuple[Point, NDArray[np.uint8]]]
    problem: str | None


class _Handle:
    """One slide shared by the tasks that read it: opened by the first, closed after the last."""

    def __init__(self, path: str, n_tasks: int) -> None:
        self.path, self._left = path, n_tasks
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
                except SlideError as e:
                    self._problem = e
                    raise
            return self._slide

    def done(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0 and self._slide is not None:
                self._slide.__exit__()


def _read_chunk(
    handle: _Handle, mpp: float | None, points: Sequence[Point], geometry: PatchGeometry
) -> _Read:
    patches: list[tuple[Point, NDArray[np.uint8]]] = []
    try:
        if mpp is None:
            whole = fit_patch(read_image(handle.path), geometry.size_px)
            return _Read([(p, whole) for p in points], None)
        slide = handle.open()
        for p in points:
            patches.append((p, read_patch(slide, p.x_l0, p.y_l0, mpp, geometry)))
    except SlideError as e:
        return _Read(patches, str(e))
    finally:
        handle.done()
    return _Read(patches, None)


def _read_ahead(
    jobs: Iterable[SlideJob], geometry: PatchGeometry, workers: int
) -> Iterator[tuple[str, _Read]]:
    """Yield the chunks of all jobs in order, reading at most a few chunks a thread ahead."""
    pending: deque[tuple[str, int, Future[_Read]]] = deque()
    n_ahead = 0  # patches, since a chunk of a small slide holds few
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    try:
        for job in jobs:
            chunks = [job.points[i : i + CHUNK] for i in range(0, len(job.points), CHUNK)]
            handle = _Handle(job.path, len(chunks))
            for chunk in chunks:
                while n_ahead >= 4 * workers * CHUNK:
                    slide, n, future = pending.popleft()
                    n_ahead -= n
                    yield slide, future.result()
                task = pool.submit(_read_chunk, handle, job.mpp, chunk, geometry)
                pending.append((job.slide, len(chunk), task))
                n_ahead += len(chunk)
        while pending:
            slide, _, future = pending.popleft()
            yield slide, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
