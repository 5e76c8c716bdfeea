"""The embedding loop: slides in, batches of vectors out; knows nothing of any store.

Threads read while networks embed. A network on a GPU has a thread of its own besides, so that it
waits for nothing but patches. One on the processor runs in the caller's thread: in another it had
a fifth less speed, and nothing to win.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.slides.patches import PatchGeometry, embedded_views, view_of
from embedstore.slides.reading import Crops, Point, SlideJob, read_ahead


@dataclass(frozen=True)
class Embedded:
    """A batch of one model: points and views, and vectors float32 (n, dim) in the same order."""

    model: str
    points: list[Point]
    views: list[str]
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class SlideFailed:
    """A slide that could not be read, wholly or in part, and why."""

    slide: str
    problem: str


class CanEmbed(Protocol):
    """What the loop needs of a network."""

    name: str

    @property
    def is_on_gpu(self) -> bool:
        """Whether its passes leave the processor free."""
        ...

    def embed_pools(
        self, patches: NDArray[np.uint8], pools: Sequence[str], mpp_out: float
    ) -> Sequence[NDArray[np.float32]]:
        """Return float32 (n, dim) a pool for uint8 (n, height, width, 3)."""
        ...


@dataclass(frozen=True)
class Look:
    """A network given one field of view: the pools taken of each pass, by the names they go by."""

    network: CanEmbed
    geometry: PatchGeometry
    pools: Mapping[str, str]


@dataclass
class Waited:
    """Seconds that an ingest has waited for each of its parts: the largest is what holds it up."""

    reading: float = 0.0
    model: float = 0.0
    writing: float = 0.0

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Add the time of what is done within to a part."""
        started = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, part, getattr(self, part) + time.perf_counter() - started)

    def shares(self) -> dict[str, float]:
        """Return the share of each part in all waiting."""
        total = max(sum(vars(self).values()), 1e-9)
        return {part: seconds / total for part, seconds in vars(self).items()}

    def words(self) -> str:
        """Say those shares."""
        return f"waited for {', '.join(f'{part} {s:.0%}' for part, s in self.shares().items())}"


PASSES_AHEAD = 2
"""Batches that are with networks on a GPU at once: one in work, the next ready."""


def embed_slides(
    jobs: Iterable[SlideJob],
    looks: Sequence[Look],
    *,
    batch_size: int,
    workers: int,
    crops: Mapping[PatchGeometry, Crops] | None = None,
    waited: Waited | None = None,
) -> Generator[Embedded | SlideFailed, None, None]:
    """Yield every missing embedding once, in batches, and every slide that failed, once.

    Each region is read once for all looks that lack it, from `crops` where it is kept there, and
    given to a network once for all pools. A slide that fails does not stop the rest; its patches
    read before the failure are embedded. `waited` is kept up to date.
    """
    waited = waited or Waited()
    passes = _Passes(waited, any(look.network.is_on_gpu for look in looks))
    try:
        for event in _events(jobs, looks, batch_size, workers, crops or {}, waited):
            if isinstance(event, SlideFailed):
                yield event
            else:
                yield from passes.start(event)
        yield from passes.finish()
    finally:
        passes.close()


def _events(
    jobs: Iterable[SlideJob],
    looks: Sequence[Look],
    batch_size: int,
    workers: int,
    crops: Mapping[PatchGeometry, Crops],
    waited: Waited,
) -> Iterator["_Batch | SlideFailed"]:
    """Yield batches of patches, and the slides that failed."""
    batches = {id(look): _Batch(look) for look in looks}
    of_model = {name: look.geometry for look in looks for name in look.pools}
    geometries = list(dict.fromkeys(of_model.values()))
    failed: set[str] = set()
    chunks = read_ahead(jobs, geometries, workers, crops, of_model)
    while True:
        with waited.on("reading"):
            chunk = next(chunks, None)
        if chunk is None:
            break
        slide, read = chunk
        for point, crops_of in read.patches:
            for look in looks:
                for view, names in _lacking(look, point.wants).items():
                    batch = batches[id(look)]
                    batch.add(point, view, names, crops_of[look.geometry])
                    if len(batch.points) == batch_size:
                        yield batch
                        batches[id(look)] = _Batch(look)
        if read.problem is not None and slide not in failed:
            failed.add(slide)
            yield SlideFailed(slide, read.problem)
    yield from (batch for batch in batches.values() if batch.points)


def _lacking(look: Look, wants: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
    """Return the views that any of the look's models lacks, and which do."""
    lacking: dict[str, set[str]] = {}
    for name in look.pools:
        for view in embedded_views(wants.get(name, ())):
            lacking.setdefault(view, set()).add(name)
    return lacking


class _Passes:
    """Batches with the networks, whose vectors come in the same order; beside: in a thread."""

    def __init__(self, waited: Waited, beside: bool) -> None:
        self._waited, self._beside = waited, beside
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._running: deque[Future[list[Embedded]]] = deque()

    def start(self, batch: "_Batch") -> Iterator[Embedded]:
        """Hand on a batch, and take what is ready where enough are with the networks."""
        patches = np.stack(batch.patches)
        if not self._beside:
            with self._waited.on("model"):
                embedded = batch.embedded(patches)
            yield from embedded
            return
        self._running.append(self._thread.submit(batch.embedded, patches))
        while len(self._running) > PASSES_AHEAD:
            yield from self._next()

    def finish(self) -> Iterator[Embedded]:
        """Take all that is left."""
        while self._running:
            yield from self._next()

    def close(self) -> None:
        """Wait for the batch in work; what was not taken is lost."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _next(self) -> list[Embedded]:
        with self._waited.on("model"):
            return self._running.popleft().result()


@dataclass
class _Batch:
    """The patches that wait for one pass of a network; names: the models that lack each."""

    look: Look
    points: list[Point] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    names: list[set[str]] = field(default_factory=list)
    patches: list[NDArray[np.uint8]] = field(default_factory=list)

    def add(self, point: Point, view: str, names: set[str], crop: NDArray[np.uint8]) -> None:
        self.points.append(point)
        self.views.append(view)
        self.names.append(names)
        self.patches.append(view_of(crop, view, point.annotation_id, self.look.geometry))

    def embedded(self, patches: NDArray[np.uint8]) -> list[Embedded]:
        """Return what the network makes of the batch, its patches stacked."""
        look, lacked = self.look, set().union(*self.names)
        pools = {name: pool for name, pool in look.pools.items() if name in lacked}
        distinct = list(dict.fromkeys(pools.values()))
        vectors = look.network.embed_pools(patches, distinct, look.geometry.mpp_out)
        of_pool = dict(zip(distinct, vectors, strict=True))
        result = []
        for name, pool in pools.items():
            rows = [k for k, lacking in enumerate(self.names) if name in lacking]
            points, views = [self.points[k] for k in rows], [self.views[k] for k in rows]
            result.append(Embedded(name, points, views, of_pool[pool][rows]))
        return result
