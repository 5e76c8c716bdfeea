"""The embedding loop: slides in, batches of vectors out; knows nothing of any store.

Patches are read by a pool of threads (OpenSlide and Pillow release the interpreter lock) a bounded
way ahead of the model, so that neither waits for the other and memory stays flat.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import SlideError
from embedstore.patches import PatchGeometry, read_patch
from embedstore.slides import Slide

CHUNK = 16
"""Patches one task reads; small enough to share a slide among threads."""


@dataclass(frozen=True)
class Point:
    """An annotation to embed: its centre in level-0 pixels and the models that lack it."""

    annotation_id: str
    x_l0: float
    y_l0: float
    models: frozenset[str]


@dataclass(frozen=True)
class SlideJob:
    """The points of one slide; mpp in micrometres per level-0 pixel."""

    slide: str
    path: str
    mpp: float
    points: Sequence[Point]


@dataclass(frozen=True)
class Embedded:
    """A batch of one model: ids, and vectors float32 (n, dim) in the same order."""

    model: str
    annotation_ids: list[str]
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
                if model.name in point.models:
                    batch = waiting[model.name]
                    batch.add(point.annotation_id, patch)
                    if len(batch.ids) == batch_size:
                        yield batch.embed(model)
        if read.problem is not None and slide not in failed:
            failed.add(slide)
            yield SlideFailed(slide, read.problem)
    for model in models:
        if waiting[model.name].ids:
            yield waiting[model.name].embed(model)


@dataclass
class _Batch:
    ids: list[str] = field(default_factory=list)
    patches: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, annotation_id: str, patch: NDArray[np.uint8]) -> None:
        self.ids.append(annotation_id)
        self.patches.append(patch)

    def embed(self, model: CanEmbed) -> Embedded:
        ids, patches = self.ids, np.stack(self.patches)
        self.ids, self.patches = [], []
        return Embedded(model.name, ids, model.embed(patches))


@dataclass(frozen=True)
class _Read:
    patches: list[tuple[Point, NDArray[np.uint8]]]
    problem: str | None


class _Handle:
    """One slide shared by the tasks that read it: opened by the first, closed after the last."""

    def __init__(self, path: str, n_tasks: int) -> None:
        self._path, self._left = path, n_tasks
        self._lock = threading.Lock()
        self._slide: Slide | None = None
        self._problem: SlideError | None = None

    def open(self) -> Slide:
        with self._lock:
            if self._problem is not None:
                raise self._problem
            if self._slide is None:
                try:
                    self._slide = Slide(self._path)
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
    handle: _Handle, mpp: float, points: Sequence[Point], geometry: PatchGeometry
) -> _Read:
    patches = []
    try:
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
    pending: deque[tuple[str, Future[_Read]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="patches")
    try:
        for job in jobs:
            chunks = [job.points[i : i + CHUNK] for i in range(0, len(job.points), CHUNK)]
            handle = _Handle(job.path, len(chunks))
            for chunk in chunks:
                while len(pending) >= 4 * workers:
                    slide, future = pending.popleft()
                    yield slide, future.result()
                task = pool.submit(_read_chunk, handle, job.mpp, chunk, geometry)
                pending.append((job.slide, task))
        while pending:
            slide, future = pending.popleft()
            yield slide, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
