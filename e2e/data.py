"""What a training takes: annotations of a role, those of a step, their patches read ahead of it."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """Annotations of one role: ids, and label codes int64 (n,).

    shares: of the labels, float32 (n, K), where a cell is not wholly one; weights: float32 (n,), of
    mean 1, how much each counts. None where all are one label and count alike.
    """

    ids: Sequence[str]
    codes: NDArray[np.int64]
    shares: Floats | None = None
    weights: Floats | None = None


def even_weights(groups: Sequence[str]) -> Floats:
    """Return weights, float32 (n,) of mean 1, by which each group counts as much as any other."""
    _, at, counts = np.unique(np.array(groups, dtype=str), return_inverse=True, return_counts=True)
    weights: Floats = (len(groups) / (len(counts) * counts[at])).astype(np.float32)
    return weights


def vote_shares(
    votes: Sequence[Sequence[str]], codes: NDArray[np.int64], labels: Sequence[str]
) -> Floats:
    """Return what share of a cell's votes each label has, float32 (n, K).

    Votes for none of the labels do not count; a cell without votes is wholly its own label, of
    which codes (n,) is the place.
    """
    shares = np.zeros((len(votes), len(labels)), dtype=np.float32)
    place = {label: k for k, label in enumerate(labels)}
    for n, of in enumerate(votes):
        for vote in of:
            if vote in place:
                shares[n, place[vote]] += 1
    empty = ~shares.any(axis=1)
    shares[empty, codes[empty]] = 1
    shares /= shares.sum(axis=1, keepdims=True)
    return shares


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
