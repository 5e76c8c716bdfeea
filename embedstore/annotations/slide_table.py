"""The table of slides: what a second file says of each slide, and which row is whose."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embedstore.annotations.names import tidy
from embedstore.errors import EmbedstoreError
from embedstore.files.tables import MALFORMED, file_name, table_rows

MISSPELT: dict[str, dict[str, str]] = {
    # MIDOG++'s datasets_xvalidation.csv has both spellings of the one scanner.
    "scanner": {"Hamammatsu XR": "Hamamatsu XR"},
}
"""By column, values that public tables misspell and what they stand for."""

Rows = dict[str, dict[str, str]]


@dataclass(frozen=True)
class SlideTable:
    """The rows of a table of slides by the name it gives each; columns in lower case."""

    path: Path
    rows: Rows
    notes: tuple[str, ...] = ()

    def match(self, slides: Iterable[str]) -> tuple[Rows, list[str]]:
        """Return the row of each slide that has one, and notes on what has none.

        Rules in turn, for what is still unmatched: the same name, the same but for a suffix that
        one of the two lacks, then either with leading zeros of a number ignored (`1` is
        `001.tiff`). EmbedstoreError where a rule pairs a slide or a row with several.
        """
        open_slides, open_rows = list(dict.fromkeys(slides)), list(self.rows)
        n_slides, matched, by_number = len(open_slides), Rows(), list[tuple[str, str]]()
        for rule, (of_row, of_slide) in enumerate(_RULES):
            pairs = self._pairs(open_rows, open_slides, of_row, of_slide)
            matched |= {slide: self.rows[row] for row, slide in pairs}
            by_number += pairs if rule >= _FIRST_BY_NUMBER else []
            taken_rows, taken_slides = {row for row, _ in pairs}, {slide for _, slide in pairs}
            open_rows = [r for r in open_rows if r not in taken_rows]
            open_slides = [s for s in open_slides if s not in taken_slides]
        notes = list(self.notes)
        if by_number:
            notes.append(
                f"{len(by_number)} slides were found in {self.path.name} by their number "
                f"('{by_number[0][0]}' is {by_number[0][1]})"
            )
        if open_rows:
            notes.append(
                f"{len(open_rows)} of {len(self.rows)} rows of {self.path.name} name no slide of "
                f"this file (first: {open_rows[0]})"
            )
        if open_slides:
            notes.append(
                f"{len(open_slides)} of {n_slides} slides have no row in {self.path.name} "
                f"(first: {open_slides[0]})"
            )
        return matched, notes

    def _pairs(
        self,
        rows: list[str],
        slides: list[str],
        of_row: Callable[[str], str],
        of_slide: Callable[[str], str],
    ) -> list[tuple[str, str]]:
        rows_by, slides_by = _grouped(rows, of_row), _grouped(slides, of_slide)
        both = [(rows_by[key], slides_by[key]) for key in rows_by if key in slides_by]
        if several := [p for p in both if len(p[0]) > 1 or len(p[1]) > 1]:
            named, matching = several[0]
            raise EmbedstoreError(
                f"{self.path}: {len(several)} rows or slides have no single partner: row "
                f"{', '.join(named[:5])} would be slide {', '.join(matching[:5])}; name each slide "
                "by its file name in the table"
            )
        return [(row, slide) for (row,), (slide,) in both]


def read_slide_table(path: Path) -> SlideTable:
    """Return a CSV or Parquet table of slides: column slide (or path), and mpp, scanner, ... ."""
    if not path.is_file():
        raise EmbedstoreError(f"no slide table at {path}; give an existing CSV or Parquet file")
    try:
        table = table_rows(path)
    except MALFORMED as e:
        raise EmbedstoreError(
            f"{path} does not read as a table, Parquet or CSV in UTF-8 ({e})"
        ) from e
    header = list(table[0]) if table else []
    key = next((k for k in header if k and k.lower() in ("slide", "path")), None)
    if key is None:
        raise EmbedstoreError(f"{path} has no column slide; name each slide's file in one")
    rows, misspelt = Rows(), Counter[tuple[str, str, str]]()
    for row in table:
        if not row[key].strip():
            continue
        # The table's own name of the slide is no attribute: files know theirs.
        attributes = {
            k.lower(): v.strip() if k.lower() == "path" else tidy(v)
            for k, v in row.items()
            if k and v.strip() and k != key
        }
        for column, words in MISSPELT.items():
            if (value := attributes.get(column)) in words:
                misspelt[column, value, words[value]] += 1
                attributes[column] = words[value]
        name = file_name(row[key])
        if rows.setdefault(name, attributes) != attributes:
            raise EmbedstoreError(f"{path} has slide {name} twice with other values; keep one row")
    notes = tuple(
        f"{column} '{value}' of {path.name} was taken for '{meant}', {n} times"
        for (column, value, meant), n in misspelt.items()
    )
    return SlideTable(path, rows, notes)


def _same(name: str) -> str:
    return name


def _stem(name: str) -> str:
    return Path(name).stem


def _unpadded(rule: Callable[[str], str]) -> Callable[[str], str]:
    def of(name: str) -> str:
        file = Path(rule(name))
        number = file.stem.isascii() and file.stem.isdecimal()
        return f"{int(file.stem)}{file.suffix}" if number else str(file)

    return of


_PLAIN = ((_same, _same), (_same, _stem), (_stem, _same))
_FIRST_BY_NUMBER = len(_PLAIN)
_RULES = (*_PLAIN, *((_unpadded(row), _unpadded(slide)) for row, slide in _PLAIN))


def _grouped(names: Iterable[str], key: Callable[[str], str]) -> Mapping[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(key(name), []).append(name)
    return groups
