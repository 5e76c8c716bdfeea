"""The boundary to h5py: tiles of one slide with their features, as TRIDENT and CLAM write them.

Both keep `features` (N, D), TRIDENT's older files (1, N, D), beside `coords` (N, 2), the tiles'
top-left corners in level-0 pixels. How wide a tile is stands in attributes of `coords`:
`patch_size_level0` (TRIDENT), or `patch_size` at a level of the given `downsample` (CLAM's files of
patches; its files of features have none).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.files.claims import check_claim

SUFFIXES = (".h5", ".hdf5")


def read_centres(path: Path, tile_px_l0: float | None) -> tuple[NDArray[np.float64], float]:
    """Return the tiles' centres, level-0 pixels as x, y, float64 (N, 2), and their width in those.

    tile_px_l0 is their width where the file does not say it. EmbedstoreError where neither does,
    or both and they differ.
    """
    with _opened(path) as file:
        coords = _dataset(path, file, "coords", 2)
        if coords.shape[-1] != 2:
            raise EmbedstoreError(f"{path}: coords have shape {coords.shape}, not (N, 2)")
        width = _stated_width(path, dict(coords.attrs))
        corners = np.asarray(coords, dtype=np.float64).reshape(-1, 2)
    if width is None and tile_px_l0 is None:
        raise EmbedstoreError(
            f"{path} does not say how wide its tiles are (patch_size_level0, or patch_size and "
            "downsample, of coords); give the width in level-0 pixels with --tile-px-l0 N"
        )
    if width is not None and tile_px_l0 is not None and not np.allclose(width, tile_px_l0, atol=1):
        raise EmbedstoreError(
            f"{path} says its tiles are {width[0]:g} px wide at level 0, --tile-px-l0 "
            f"{tile_px_l0:g}; leave the option away"
        )
    if not np.isfinite(corners).all():
        raise EmbedstoreError(f"{path}: coords are not finite")
    sides = np.broadcast_to(np.asarray(tile_px_l0 if width is None else width, np.float64), (2,))
    return corners + sides / 2, float(sides[0])


def read_features(path: Path, rows: NDArray[np.intp], n_tiles: int) -> NDArray[Any]:
    """Return the features of some tiles, (len(rows), D) in the file's own floating dtype."""
    with _opened(path) as file:
        features = _dataset(path, file, "features", 2)
        shape = features.shape[-2:]
        if features.dtype.kind != "f":
            raise EmbedstoreError(f"{path}: features are {features.dtype}, not floating point")
        if shape[0] != n_tiles:
            raise EmbedstoreError(f"{path} has {shape[0]} features for {n_tiles} coords")
        lead = (0,) * (features.ndim - 2)
        if len(rows) * 4 >= n_tiles:
            vectors: NDArray[Any] = features[lead][rows] if lead else features[:][rows]
        else:  # one by one, since a list of places is ten times slower in HDF5
            vectors = np.stack([features[(*lead, int(r))] for r in rows])
        return vectors


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file; EmbedstoreError for what h5py raises while it is read, too."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as e:
        raise EmbedstoreError(f"{path} cannot be read as HDF5: {e}") from e


def _dataset(path: Path, file: Any, name: str, ndim: int) -> Any:
    item = file.get(name)
    if not isinstance(item, h5py.Dataset):
        raise EmbedstoreError(f"{path} has no '{name}'; it holds: {', '.join(file) or 'nothing'}")
    if item.ndim != ndim and not (item.ndim == ndim + 1 and item.shape[0] == 1):
        raise EmbedstoreError(f"{path}: {name} have shape {item.shape}, not (N, D); one row a tile")
    check_claim(path, item.size * max(item.dtype.itemsize, 8), name)
    return item


def _stated_width(path: Path, attributes: dict[str, Any]) -> tuple[float, float] | None:
    """Return the width and height of a tile in level-0 pixels, or None where none is stated."""

    def numbers(name: str) -> tuple[float, float] | None:
        value = attributes.get(name)
        if value is None or (isinstance(value, str) and value == "None"):
            return None
        try:
            x, y = np.broadcast_to(np.asarray(value, dtype=np.float64), (2,)).tolist()
        except (TypeError, ValueError):
            x = y = float("nan")
        if not (0 < x < float("inf") and 0 < y < float("inf")):
            raise EmbedstoreError(f"{path}: {name} of coords is {value!r}, not a size in pixels")
        return x, y

    if (stated := numbers("patch_size_level0")) is not None:
        return stated
    size, downsample = numbers("patch_size"), numbers("downsample")
    if size is None or downsample is None:
        return None
    return size[0] * downsample[0], size[1] * downsample[1]
