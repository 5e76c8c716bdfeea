"""Where the centre of a table's row is: its x and y, or the middle of the box that it gives."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from embedstore.annotations.columns import CORNERS, Box, Table
from embedstore.errors import EmbedstoreError, UsageError

Row = dict[str, Any]
Centre = Callable[[Table, Row], tuple[float, float]]


def has_places(table: Table) -> bool:
    """Return whether the columns of a table say where its annotations are."""
    of = table.of
    corner = "xmin" in of and "ymin" in of
    return ("x" in of and "y" in of) or (corner and (_has_far_corner(table) or _has_size(table)))


def centre_of(
    tables: Sequence[Table], name_of: Callable[[Table, Row], str], notes: list[str]
) -> tuple[Centre, bool]:
    """Return how the centre of a row is found, and whether width and height are those of boxes.

    name_of gives the slide of a row. EmbedstoreError where x and y may be the corner of a box as
    well as its centre, UsageError where --box is of no use.
    """
    declared = tables[0].declared
    _note_commas(tables, notes)
    if all("x" in t.of and "y" in t.of for t in tables):
        if all(map(_has_corners, tables)):
            return _beside_corners(tables, notes), True
        sized = [t for t in tables if _has_size(t)]
        if declared.box and len(sized) < len(tables):
            raise UsageError("--box is for boxes, with columns width and height; leave it out")
        if not sized or declared.box == "slide":
            return _point, False
        if declared.box is None and _are_slides(sized, name_of):
            return _point, False
        box = declared.box or _which(sized)
        notes.append(f"width and height are of boxes, and x and y their {box} (--box)")
        return (_from_corner if box == "corner" else _point), True
    if declared.box:
        raise UsageError("the columns name the corners of boxes; leave --box out")
    names = [tables[0].of[r] for r in CORNERS if r in tables[0].of]
    notes.append(f"places are the middles of boxes ({', '.join(names)})")
    return _middle, not all(map(_has_far_corner, tables))


def _beside_corners(tables: Sequence[Table], notes: list[str]) -> Centre:
    """Return which is the place of a row that has x and y and the corners of a box as well."""
    if tables[0].declared.box:
        raise UsageError("the columns name the corners of boxes; leave --box out")
    rows = [(t, row) for t in tables for row in t.rows]
    corner = all(_point(t, r) == (number(t, r, "xmin"), number(t, r, "ymin")) for t, r in rows)
    if corner and rows:
        notes.append("x and y are the corners of boxes: places are the boxes' middles")
        return _middle
    n_off = sum(math.dist(_point(t, r), _middle(t, r)) > 1 for t, r in rows)
    if n_off:
        notes.append(
            f"places are x and y; {n_off} of {len(rows)} are not the middle of their box "
            f"({', '.join(tables[0].of[r] for r in CORNERS)})"
        )
    return _point


def number(table: Table, row: Row, role: str) -> float:
    """Return a cell as a number; ValueError where it is none.

    A comma is the decimal one where it stands between no columns.
    """
    text = table.cell(row, role)
    if _COMMA.fullmatch(text.strip()) and table.has_decimal_commas:
        text = text.replace(",", ".")
    # Adding zero makes -0.0 the 0.0 that it is, to the id as well.
    return float(text) + 0.0


_COMMA = re.compile(r"[-+]?\d+,\d+")


def _note_commas(tables: Sequence[Table], notes: list[str]) -> None:
    """Note decimal commas; EmbedstoreError where all may as well part the thousands."""
    for t in tables:
        columns = [t.of[r] for r in ("x", "y", *CORNERS, "width", "height") if r in t.of]
        found = [
            text for row in t.rows for c in columns if _COMMA.fullmatch(text := str(row[c]).strip())
        ]
        if not found or not t.has_decimal_commas:
            continue
        if all(re.fullmatch(r"[-+]?[1-9]\d{0,2},\d{3}", text) for text in found):
            raise EmbedstoreError(
                f"{t.path}: {found[0]} may be {found[0].replace(',', '.')} as well as "
                f"{found[0].replace(',', '')}; write numbers with a decimal point and nothing "
                "between thousands"
            )
        notes.append(f"{t.path.name}: decimal commas were read as such ({found[0]})")


def _point(table: Table, row: Row) -> tuple[float, float]:
    return number(table, row, "x"), number(table, row, "y")


def _from_corner(table: Table, row: Row) -> tuple[float, float]:
    x, y = _point(table, row)
    return x + number(table, row, "width") / 2, y + number(table, row, "height") / 2


def _middle(table: Table, row: Row) -> tuple[float, float]:
    x, y = number(table, row, "xmin"), number(table, row, "ymin")
    if not _has_far_corner(table):
        return x + number(table, row, "width") / 2, y + number(table, row, "height") / 2
    far = number(table, row, "xmax"), number(table, row, "ymax")
    if far[0] < x or far[1] < y:
        raise EmbedstoreError(
            f"{table.path}: a box from ({x:g}, {y:g}) to ({far[0]:g}, {far[1]:g}) ends before it "
            "begins; say with --column which columns are xmin, ymin, xmax and ymax"
        )
    return (x + far[0]) / 2, (y + far[1]) / 2


def _has_corners(table: Table) -> bool:
    return all(role in table.of for role in CORNERS)


def _has_far_corner(table: Table) -> bool:
    return "xmax" in table.of and "ymax" in table.of


def _has_size(table: Table) -> bool:
    return "width" in table.of and "height" in table.of


def _are_slides(tables: Sequence[Table], name_of: Callable[[Table, Row], str]) -> bool:
    """Return whether widths and heights are of slides: one a slide, and most places within."""
    sizes, n_within, n = defaultdict[str, set[tuple[float, float]]](set), 0, 0
    for t in tables:
        for row in t.rows:
            if t.cell(row, "width") and t.cell(row, "height"):
                (x, y), size = _point(t, row), (number(t, row, "width"), number(t, row, "height"))
                sizes[name_of(t, row)].add(size)
                n_within += x <= size[0] and y <= size[1]
                n += 1
    return all(len(s) == 1 for s in sizes.values()) and 2 * n_within >= n


def _which(tables: Sequence[Table]) -> Box:
    """Return what x and y are of boxes, if no box can be meant otherwise; else ask."""
    boxes = [
        (*_point(t, row), number(t, row, "width"), number(t, row, "height"))
        for t in tables
        for row in t.rows
    ]
    if any(x < w / 2 or y < h / 2 for x, y, w, h in boxes):
        return "corner"  # around such a centre the box would begin before the slide
    x, y, w, h = boxes[0]
    raise EmbedstoreError(
        f"{tables[0].path}: width and height are of boxes, and x and y may be their corner or "
        f"their centre: the first is centred on ({x + w / 2:g}, {y + h / 2:g}) or on "
        f"({x:g}, {y:g}); say --box corner or --box centre, or --box slide if they are the "
        "slide's"
    )
