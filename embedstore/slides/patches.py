"""What a patch is: the square it covers, and the views of it that are embedded."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore.slides.placement import JITTER, shift_um


@dataclass(frozen=True)
class PatchGeometry:
    """The square every patch covers: size_px pixels at mpp_out micrometres per pixel."""

    size_px: int = 224
    mpp_out: float = 0.25

    def wide(self) -> "PatchGeometry":
        """Return the square around the patch that holds it turned by any angle.

        It is wider by a whole number of pixels on each side, so that its middle is the patch.
        """
        margin = math.ceil(self.size_px * (math.sqrt(2) - 1) / 2) + 1
        return PatchGeometry(self.size_px + 2 * margin, self.mpp_out)


def centre(crop: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Return the middle of a square crop (wide, wide, 3), uint8 (size_px, size_px, 3), as a view.

    wide - size_px is even.
    """
    margin = (crop.shape[0] - size_px) // 2
    return crop[margin : margin + size_px, margin : margin + size_px]


PLAIN = ""
"""The view of a patch as it lies on the slide, which the model's own table holds."""

D4: dict[str, tuple[bool, int]] = {
    "r0": (False, 0),
    "r90": (False, 1),
    "r180": (False, 2),
    "r270": (False, 3),
    "m0": (True, 0),
    "m90": (True, 1),
    "m180": (True, 2),
    "m270": (True, 3),
}
"""The eight symmetries of a square: whether mirrored left to right, then turned counter-clockwise
by how many quarters. r0 is the patch itself."""

SAME = next(iter(D4))
"""The view that is the patch itself."""

VIEW_SETS: dict[str, tuple[str, ...]] = {"d4": tuple(D4), "jitter": JITTER}
"""What --views takes: the views of each set."""


def is_own_row(view: str, wanted: Collection[str]) -> bool:
    """Return whether what is embedded as this view stands for the patch itself.

    A patch that is wanted both by itself and as a view is embedded once, as SAME.
    """
    return view == PLAIN or (view == SAME and PLAIN in wanted)


def embedded_views(wanted: Sequence[str]) -> list[str]:
    """Return the views to embed for what is wanted of a patch: PLAIN only where SAME is not."""
    return [v for v in wanted if v != PLAIN or SAME not in wanted]


def view_of(
    crop: NDArray[np.uint8], view: str, annotation_id: str, geometry: PatchGeometry
) -> NDArray[np.uint8]:
    """Return a view of a patch, uint8 (size_px, size_px, 3), from a crop around it.

    A view that is shifted needs a crop as wide as `geometry.wide()`.
    """
    size = geometry.size_px
    if view not in JITTER:
        return turn(centre(crop, size), view)
    dx, dy = (round(um / geometry.mpp_out) for um in shift_um(annotation_id, view))
    margin = (crop.shape[0] - size) // 2
    return crop[margin + dy : margin + dy + size, margin + dx : margin + dx + size]


def turn(patch: NDArray[np.uint8], view: str) -> NDArray[np.uint8]:
    """Return a view of a patch (size, size, 3): PLAIN or a key of D4."""
    if view == PLAIN:
        return patch
    mirrored, quarters = D4[view]
    return np.rot90(patch[:, ::-1] if mirrored else patch, quarters)


def fit_patch(image: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """Return a pre-cropped patch as uint8 (size_px, size_px, 3).

    An image of another size is resized (bicubic, anti-aliased), one that is no square is cut to its
    centred square before.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    if image.size != (size_px, size_px):
        box = (left, top, left + side, top + side)
        image = image.resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.uint8)
