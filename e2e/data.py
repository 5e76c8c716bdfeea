"""Batches for training: which annotations a step takes, and their patches read ahead of it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.embeddings.crops import Placed
from embedstore.slides.fingerprint import check_fingerprint
from embedstore.slides.images import read_image
from embedstore.slides.patches import PatchGeometry, fit_patch
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store.patch_cache import PatchCache

Rows = NDArray[np.int64]


class Patches(Protocol):
    """Where the crops of annotations come from; used by several threads at once."""

    def read(self, annotation_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Return crops, uint8 (n, wide, wide, 3), in this order."""
        ...


class StoredPatches:
    """The patches of a dataset: from the cache where they are kept, else from their slides.

    placed holds where each annotation lies, by id (`crops.located`). A pre-cropped patch has
    nothing around it: it is continued by its mirror image.
    """

    def __init__(
        self,
        placed: Mapping[str, Placed],
        geometry: PatchGeometry,
        cache: PatchCache | None,
    ) -> None:
        """Hold where to read; nothing is read yet."""
        self._placed, self._geometry, self._cache = placed, geometry, cache

    def read(self, annotation_ids: Sequence[str]) -> NDArray[np.uint8]:
        """Return crops, uint8 (n, wide, wide, 3); SlideError where a slide cannot be read."""
        crops = {} if self._cache is None else self._cache.read(annotation_ids)
        lacking: dict[str, list[str]] = {}
        for i in annotation_ids:
            if i not in crops:
                lacking.setdefault(self._placed[i].path, []).append(i)
        for path, ids in lacking.items():
            crops |= self._from_file(path, ids)
        return np.stack([crops[i] for i in annotation_ids])

    def _from_file(self, path: str, ids: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
        size, wide = self._geometry.size_px, self._geometry.wide()
        first = self._placed[ids[0]]
        if first.is_patch or first.mpp is None:
            margin = (wide.size_px - size) // 2
            pad = ((margin, margin), (margin, margin), (0, 0))
            patch = fit_patch(read_image(path, first.fingerprint), size)
            return {i: np.pad(patch, pad, mode="reflect") for i in ids}
        with Slide(path) as slide:
            check_fingerprint(path, first.fingerprint)
            return {
                i: read_patch(slide, p.x_l0, p.y_l0, first.mpp, wide)
                for i, p in ((i, self._placed[i]) for i in ids)
            }


def n_batches(n: int, batch_size: int) -> int:
    """Return into how many batches n annotations are divided, none of a single one (n > 1)."""
    return max(1, min(-(-n // batch_size), n // 2))


def rows_of_step(n: int, batch_size: int, seed: int, step: int) -> Rows:
    """Return which of n annotations the step takes, int64.

    Passes follow each other, each a permutation of its own cut into batches of nearly one size, so
    that batch normalisation never meets a batch of one. It depends on the step alone: training goes
    on anywhere.
    """
    n_each = n_batches(n, batch_size)
    order = np.random.default_rng([seed, step // n_each]).permutation(n)
    rows: Rows = np.array_split(order, n_each)[step % n_each]
    return rows


def read_batches(
    patches: Patches, ids: Sequence[str], batches: Iterable[Rows], *, workers: int
) -> Iterator[tuple[Rows, NDArray[np.uint8]]]:
    """Yield each batch's rows and crops in order, read by threads a few batches ahead."""
    pending: deque[tuple[Rows, Future[NDArray[np.uint8]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="crops")
    try:
        for rows in batches:
            pending.append((rows, pool.submit(patches.read, [ids[k] for k in rows])))
            if len(pending) > workers + 1:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
