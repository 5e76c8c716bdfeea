"""Patches as pictures on a page: thumbnails in sheets, single shots."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SHOT_PX, THUMB_PX = 112, 56
"""Width of a patch among others on a page, and of one of many in a sheet."""


SHEET = 12
"""Thumbnails in a row of a sheet."""


def data_address(pixels: NDArray[np.uint8], quality: int = 80) -> str:
    """Return an image as a data address that a page shows without a file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def sheet(patches: Sequence[NDArray[np.uint8] | None]) -> str:
    """Return thumbnails as one image, SHEET a row; what is None stays blank."""
    n_rows = -(-len(patches) // SHEET)
    whole = np.full((n_rows * THUMB_PX, SHEET * THUMB_PX, 3), 235, dtype=np.uint8)
    for k, patch in enumerate(patches):
        if patch is not None:
            y, x = k // SHEET * THUMB_PX, k % SHEET * THUMB_PX
            whole[y : y + THUMB_PX, x : x + THUMB_PX] = patch
    return data_address(whole, 70)
