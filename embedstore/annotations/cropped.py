"""Readers of pre-cropped patches: a table of files or of images, or a folder a class."""

from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath

from embedstore.annotations.columns import (
    NOTHING,
    Declared,
    Table,
    UnknownColumnsError,
    read_table,
)
from embedstore.annotations.format import IMAGES, Format, Glance
from embedstore.annotations.points import table_files
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
from embedstore.files.packed import Packed, image_columns
from embedstore.files.tables import is_parquet

SOURCE_ID = "patch"
"""The one annotation of a patch, in place of an id within its file."""


def read_patches(path: Path, declared: Declared = NOTHING) -> AnnotationFile:
    """Return a table with columns path (an image file that is one patch) and label.

    A patch is known by its path, relative to the folder of the patches. Columns domain, case and
    split are used where present, others are attributes; slide, the glass slide a patch comes from,
    is its case where no column case says otherwise. x and y, if any, are attributes. A Parquet file
    may hold the images themselves, in the place of their paths; of a folder, each table is read.
    """
    notes: list[str] = []
    tables = [_table(path, file, declared, notes) for file in table_files(path)]
    check_splits(path, {t.cell(row, "split") for t in tables for row in t.rows})
    slides, distinct = dict[str, SourceSlide](), Distinct()
    for table in tables:
        of_points = table.of_points()
        for n, row in enumerate(table.rows, start=1):
            place = table.place(n)
            stated, label = table.cell(row, "path").strip(), table.cell(row, "label")
            if not stated or not label.strip():
                raise EmbedstoreError(
                    f"{table.path} {place}: path or label is empty; fill or drop the row"
                )
            name, attributes = _relative(f"{table.path} {place}", stated), table.attributes(row)
            split = split_of(table.cell(row, "split")) or _split_of_file(path, table.path)
            votes = table.declared.votes(attributes)
            distinct.add(_patch(name, label, attributes, split, votes), path, place)
            of_patch = {k: v for k, v in attributes.items() if k not in of_points}
            slides.setdefault(name, SourceSlide(name, attributes=of_patch))
    annotations = distinct.values(notes)
    of = {r: c for t in reversed(tables) for r, c in t.of.items()}
    domain, case = of.get("domain"), of.get("case", of.get("slide"))
    return AnnotationFile(path, "patches", slides, annotations, domain, case, notes, "patch")


def _table(path: Path, file: Path, declared: Declared, notes: list[str]) -> Table:
    """Return a table that has columns path and label, of images if it holds these itself."""
    images = image_columns(file) if is_parquet(file) else []
    table = read_table(file, declared, without=images)
    if images:
        if len(images) > 1:
            raise EmbedstoreError(
                f"{file} has images in {' and '.join(images)}; keep one column of them"
            )
        folder = file.relative_to(path).parent if file != path else Path()
        for n, row in enumerate(table.rows):
            row["path"] = (folder / Packed(file, images[0], n).name).as_posix()
        table = Table(file, table.columns, table.rows, {**table.of, "path": "path"}, declared)
    if not {"path", "label"} <= set(table.of):
        raise UnknownColumnsError(file, "path, label", table.columns, table.rows)
    points = [k for k in ("x", "y") if k in table.of]
    paths = Counter(table.cell(row, "path") for row in table.rows)
    if points and (paths.most_common(1) or [("", 1)])[0][1] > 1:
        raise EmbedstoreError(
            f"{file} has column {' and '.join(points)}, and several rows of one file: they are "
            "points on slides, which --format csv reads; of patches each row has a file"
        )
    if points:
        notes.append(f"each row is one patch, and {' and '.join(points)} are attributes of it")
    return table


def _split_of_file(path: Path, file: Path) -> str | None:
    """Return the split that the name of a table in a folder begins with, as train-00000 does."""
    return split_of(file.name.split("-")[0].split(".")[0]) if file != path else None


def read_imagefolder(path: Path) -> AnnotationFile:
    """Return a folder of patches laid out as [SPLIT/]CLASS/.../FILE, as torchvision reads it.

    The first level is a split where all folders of it name one. Folders below the class are the
    attribute directory, and one by one folder1, folder2, ...
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
        if name.suffix.lower() not in IMAGES or any(map(is_system, parts)):
            n_other += 1
        elif len(parts) < n_above + 2:
            n_loose += 1
        else:
            split = split_of(parts[0]) if n_above else None
            nested = parts[n_above + 1 : -1]
            attributes = {"directory": "/".join(nested)} if nested else {}
            attributes |= {f"folder{n}": part for n, part in enumerate(nested, start=1)}
            slides[str(name)] = SourceSlide(str(name), attributes=attributes)
            annotations.append(_patch(str(name), parts[n_above], attributes, split))
    notes: list[str] = []
    note_count(notes, n_other, "files that are no images were")
    note_count(notes, n_loose, "images in no class's folder were")
    _note_levels(slides, notes)
    return AnnotationFile(path, "imagefolder", slides, annotations, notes=notes, kind="patch")


def _note_levels(slides: dict[str, SourceSlide], notes: list[str]) -> None:
    """Append what the levels of folders below the classes are called, and how to use them."""
    levels: dict[str, set[str]] = {}
    for slide in slides.values():
        for key, value in slide.attributes.items():
            if key != "directory":
                levels.setdefault(key, set()).add(value)
    if levels:
        said = [
            f"{level} ({len(names)}: {min(names)}{', ...' * (len(names) > 1)})"
            for level, names in sorted(levels.items())
        ]
        notes.append(
            f"folders below the classes are attributes: {', '.join(said)}; one may be the case "
            "or the domain (--case-from folder1, --domain-from folder1)"
        )


def _patch(
    name: str,
    category: str,
    attributes: dict[str, str],
    split: str | None,
    votes: tuple[str, ...] = (),
) -> SourceAnnotation:
    return SourceAnnotation(name, SOURCE_ID, None, None, category, attributes, votes, split)


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
    is_one = {"path", "label"} <= file.roles and not file.roles & {"x", "y", "xmin", "ymin"}
    return [] if is_one else None


def _is_folder_of_images(file: Glance) -> list[str] | None:
    return [] if file.path.is_dir() and not file.tables else None


FORMATS = {
    "patches": Format(read_patches, _is_table_of_patches, takes_columns=True),
    "imagefolder": Format(read_imagefolder, _is_folder_of_images, is_last=True),
}
