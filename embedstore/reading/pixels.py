"""The pixels of annotations: those kept, files that are patches, and what slides still show."""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.embeddings.crops import located, slide_jobs
from embedstore.errors import SlideError
from embedstore.slides.images import read_image
from embedstore.slides.patches import PatchGeometry, centre, fit_patch
from embedstore.slides.reading import read_ahead, usual_threads
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import fetch_rows, literal


class Patches:
    """The patches of one dataset: those kept, at the size most are kept at, and pre-cropped files.

    width_um: how wide a patch is, None where no kept one says it; shown_um: the same, once one is
    read from a slide too.
    """

    def __init__(self, store: Store, con: Any, dataset: str) -> None:
        """Look up what is kept and which files are patches; writes nothing."""
        self._store, self._dataset = store, dataset
        self._cache: PatchCache | None = None
        self._geometry = PatchGeometry()
        self.width_um: float | None = None
        self.shown_um: float | None = None
        self._files = {
            r["annotation_id"]: r["path"]
            for r in fetch_rows(
                con,
                "select a.annotation_id, s.path from annotations a join slides s using "
                f"(dataset, slide) where dataset = {literal(dataset)} and s.kind = 'patch' "
                "and s.path is not null and s.status = 'ok'",
            )
        }
        kept = fetch_rows(
            con,
            "select mpp_out, min(size_px) as least, count(*) as n from patches where "
            f"dataset = {literal(dataset)} group by 1 order by n desc, 1 limit 1",
        )
        if kept:
            # The widest usual patch that fits into the narrowest crop kept.
            sizes = [
                px
                for px in (224, 192, 128, 112, 96, 64, 32)
                if PatchGeometry(px).wide().size_px <= kept[0]["least"]
            ]
            if sizes:
                self.width_um = sizes[0] * kept[0]["mpp_out"]
                self.shown_um = self.width_um
                self._geometry = PatchGeometry(sizes[0], kept[0]["mpp_out"])
                self._cache = PatchCache(store, dataset, self._geometry)

    def __bool__(self) -> bool:
        """Return whether there is any patch to show."""
        return self._cache is not None or bool(self._files)

    def read(self, ids: Iterable[str], size_px: int) -> dict[str, NDArray[np.uint8]]:
        """Return those patches that are there, each uint8 (size_px, size_px, 3)."""
        patches: dict[str, NDArray[np.uint8]] = {}
        wanted = list(dict.fromkeys(ids))
        for i in (i for i in wanted if i in self._files):
            with contextlib.suppress(SlideError):  # a file that is gone since is blank on the page
                patches[i] = fit_patch(read_image(self._files[i]), size_px)
        if self._cache is None:
            return patches
        for k in range(0, len(wanted), 128):
            for i, crop in self._cache.read(wanted[k : k + 128], self._geometry.size_px).items():
                patches[i] = self._fitted(crop, size_px)
        return patches

    def read_slides(self, ids: Iterable[str], size_px: int) -> dict[str, NDArray[np.uint8]]:
        """Return what slides show of annotations that `read` does not have; nothing is kept.

        Those whose slide is not at hand, has changed or cannot be read are left out.
        """
        wanted = set(ids)
        if not wanted:
            return {}
        placed = [p for i, p in located(self._store, self._dataset).items() if i in wanted]
        jobs = slide_jobs([p for p in placed if p.can_be_read and not p.is_patch])
        patches = {}
        for _, read in read_ahead(jobs, [self._geometry], usual_threads()):
            for point, crops in read.patches:
                patches[point.annotation_id] = self._fitted(crops[self._geometry], size_px)
        if patches:
            self.shown_um = self._geometry.size_px * self._geometry.mpp_out
        return patches

    def _fitted(self, crop: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
        """Return the patch in the middle of a crop, at another size."""
        size = self._geometry.size_px
        if size == size_px:
            return np.ascontiguousarray(centre(crop, size))
        image = Image.fromarray(np.ascontiguousarray(centre(crop, size)))
        if size % size_px == 0:
            return np.asarray(image.reduce(size // size_px))  # as BOX, in a third of its time
        return np.asarray(image.resize((size_px, size_px), Image.Resampling.BICUBIC))
