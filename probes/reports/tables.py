"""Tables of the report: one set of rows, written as CSV, Markdown and LaTeX and shown on the page.

Names in the rows come from users' data: each form escapes what it would take for markup.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.scores.results import to_null

Row = Mapping[str, Any]
MINUS, DASH = "\u2212", "\u2013"


@dataclass(frozen=True)
class Column:
    """A column as shown: its heading, the text of a row, and what it sorts by.

    shown maps a row to text; without it the value under `key` is the text. number: set right, and
    sorted by the value under `key`. code: set as code on the page.
    """

    key: str
    head: str
    shown: Callable[[Row], str] | None = None
    number: bool = False
    code: bool = False

    def text(self, row: Row) -> str:
        """Return the cell's text, nothing for None."""
        if self.shown is not None:
            return self.shown(row)
        value = row[self.key]
        return "" if value is None else f"{value:,}" if type(value) is int else str(value)

    def order(self, row: Row) -> str:
        """Return what the page sorts by: the number in full, or the text."""
        value = row.get(self.key)
        is_number = isinstance(value, int | float) and math.isfinite(value)
        return (repr(value) if is_number else "") if self.number else self.text(row)


@dataclass(frozen=True)
class Table:
    """Rows with the columns shown of them; CSV holds every value of the rows in full.

    best: the (row number, column key) cells set in bold. name is that of its files.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    best: frozenset[tuple[int, str]] = field(default_factory=frozenset)

    def cells(self) -> list[list[tuple[Column, str, str, bool]]]:
        """Return per row and column: the column, its text, what it sorts by, whether bold."""
        return [
            [(c, c.text(r), c.order(r), (n, c.key) in self.best) for c in self.columns]
            for n, r in enumerate(self.rows)
        ]


def best_of(
    rows: Sequence[Row], key: str, group: Sequence[str] = (), runs: str | None = None
) -> set[tuple[int, str]]:
    """Return the cells with the highest value under `key`, by what the `group` keys hold.

    None where all of a group are equal, or alone: then nothing is best. With `runs`, the key of a
    count, only the rows of a group compete that have as many runs as any.
    """
    members: dict[tuple[Any, ...], list[int]] = {}
    for n, r in enumerate(rows):
        if to_null(r[key]) is not None:
            members.setdefault(tuple(r[g] for g in group), []).append(n)
    best = set()
    for together in members.values():
        most = max(rows[n][runs] for n in together) if runs else 0
        able = [n for n in together if runs is None or rows[n][runs] == most]
        values = {rows[n][key] for n in able}
        best |= {(n, key) for n in able if len(values) > 1 and rows[n][key] == max(values)}
    return best


def number(value: Any, digits: int = 3) -> str:
    """Return a number as text with a true minus, nothing for NULL and NaN."""
    finite = to_null(value)
    return "" if finite is None else f"{finite:.{digits}f}".replace("-", MINUS)


def p_value(value: Any) -> str:
    """Return a p-value as text; one below a thousandth is said to be that."""
    text = number(value)
    return "<0.001" if text == "0.000" else text


def signed(value: Any, digits: int = 3) -> str:
    """Return a number as text with its sign."""
    finite = to_null(value)
    return "" if finite is None else f"{finite:+.{digits}f}".replace("-", MINUS)


def spread(mean: Any, sd: Any, digits: int = 3) -> str:
    """Return mean and SD as text; the mean alone where one run has no SD."""
    if to_null(mean) is None:
        return ""
    return number(mean, digits) + ("" if to_null(sd) is None else f" ± {number(sd, digits)}")


def change(low: Any, high: Any) -> str:
    """Return the bounds of a difference as text, with their signs, nothing if either lacks."""
    both = signed(low), signed(high)
    return " to ".join(both) if all(both) else ""


def between(low: Any, high: Any, digits: int = 3) -> str:
    """Return the bounds of an interval as text."""
    if to_null(low) is None or to_null(high) is None:
        return ""
    return f"{number(low, digits)}{DASH}{number(high, digits)}"


def percent(share: Any) -> str:
    """Return a share as a percentage."""
    return "" if to_null(share) is None else f"{share:.1%}"


def to_csv(table: Table) -> str:
    """Return a header and every value of the rows in full, LF line ends, NULL and NaN as nothing.

    A text that a spreadsheet would take for a formula gets a leading apostrophe.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = list(dict.fromkeys(k for r in table.rows for k in r)) or [c.key for c in table.columns]
    writer.writerow(keys)
    for r in table.rows:
        writer.writerow([_plain(r.get(k)) for k in keys])
    return out.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else ""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


def to_markdown(table: Table) -> str:
    """Return a title, a pipe table and its notes."""
    lines = [f"**{markdown_text(table.title)}**", ""]
    lines.append("| " + " | ".join(markdown_text(c.head) for c in table.columns) + " |")
    lines.append("|" + "|".join("---:" if c.number else "---" for c in table.columns) + "|")
    for cells in table.cells():
        shown = [
            f"**{markdown_text(t)}**" if bold and t else markdown_text(t) for _, t, _, bold in cells
        ]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join([*lines, "", *(markdown_text(n) for n in table.notes)]).rstrip() + "\n"


def markdown_text(text: str) -> str:
    """Return text that Markdown shows as it is: nothing in it is markup, HTML or a new line."""
    flat = re.sub(r"\s+", " ", text).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~$#!])", r"\\\1", flat)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    MINUS: r"$-$",
    DASH: "--",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "µ": r"$\mu$",
}


def latex_text(text: str) -> str:
    """Return text that LaTeX sets as it is; brackets are braced, so that none is an option."""
    return "".join(_LATEX.get(c, c) for c in re.sub(r"\s+", " ", text).strip())


def to_latex(table: Table) -> str:
    """Return a booktabs table that can be taken in with LaTeX's input command."""
    form = "".join("r" if c.number else "l" for c in table.columns)
    lines = [
        "% needs \\usepackage{booktabs,textcomp} and, for other scripts, a Unicode engine",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{latex_text(table.title)}}}",
        f"\\begin{{tabular}}{{{form}}}",
        "\\toprule",
        " & ".join(latex_text(c.head) for c in table.columns) + r" \\",
        "\\midrule",
    ]
    for cells in table.cells():
        shown = [
            rf"\textbf{{{latex_text(t)}}}" if bold and t else latex_text(t)
            for _, t, _, bold in cells
        ]
        lines.append(" & ".join(shown) + r" \\")
    lines += [
        "\\bottomrule",
        "\\end{tabular}",
        *(f"\\par\\small {latex_text(n)}" for n in table.notes),
        "\\end{table}",
    ]
    return "\n".join(lines) + "\n"
