"""The embedding loop: slides in, batches of vectors out; knows nothing of any store."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.slides.patches import PatchGeometry, view_of
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
    """What the loop needs of a network."""

    name: str

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


def embed_slides(
    jobs: Iterable[SlideJob],
    looks: Sequence[Look],
    *,
    batch_size: int,
    workers: int,
    crops: Mapping[PatchGeometry, Crops] | None = None,
) -> Generator[Embedded | SlideFailed, None, None]:
    """Yield every missing embedding once, in batches, and every slide that failed, once.

    Each region is read once for all looks that lack it, from `crops` where it is kept there, and
    given to a network once for all pools. A slide that fails does not stop the rest; its patches
    read before the failure are embedded.
    """
    batches = [_Batch(look) for look in looks]
    of_model = {name: look.geometry for look in looks for name in look.pools}
    geometries = list(dict.fromkeys(of_model.values()))
    failed: set[str] = set()
    for slide, read in read_ahead(jobs, geometries, workers, crops, of_model):
        for point, crops_of in read.patches:
            for batch in batches:
                for view, names in batch.lacking(point.wants).items():
                    batch.add(point.annotation_id, view, names, crops_of[batch.look.geometry])
                    if len(batch.ids) == batch_size:
                        yield from batch.embed()
        if read.problem is not None and slide not in failed:
            failed.add(slide)
            yield SlideFailed(slide, read.problem)
    for batch in batches:
        if batch.ids:
            yield from batch.embed()


@dataclass
class _Batch:
    """The patches that wait for one pass of a network; names: the models that lack each."""

    look: Look
    ids: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    names: list[set[str]] = field(default_factory=list)
    patches: list[NDArray[np.uint8]] = field(default_factory=list)

    def lacking(self, wants: Mapping[str, Sequence[str]]) -> dict[str, set[str]]:
        """Return the views that any of the look's models lacks, and which do."""
        lacking: dict[str, set[str]] = {}
        for name in self.look.pools:
            for view in wants.get(name, ()):
                lacking.setdefault(view, set()).add(name)
        return lacking

    def add(self, annotation_id: str, view: str, names: set[str], crop: NDArray[np.uint8]) -> None:
        self.ids.append(annotation_id)
        self.views.append(view)
        self.names.append(names)
        self.patches.append(view_of(crop, view, annotation_id, self.look.geometry))

    def embed(self) -> Generator[Embedded, None, None]:
        ids, views, names, patches = self.ids, self.views, self.names, np.stack(self.patches)
        self.ids, self.views, self.names, self.patches = [], [], [], []
        look, lacked = self.look, set().union(*names)
        pools = {name: pool for name, pool in look.pools.items() if name in lacked}
        distinct = list(dict.fromkeys(pools.values()))
        vectors = look.network.embed_pools(patches, distinct, look.geometry.mpp_out)
        of_pool = dict(zip(distinct, vectors, strict=True))
        for name, pool in pools.items():
            rows = [k for k, lacking in enumerate(names) if name in lacking]
            yield Embedded(
                name, [ids[k] for k in rows], [views[k] for k in rows], of_pool[pool][rows]
            )
