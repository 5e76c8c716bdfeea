"""The embedding loop: slides in, batches of vectors out; knows nothing of any store."""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.slides.patches import PatchGeometry, turn
from embedstore.slides.reading import Crops, SlideJob, read_ahead


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
    crops: Crops | None = None,
) -> Generator[Embedded | SlideFailed, None, None]:
    """Yield every missing embedding once, in batches, and every slide that failed, once.

    Each patch is read once for all models that lack it, from `crops` where it is kept there. A
    slide that fails does not stop the rest; its patches read before the failure are embedded.
    """
    waiting: dict[str, _Batch] = {m.name: _Batch() for m in models}
    failed: set[str] = set()
    for slide, read in read_ahead(jobs, geometry, workers, crops):
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
