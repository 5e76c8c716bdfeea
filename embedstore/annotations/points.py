"""Reader of tables of annotations: CSV and Parquet with a point a row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedstore.annotations.format import Format
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
from embedstore.files.tables import file_name, table_columns, table_rows

OF_THE_ROW = ("x", "y", "label", "id", "split")
"""Columns that say something of one annotation; the others are attributes of its slide, too."""


def read_csv(path: Path) -> AnnotationFile:
    """Return a table with columns slide (or path), x, y, label, and any others as attributes.

    x and y are level-0 pixels. Columns domain, case, split, width, height and id are used where
    present; without an id the source id is a digest of slide, x and y, which sorting and
    relabelling keep.
    """
    header = table_columns(path)
    slide_key = next((k for k in ("slide", "path") if k in header), None)
    if slide_key is None or any(k not in header for k in ("x", "y", "label")):
        patches = " (without x and y, a row is a patch: --format patches)" * ("path" in header)
        raise EmbedstoreError(
            f"{path} has columns {', '.join(header) or 'none'}; "
            f"needed: slide (or path), x, y, label{patches}"
        )
    rows = table_rows(path)
    check_splits(path, {r.get("split") or "" for r in rows})
    slides: dict[str, SourceSlide] = {}
    distinct, stated = Distinct(), dict[str, str]()
    for n, row in enumerate(rows, start=1):
        place = row_place(path, n)
        new = _annotation(f"{path} {place}", row, slide_key)
        if (first := stated.setdefault(new.slide, row[slide_key])) != row[slide_key]:
            raise EmbedstoreError(
                f"{path} {place}: '{row[slide_key]}' and '{first}' have one file name; a slide is "
                "known by its file name, so give each file a name of its own"
            )
        distinct.add(new, path, place)
        if new.slide not in slides:
            of_slide = {k: v for k, v in new.attributes.items() if k not in OF_THE_ROW}
            width, height = (
                int(float(of_slide[k])) if k in of_slide else None for k in ("width", "height")
            )
            slides[new.slide] = SourceSlide(new.slide, width, height, of_slide)
    notes: list[str] = []
    domain, case = (k if k in header else None for k in ("domain", "case"))
    annotations = distinct.values(notes)
    kept = keep_annotated(path, slides.values(), annotations, notes)
    return AnnotationFile(path, "csv", kept, annotations, domain, case, notes)


def row_place(path: Path, n: int) -> str:
    """Return where the n-th row (from 1) of a table is found by who looks for it."""
    is_text = path.suffix.lower() in (".csv", ".tsv", ".txt")
    return f"line {n + 1}" if is_text else f"row {n}"


def attributes_of(row: Mapping[Any, Any]) -> dict[str, str]:
    """Return the cells of a row that hold something, by column."""
    return {k: v for k, v in row.items() if k and isinstance(v, str) and v.strip() != ""}


def _annotation(where: str, row: Mapping[str, Any], slide_key: str) -> SourceAnnotation:
    try:
        # Adding zero makes -0.0 the 0.0 that it is, to the id as well.
        x, y = float(row["x"]) + 0.0, float(row["y"]) + 0.0
    except (TypeError, ValueError):
        raise EmbedstoreError(
            f"{where}: x='{row['x']}', y='{row['y']}' are not numbers; "
            "give the centre in level-0 pixels"
        ) from None
    if not row[slide_key].strip() or not row["label"].strip():
        raise EmbedstoreError(f"{where}: slide or label is empty; fill or drop the row")
    slide, attributes = file_name(row[slide_key]), attributes_of(row)
    return SourceAnnotation(
        slide,
        attributes.get("id") or content_id(slide, x, y),
        x,
        y,
        row["label"],
        attributes,
        split=split_of(attributes.get("split")),
    )


FORMATS = {"csv": Format(read_csv, lambda file: [] if file.is_table else None, is_last=True)}
