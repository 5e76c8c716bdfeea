"""Readers of pre-cropped patches: a table of files, or a folder a class."""

from pathlib import Path, PurePosixPath, PureWindowsPath

from embedstore.annotations.format import Format, Glance
from embedstore.annotations.points import OF_THE_ROW, attributes_of, row_place
from embedstore.annotations.source import (
    SPLITS,
    AnnotationFile,
    Distinct,
    SourceAnnotation,
    SourceSlide,
    check_splits,
    note_count,
    split_of,
)
from embedstore.errors import EmbedstoreError
from embedstore.files.folders import files_below, is_system
from embedstore.files.tables import table_columns, table_rows

SOURCE_ID = "patch"
"""The one annotation of a patch, in place of an id within its file."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def read_patches(path: Path) -> AnnotationFile:
    """Return a table with columns path (an image file that is one patch) and label, no x and y.

    A patch is known by its path, relative to the folder of the patches. Columns domain, case and
    split are used where present, others are attributes; slide, the glass slide a patch comes from,
    is its case where no column case says otherwise.
    """
    header = table_columns(path)
    if points := [k for k in ("x", "y") if k in header]:
        raise EmbedstoreError(
            f"{path} has column {' and '.join(points)}: its rows are points on slides, which "
            "--format csv reads; patches have path and label only"
        )
    if any(k not in header for k in ("path", "label")):
        raise EmbedstoreError(
            f"{path} has columns {', '.join(header) or 'none'}; needed: path, label"
        )
    rows = table_rows(path)
    check_splits(path, {r.get("split") or "" for r in rows})
    slides, distinct = dict[str, SourceSlide](), Distinct()
    for n, row in enumerate(rows, start=1):
        place = row_place(path, n)
        if not row["path"].strip() or not row["label"].strip():
            raise EmbedstoreError(f"{path} {place}: path or label is empty; fill or drop the row")
        name, attributes = _relative(f"{path} {place}", row["path"].strip()), attributes_of(row)
        split = split_of(attributes.get("split"))
        distinct.add(_patch(name, row["label"], attributes, split), path, place)
        of_patch = {k: v for k, v in attributes.items() if k not in OF_THE_ROW}
        slides.setdefault(name, SourceSlide(name, attributes=of_patch))
    notes: list[str] = []
    annotations = distinct.values(notes)
    domain = "domain" if "domain" in header else None
    case = next((k for k in ("case", "slide") if k in header), None)
    return AnnotationFile(path, "patches", slides, annotations, domain, case, notes, "patch")


def read_imagefolder(path: Path) -> AnnotationFile:
    """Return a folder of patches laid out as [SPLIT/]CLASS/.../FILE, as torchvision reads it.

    The first level is a split where all folders of it name one. Folders below the class are the
    attribute directory.
    """
    if not path.is_dir():
        raise EmbedstoreError(f"{path} is no folder; imagefolder reads DIR/CLASS/FILE")
    top = [p for p in path.iterdir() if p.is_dir() and not is_system(p.name)]
    n_above = 1 if top and all(p.name.lower() in SPLITS for p in top) else 0
    slides, annotations, n_other, n_loose = dict[str, SourceSlide](), [], 0, 0
    for name in (
        PurePosixPath(f.relative_to(path).as_posix()) for f in files_below(path, with_system=True)
    ):
        parts = name.parts
        if name.suffix.lower() not in SUFFIXES or any(map(is_system, parts)):
            n_other += 1
        elif len(parts) < n_above + 2:
            n_loose += 1
        else:
            split = split_of(parts[0]) if n_above else None
            nested = "/".join(parts[n_above + 1 : -1])
            attributes = {"directory": nested} if nested else {}
            slides[str(name)] = SourceSlide(str(name), attributes=attributes)
            annotations.append(_patch(str(name), parts[n_above], attributes, split))
    notes: list[str] = []
    note_count(notes, n_other, "files that are no images were")
    note_count(notes, n_loose, "images in no class's folder were")
    return AnnotationFile(path, "imagefolder", slides, annotations, notes=notes, kind="patch")


def _patch(
    name: str, category: str, attributes: dict[str, str], split: str | None
) -> SourceAnnotation:
    return SourceAnnotation(name, SOURCE_ID, None, None, category, attributes, split=split)


def _relative(where: str, text: str) -> str:
    """Return a path as its patch is known by: relative, with slashes, the same on any machine."""
    windows, posix = PureWindowsPath(text), PurePosixPath(text.replace("\\", "/"))
    if windows.drive or posix.is_absolute() or ".." in posix.parts:
        raise EmbedstoreError(
            f"{where}: '{text}' must be relative to the folder of the patches (--slides DIR, or "
            "the table's own), since it names the patch on every machine"
        )
    return str(posix)


def _is_table_of_patches(file: Glance) -> list[str] | None:
    return [] if {"path", "label"} <= file.columns and not file.columns & {"x", "y"} else None


FORMATS = {
    "patches": Format(read_patches, _is_table_of_patches),
    "imagefolder": Format(
        read_imagefolder, lambda file: [] if file.path.is_dir() else None, is_last=True
    ),
}
