"""The pixels of annotations, as far as they are kept or are files themselves."""

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.errors import SlideError
from embedstore.slides.images import read_image
from embedstore.slides.patches import PatchGeometry, centre, fit_patch
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from embedstore.store.sql import fetch_rows, literal


class Patches:
    """The patches of one dataset: those kept, at the size most are kept at, and pre-cropped files.

    width_um: how wide a patch is, None where no kept one says it.
    """

    def __init__(self, store: Store, con: Any, dataset: str) -> None:
        """Look up what is kept and which files are patches; writes nothing."""
        self._cache: PatchCache | None = None
        self.width_um: float | None = None
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
                self._size = sizes[0]
                self.width_um = sizes[0] * kept[0]["mpp_out"]
                geometry = PatchGeometry(sizes[0], kept[0]["mpp_out"])
                self._cache = PatchCache(store, dataset, geometry)

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
            for i, crop in self._cache.read(wanted[k : k + 128]).items():
                image = Image.fromarray(np.ascontiguousarray(centre(crop, self._size)))
                patches[i] = np.asarray(
                    image.resize(
                        (size_px, size_px),
                        Image.Resampling.BOX
                        if self._size % size_px == 0
                        else Image.Resampling.BICUBIC,
                    )
                )
        return patches
