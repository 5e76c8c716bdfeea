"""Which column of a table holds what: by its name, or as a user declares it."""

import functools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from embedstore.annotations.source import SourceAnnotation, Unit, split_of
from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.tables import delimiter_of, is_delimited, table_columns, table_rows

POINT = ("x", "y", "label", "id", "split")
"""Roles of columns that say something of one annotation, and nothing of its slide."""
CORNERS: dict[str, tuple[str, ...]] = {
    "xmin": ("xmin", "x_min", "left", "x1"),
    "ymin": ("ymin", "y_min", "top", "y1"),
    "xmax": ("xmax", "x_max", "right", "x2"),
    "ymax": ("ymax", "y_max", "bottom", "y2"),
}
"""The names, in lower case, of columns that hold the corners of boxes."""
SIZES: dict[str, tuple[str, ...]] = {
    side: tuple(f"{box}{name}" for name in (side, side[0]) for box in ("", "box_", "bbox_"))
    for side in ("width", "height")
}
"""The names, in lower case, of columns that hold the sizes of boxes."""
ROLES = ("slide", "path", *POINT, *CORNERS, "width", "height", "domain", "case")
"""What a column of that very name is taken for."""
VOTE = "vote"
"""The role of columns that hold what each expert said; declared by a pattern as Expert_*."""
UNUSED = "-"
"""What stands in --columns for a column that is not read."""

Box = Literal["corner", "centre", "slide"]


@dataclass(frozen=True)
class Declared:
    """What a user says of a file's columns, which comes before what their names say.

    columns: the column (or key) of each role of ROLES, of vote (a pattern), or of any attribute;
    header: the columns in order, where a table does not name them; box: what x and y are of boxes
    that have a width and height, or "slide" if these are the slide's; case_from_name: the pattern
    of a case in a slide's name.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    header: tuple[str, ...] = ()
    box: Box | None = None
    case_from_name: str | None = None

    def attributes(self, of: Mapping[str, str]) -> dict[str, str]:
        """Return attributes, those that are declared under the declared name as well."""
        declared = {
            name: of[column]
            for name, column in self.columns.items()
            if column in of and name not in (*POINT, *CORNERS, VOTE)
        }
        return {**of, **declared}

    def votes(self, of: Mapping[str, str]) -> tuple[str, ...]:
        """Return what each expert said, in the order of the columns."""
        pattern = self.columns.get(VOTE)
        return tuple(v for k, v in of.items() if fnmatchcase(k, pattern)) if pattern else ()


NOTHING = Declared()


class UnknownColumnsError(EmbedstoreError):
    """A table lacks a column that must be known; columns and rows are what it has.

    names: the files of the folder that it lies in, where these are the names of slides.
    """

    def __init__(
        self,
        path: Path,
        needed: str,
        columns: Sequence[str],
        rows: Sequence[Mapping[str, str]] = (),
    ) -> None:
        """Say what is needed of the table at path."""
        self.path, self.needed, self.columns, self.rows = path, needed, columns, rows
        self.names: Sequence[str] = ()
        super().__init__(f"{path} has columns {', '.join(columns) or 'none'}; needed: {needed}")


@dataclass(frozen=True)
class Table:
    """The rows of one file as text, and the column of each role that it has."""

    path: Path
    columns: list[str]
    rows: list[dict[str, Any]]
    of: Mapping[str, str]
    declared: Declared = NOTHING

    def cell(self, row: Mapping[str, Any], role: str) -> str:
        """Return what a row holds in a role, "" where it holds nothing."""
        column = self.of.get(role)
        return str(row.get(column) or "") if column else ""

    def attributes(self, row: Mapping[Any, Any]) -> dict[str, str]:
        """Return the cells of a row that hold something, by column and by declared name."""
        of = {k: v for k, v in row.items() if k and isinstance(v, str) and v.strip() != ""}
        return self.declared.attributes(of)

    @property
    def unit(self) -> Unit | None:
        """What places are in, where the names of their columns say so, as QuPath's do."""
        names = [self.of[r] for r in ("x", "xmin") if r in self.of]
        units = [unit for name in names for unit, is_said in _UNITS.items() if is_said.search(name)]
        return units[0] if units else None

    @functools.cached_property
    def has_decimal_commas(self) -> bool:
        """Whether a comma in a number is its decimal one: none stands between the columns."""
        return is_delimited(self.path) and delimiter_of(self.path) != ","

    def place(self, n: int) -> str:
        """Return where the n-th row (from 1) is found by who looks for it."""
        if not is_delimited(self.path):
            return f"row {n}"
        return f"line {n if self.declared.header else n + 1}"

    def of_points(self) -> set[str]:
        """Return the columns and names that say something of one annotation."""
        names = {self.of[role] for role in (*POINT, *CORNERS) if role in self.of} | set(POINT)
        pattern = self.declared.columns.get(VOTE)
        return names | {c for c in self.columns if pattern and fnmatchcase(c, pattern)}


