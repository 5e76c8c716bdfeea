"""Reader of patches in arrays: NumPy and HDF5 files with images in one and classes in another."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.annotations.columns import NOTHING, Declared
from embedstore.annotations.cropped import SOURCE_ID
from embedstore.annotations.format import Format, Glance
from embedstore.annotations.source import SPLITS, AnnotationFile, SourceAnnotation, SourceSlide
from embedstore.errors import EmbedstoreError
from embedstore.files.folders import files_below, note_unread
from embedstore.files.packed import ARRAYS, Packed, array_shapes, channels_of, read_values

LABELS = {"y", "label", "labels", "type", "types", "class", "classes", "target", "targets"}
"""Words in the names of arrays that hold classes."""
_IMAGES = {"x", "image", "images", "img", "imgs", "data", "patches"}


@dataclass(frozen=True)
class _Array:
    file: Path
    member: str
    n: int

    @property
    def words(self) -> list[str]:
        """The words of its name, lower case: of its file and within."""
        text = f"{self.file.stem}_{self.member}".lower()
        return [w for w in re.split(r"[^a-z0-9]+", text) if w]

    @property
    def name(self) -> str:
        """What a user calls it: the array in its file, or the file if there is one alone."""
        return self.member or self.file.stem

    @property
    def split(self) -> str | None:
        """The split that its name has a word for."""
        return next((SPLITS[w] for w in self.words if w in SPLITS), None)

    @property
    def kin(self) -> tuple[str, ...]:
        """Its name without the words that tell images from classes."""
        return (str(self.file.parent), *(w for w in self.words if w not in LABELS | _IMAGES))


def read_arrays(path: Path, declared: Declared = NOTHING) -> AnnotationFile:
    """Return images (N, height, width, 3) with the class of each, from one file or a folder.

    The classes are an array of N whose name says so (y, labels, types, ...) or is declared; other
    arrays of N beside it are attributes by their names. train, val or test in a name is the split.
    """
    files = [p for p in (files_below(path) if path.is_dir() else [path]) if p.suffix in ARRAYS]
    images, columns = _found(files)
    if not images:
        raise EmbedstoreError(f"{path} holds no array of images (N, height, width, 3)")
    slides, annotations = dict[str, SourceSlide](), list[SourceAnnotation]()
    used: set[Path] = set()
    for array in images:
        label = _label_of(array, columns, declared)
        beside = [c for c in columns if c.n == array.n and c.kin == label.kin]
        values = {c.name: _texts(read_values(c.file, c.member)) for c in {label, *beside}}
        used |= {array.file, *(c.file for c in beside)}
        folder = array.file.relative_to(path).parent if path.is_dir() else Path()
        for n, category in enumerate(values[label.name]):
            name = (folder / Packed(array.file, array.member, n).name).as_posix()
            attributes = {k: v[n] for k, v in values.items() if k != label.name}
            attributes = declared.attributes({**attributes, label.name: category})
            slides[name] = SourceSlide(name, attributes=attributes)
            votes = declared.votes(attributes)
            annotations.append(
                SourceAnnotation(
                    name, SOURCE_ID, None, None, category, attributes, votes, array.split
                )
            )
    notes: list[str] = []
    if path.is_dir():
        note_unread(notes, path, sorted(used), "they are no arrays of images or of their classes")
    case = next(
        (k for k in ("case", "slide") if k in slides[annotations[0].slide].attributes), None
    )
    return AnnotationFile(path, "arrays", slides, annotations, None, case, notes, "patch")


def _found(files: Iterable[Path]) -> tuple[list[_Array], list[_Array]]:
    """Return the arrays of images, and those that have one value a row."""
    images, columns = [], []
    for file in files:
        for member, (shape, dtype) in array_shapes(file).items():
            if shape and shape[0] and channels_of(shape, dtype) is not None:
                images.append(_Array(file, member, shape[0]))
            elif shape and int(np.prod(shape)) == shape[0]:
                columns.append(_Array(file, member, shape[0]))
    # (N, 1, 1, 1) may be a class each as well as an image of one pixel.
    names = {(a.file, a.member) for a in images if LABELS & set(a.words)}
    columns += [a for a in images if (a.file, a.member) in names]
    return [a for a in images if (a.file, a.member) not in names], columns


def _label_of(images: _Array, columns: list[_Array], declared: Declared) -> _Array:
    """Return the array of the classes of these images; EmbedstoreError unless there is one."""
    of_size = [c for c in columns if c.n == images.n]
    if (wanted := declared.columns.get("label")) is not None:
        chosen = [c for c in of_size if c.name == wanted]
    else:
        chosen = [c for c in of_size if LABELS & set(c.words)] or of_size
    if len(chosen) > 1:
        chosen = [c for c in chosen if c.kin == images.kin]
    if len(chosen) != 1:
        has = ", ".join(f"{c.name} ({c.n})" for c in columns) or "none"
        raise EmbedstoreError(
            f"{images.file} has {images.n} images{f' in {images.member}' * bool(images.member)}, "
            f"and {len(chosen) or 'no'} arrays that may be their classes; arrays of one value a "
            f"row: {has}; name it with --label-from NAME"
        )
    return chosen[0]


def _texts(values: NDArray[np.generic]) -> list[str]:
    """Return values as text, whole numbers without a decimal point."""
    return [
        v.decode()
        if isinstance(v, bytes)
        else str(int(v))
        if isinstance(v, bool | float) and float(v).is_integer()
        else str(v)
        for v in values.tolist()
    ]


def _claim(file: Glance) -> list[str] | None:
    files = file.files if file.path.is_dir() else [file.path]
    shapes = [array_shapes(f) for f in files if f.suffix in ARRAYS]
    is_one = any(channels_of(*a) is not None for of in shapes for a in of.values())
    return [] if is_one else None


FORMATS = {"arrays": Format(read_arrays, _claim, takes_columns=True)}
