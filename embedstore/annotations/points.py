"""Reader of tables of annotations: CSV and Parquet with a point or a box a row."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedstore.annotations.boxes import Centre, centre_of, has_places
from embedstore.annotations.columns import (
    NOTHING,
    Declared,
    Table,
    UnknownColumnsError,
    read_table,
)
from embedstore.annotations.format import Format, Glance
from embedstore.annotations.source import (
    AnnotationFile,
    Distinct,
    SourceAnnotation,
    SourceSlide,
    check_splits,
    content_id,
    keep_annotated,
    split_of,
)
from embedstore.errors import EmbedstoreError
from embedstore.files.folders import note_unread
from embedstore.files.tables import file_name, plain_name

Row = Mapping[str, Any]
NEEDED = "slide (or path), x, y, label"


def read_csv(path: Path, declared: Declared = NOTHING) -> AnnotationFile:
    """Return a table with columns slide (or path), x, y, label, and any others as attributes.

    x and y are level-0 pixels; the corners of boxes may stand in their place. Columns domain, case,
    split, width, height and id are used where present; without an id the source id is a digest of
    slide, x and y, which sorting and relabelling keep. A folder is a table a file; one without a
    column slide is of the slide that its own name gives.
    """
    notes: list[str] = []
    tables = _tables(path, declared, notes)
    check_splits(path, {t.cell(row, "split") for t in tables for row in t.rows})
    slides, stated, distinct = dict[str, SourceSlide](), dict[str, str](), Distinct()
    centre, is_boxes = centre_of(tables, lambda t, row: file_name(_slide(t, row)), notes)
    for table in tables:
        for n, row in enumerate(table.rows, start=1):
            place = table.place(n) if table.path == path else f"{table.path.name} {table.place(n)}"
            new = _annotation(f"{path} {place}", table, row, centre)
            if (first := stated.setdefault(new.slide, _slide(table, row))) != _slide(table, row):
                raise EmbedstoreError(
                    f"{path} {place}: '{_slide(table, row)}' and '{first}' have one file name; a "
                    "slide is known by its file name, so give each file a name of its own"
                )
            distinct.add(new, path, place)
            if new.slide not in slides:
                slides[new.slide] = _source_slide(table, row, new, is_boxes)
    annotations = distinct.values(notes)
    kept = keep_annotated(path, slides.values(), annotations, notes)
    domain, case = (next((t.of[r] for t in tables if r in t.of), None) for r in ("domain", "case"))
    units = {t.unit for t in tables}
    unit = units.pop() if len(units) == 1 else None
    return AnnotationFile(path, "csv", kept, annotations, domain, case, notes, unit=unit)


def table_files(path: Path) -> list[Path]:
    """Return the delimited and Parquet files of a path: itself, or those of a folder."""
    return Glance(path).tables if path.is_dir() else [path]


def _tables(path: Path, declared: Declared, notes: list[str]) -> list[Table]:
    """Return the tables of a path that hold annotations; the other files of a folder are noted."""
    files = table_files(path)
    tables, lacking = list[Table](), list[UnknownColumnsError]()
    for file in files:
        try:
            tables.append(_table(file, declared))
        except UnknownColumnsError as e:
            lacking.append(e)
    if not files:
        raise UnknownColumnsError(path, NEEDED, ())
    of_other_kind = [e for e in lacking if plain_name(e.path).endswith(".txt")]
    if lacking and (not tables or len(of_other_kind) < len(lacking)):
        lacking[0].names = [f.name for f in files] if path.is_dir() else []
        raise lacking[0]
    if path.is_dir():
        note_unread(notes, path, [t.path for t in tables], "they are no tables of annotations")
    if named := [t for t in tables if not {"slide", "path"} & set(t.of)]:
        notes.append(
            f"{len(named)} tables name no slide: each is of the slide of its own name "
            f"({named[0].path.name}: {_slide(named[0], {})})"
        )
    return tables


def _table(file: Path, declared: Declared) -> Table:
    table = read_table(file, declared)
    names_file = any(c.lower() in ("file", "filename", "file_name") for c in table.columns)
    has_slide = bool({"slide", "path"} & set(table.of)) or not (names_file or table.of.get("case"))
    if not (has_slide and has_places(table) and "label" in table.of):
        patches = " (without x and y, a row is a patch: --format patches)"
        needed = NEEDED + (patches * ("path" in table.of) or _outlines(table))
        raise UnknownColumnsError(file, needed, table.columns, table.rows)
    return table


def _outlines(table: Table) -> str:
    """Return what to do with a column of outlines as text, "" where there is none."""
    first = table.rows[0] if table.rows else {}
    for column in table.columns:
        if re.match(r"\s*(MULTI)?(POLYGON|POINT)\b", str(first.get(column) or ""), re.I):
            return (
                f" (column {column} holds outlines as text, which are not read from tables: export "
                "GeoJSON, or give the centres)"
            )
    return ""


def _slide(table: Table, row: Row) -> str:
    """Return the slide as a row states it, or as its table is named."""
    if role := next((r for r in ("slide", "path") if r in table.of), None):
        return table.cell(row, role)
    return Path(table.path.name.removesuffix(".gz")).stem


def _source_slide(table: Table, row: Row, new: SourceAnnotation, is_boxes: bool) -> SourceSlide:
    of_points = table.of_points()
    sizes = [table.of.get(side, side) for side in ("width", "height")]
    of_slide = {
        k: v
        for k, v in new.attributes.items()
        if k not in of_points and not (is_boxes and k in (*sizes, "width", "height"))
    }
    width, height = (int(float(of_slide[k])) if k in of_slide else None for k in sizes)
    return SourceSlide(new.slide, width, height, of_slide)


def _annotation(where: str, table: Table, row: Row, centre: Centre) -> SourceAnnotation:
    try:
        x, y = centre(table, dict(row))
    except ValueError:
        cells = {c: row[c] for r in _PLACES if (c := table.of.get(r)) is not None}
        said = ", ".join(f"{c}='{v}'" for c, v in cells.items())
        raise EmbedstoreError(
            f"{where}: {said} are not numbers; give the centre in level-0 pixels"
        ) from None
    stated, label = _slide(table, row), table.cell(row, "label")
    if not stated.strip() or not label.strip():
        raise EmbedstoreError(f"{where}: slide or label is empty; fill or drop the row")
    slide, attributes = file_name(stated), table.attributes(row)
    return SourceAnnotation(
        slide,
        table.cell(row, "id").strip() or content_id(slide, x, y),
        x,
        y,
        label,
        attributes,
        votes=table.declared.votes(attributes),
        split=split_of(table.cell(row, "split")),
    )


_PLACES = ("x", "y", "xmin", "ymin", "xmax", "ymax")


def _claim(file: Glance) -> list[str] | None:
    return [] if file.is_table or file.tables else None


FORMATS = {"csv": Format(read_csv, _claim, is_last=True, takes_columns=True)}