_UNITS: dict[Unit, re.Pattern[str]] = {
    "um": re.compile(r"[µμ]m|(?<![a-z])um(?![a-z])|micron|micromet", re.I),
    "px": re.compile(r"(?<![a-z])(px|pixels?)(?![a-z])", re.I),
}


def read_table(path: Path, declared: Declared = NOTHING, *, without: Sequence[str] = ()) -> Table:
    """Return a table with the roles of its columns, those in `without` left unread."""
    columns = [c for c in columns_of(path, declared) if c not in without]
    rows = table_rows(path, _header(declared), without=without)
    if declared.header:
        columns = [c for c in columns if not c.startswith(UNUSED)]
        rows = [{c: row[c] for c in columns} for row in rows]
    return Table(path, columns, rows, roles(path, columns, declared), declared)


def columns_of(path: Path, declared: Declared = NOTHING) -> list[str]:
    """Return the columns of a table, as a user names them where it does not."""
    return table_columns(path, _header(declared))


def _header(declared: Declared) -> list[str]:
    """Return the declared columns, those that are not used told apart."""
    return [f"{c}{n}" if c == UNUSED else c for n, c in enumerate(declared.header)]


def roles(path: Path, columns: Sequence[str], declared: Declared = NOTHING) -> dict[str, str]:
    """Return the column of each role; EmbedstoreError where a declared one is not there."""
    of = {role: role for role in ROLES if role in columns}
    lower = {c.lower(): c for c in reversed(columns)}
    for role, names in (CORNERS | SIZES).items():
        if column := next((lower[n] for n in names if n in lower), None):
            of.setdefault(role, column)
    lacking = [
        column
        for role, column in declared.columns.items()
        if not (any(fnmatchcase(c, column) for c in columns) if role == VOTE else column in columns)
    ]
    if lacking:
        raise EmbedstoreError(
            f"{path} has no column {', '.join(map(repr, lacking))} (--column); it has: "
            f"{', '.join(columns)}"
        )
    if {"x", "y", "xmax", "ymax"} <= set(of) and not {"xmin", "ymin"} & set(of):
        of["xmin"], of["ymin"] = of.pop("x"), of.pop("y")  # the near corner of the far one
    return of | {r: c for r, c in declared.columns.items() if r in ROLES}


def declare(
    annotation: SourceAnnotation, declared: Declared, of_slide: Mapping[str, str]
) -> SourceAnnotation:
    """Return an annotation of a file that is no table with what is declared of its keys."""
    known = {**of_slide, **annotation.attributes}
    if (key := declared.columns.get("label")) is not None:
        if key not in known:
            raise EmbedstoreError(
                f"{annotation.source_id} on {annotation.slide} has no '{key}' (--label-from); it "
                f"has: {', '.join(sorted(known)) or 'nothing'}"
            )
        annotation = replace(annotation, category=known[key])
    split = split_of(known.get(declared.columns.get("split", ""), ""))
    return replace(
        annotation,
        attributes=declared.attributes(dict(annotation.attributes)),
        votes=declared.votes(known) or annotation.votes,
        split=split or annotation.split,
    )


def check_declared(declared: Declared) -> None:
    """Raise UsageError where what is declared cannot be meant of any file."""
    places = [r for r in declared.columns if r in ("x", "y", *CORNERS)]
    if len(set(declared.columns) & {"x", "y"}) == 1:
        raise UsageError(f"--column names {places[0]} alone; name both x and y")
    twice = {c for c, n in Counter(declared.header).items() if c != UNUSED and n > 1}
    if twice:
        raise UsageError(f"--columns names {', '.join(sorted(twice))} more than once")
