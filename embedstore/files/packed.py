"""Images packed many to a file: arrays of NumPy and HDF5, and columns of Parquet.

One of them is named FILE::MEMBER::INDEX, FILE::INDEX where a file holds one array alone; MEMBER is
a dataset, an array of an .npz or a column. The boundary to h5py beside `exchange.h5`.
"""

import functools
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEPARATOR = "::"
ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
"""Endings of files that hold arrays."""
_SCANNED = 64
"""Images of an array that are looked at to tell values of 0 to 1 from those of 0 to 255."""


@dataclass(frozen=True)
class Packed:
    """Where an image is: the file, the array or column in it ("" where it has but one), the row."""

    file: Path
    member: str
    index: int

    @property
    def name(self) -> str:
        """Return how the image is named within its folder."""
        parts = [self.file.name, self.member, str(self.index)]
        return SEPARATOR.join(p for p in parts if p)


def locate(path: str | Path) -> Packed | None:
    """Return which packed image a path names, None where it names a file of its own."""
    file, *rest = str(path).split(SEPARATOR)
    if not rest or not rest[-1].isdecimal() or Path(path).is_file():
        return None
    return Packed(Path(file), SEPARATOR.join(rest[:-1]), int(rest[-1]))


def exists(path: Path) -> bool:
    """Return whether there is a file at a path, or one that holds the packed image it names."""
    packed = locate(path)
    return packed.file.is_file() if packed else path.is_file()


def read_packed(packed: Packed) -> bytes | NDArray[np.uint8]:
    """Return an image as it is packed: an encoded file, or uint8 (height, width, 3 or 1).

    OSError or ValueError where it cannot be read.
    """
    stat = packed.file.stat()
    opened = _open(packed.file, packed.member, stat.st_mtime_ns, stat.st_size)
    if packed.index >= len(opened):
        raise ValueError(f"{packed.file} holds {len(opened)} images, not one of index {packed}")
    return opened.read(packed.index)


def image_columns(file: Path) -> list[str]:
    """Return the columns of a Parquet file that hold encoded images: bytes, or bytes with a path.

    Whether they are images is seen by the first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    columns = [
        f.name
        for f in parquet.schema_arrow
        if pa.types.is_binary(f.type)
        or pa.types.is_large_binary(f.type)
        or (pa.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0)
    ]
    if not columns or not parquet.num_row_groups:
        return []
    first = next(parquet.iter_batches(1, columns=columns), None)
    rows = first.to_pylist()[:1] if first is not None else []
    return [c for c in columns for row in rows if _is_image(_encoded(row[c]))]


def array_shapes(file: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Return shape and dtype of each array that a file holds, by name ("" for that of a .npy)."""
    return {name: (tuple(a.shape), a.dtype) for name, a in _arrays(file)}


def read_values(file: Path, member: str) -> NDArray[Any]:
    """Return a whole array of a file, as one row an entry: (N, 1, 1) becomes (N,)."""
    values = next(np.asarray(a) for name, a in _arrays(file) if name == member)
    return values.reshape(len(values))


def channels_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int | None:
    """Return which axis of an array of images (N, ...) holds the 1 or 3 channels, None if none."""
    if len(shape) != 4 or dtype.kind not in "uif":
        return None
    return next((axis for axis in (3, 1) if shape[axis] in (1, 3)), None)


def _arrays(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of a file, each by name: those of .npy and HDF5 are read when they are used.

    What is no array, and what cannot be had without running code (pickled objects), is passed over.
    """
    if file.suffix == ".npy":
        yield "", np.load(file, mmap_mode="r", allow_pickle=False)
    elif file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            for name in archive.files:
                yield name, archive[name]
    else:
        import h5py

        with h5py.File(file, "r") as h5:
            names: list[str] = []
            h5.visititems(lambda n, o: names.append(n) if isinstance(o, h5py.Dataset) else None)
            for name in names:
                yield name, h5[name] if h5[name].dtype.kind not in "OS" else h5[name].asstr()


class _Array:
    """An open array of images, (N, ...)."""

    def __init__(self, array: Any, *owners: Any) -> None:
        self._array, self._owners = array, owners
        axis = channels_of(tuple(array.shape), array.dtype)
        if axis is None:
            raise ValueError(f"an array of shape {array.shape} holds no images")
        self._axis = axis
        first = np.asarray(array[:_SCANNED], dtype=np.float64)
        self._scale = 255 if array.dtype.kind == "f" and first.max(initial=0) <= 1 else 1

    def __len__(self) -> int:
        return len(self._array)

    def read(self, index: int) -> NDArray[np.uint8]:
        image = np.moveaxis(np.asarray(self._array[index]), self._axis - 1, -1)
        if image.dtype == np.uint8:
            return image
        image = np.rint(image.astype(np.float64) * self._scale)
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 255):
            raise ValueError("its values are no pixels: they lie outside of 0 to 255")
        return image.astype(np.uint8)


class _Column:
    """An open column of encoded images, read one row group at a time."""

    def __init__(self, file: Path, member: str) -> None:
        import pyarrow.parquet as pq

        self._file, self._member = pq.ParquetFile(file), member
        meta = self._file.metadata
        lengths = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        self._ends = np.cumsum(lengths)
        self._group, self._rows = -1, list[Any]()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, index: int) -> bytes:
        group = int(np.searchsorted(self._ends, index, side="right"))
        with self._lock:
            if group != self._group:
                table = self._file.read_row_group(group, columns=[self._member])
                self._rows, self._group = table.column(0).to_pylist(), group
            value = self._rows[index - (int(self._ends[group - 1]) if group else 0)]
        if (encoded := _encoded(value)) is None:
            raise ValueError("it holds no image")
        return encoded


@functools.lru_cache(maxsize=8)
def _open(file: Path, member: str, mtime_ns: int, size: int) -> _Array | _Column:
    """Return an open array or column; mtime_ns and size tell a file from one that replaced it."""
    if file.suffix not in ARRAYS:
        return _Column(file, member)
    if file.suffix in (".h5", ".hdf5"):
        import h5py

        h5 = h5py.File(file, "r")
        return _Array(h5[member], h5)
    return _Array(next(a for name, a in _arrays(file) if name == member))


def _encoded(value: Any) -> bytes | None:
    if isinstance(value, Mapping):
        value = value.get("bytes")
    return value if isinstance(value, bytes) and value else None


def _is_image(encoded: bytes | None) -> bool:
    """Return whether bytes begin as files of images do."""
    starts = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM", b"GIF8", b"RIFF")
    return encoded is not None and encoded.startswith(starts)
