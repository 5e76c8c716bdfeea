"""The boundary to pandas: what verbs return, a frame that says what it is of."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa

from embedstore.terminal.printing import problem_lines, say_notes

DataFrame = pd.DataFrame


class Rows(pd.DataFrame):  # type: ignore[misc]
    """Rows of one answer: a DataFrame with a title, and with the notes that were said on stderr.

    shown: the few rows and columns that stand for all of them in a notebook; None for the rows
    themselves. What is cut from it is a plain DataFrame.
    """

    _metadata: ClassVar[list[str]] = ["title", "notes", "shown"]
    title: str
    notes: list[str]
    shown: pd.DataFrame | None

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        """Return the title and the table as HTML."""
        of = pd.DataFrame(self) if self.shown is None else self.shown
        with pd.option_context("display.precision", 3, "display.max_columns", 16):
            table = of._repr_html_() if len(of) else "<p>no rows</p>"
        parts = [f"<p><strong>{escape(self.title)}</strong></p>", table]
        if self.shown is not None:
            parts.append(
                f"<p>{len(self):,} rows, {len(self.columns)} columns: "
                f"{escape(', '.join(map(str, self.columns)))}</p>"
            )
        return "".join(parts)


def rows_of(
    title: str,
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    notes: Sequence[str] = (),
    *,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> Rows:
    """Return rows, dicts of one form or an Arrow table, as a frame with a title; say its notes."""
    made = Rows(rows.to_pandas() if isinstance(rows, pa.Table) else _frame(rows))
    made.title, made.notes = title, list(notes)
    made.shown = None if shown is None else _frame(shown)
    say_notes(notes)
    return made


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows as a frame; a column without any value is one of numbers, all NaN."""
    frame = pd.DataFrame(list(rows))
    empty = [c for c in frame.columns if frame[c].dtype == object and frame[c].isna().all()]
    return frame.astype(dict.fromkeys(empty, "float64"))


def problem_notes(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in words which slides have no file, and which were set aside and why."""
    return problem_lines(problems)


def arrow_of(frame: pd.DataFrame) -> pa.Table:
    """Return a frame as Arrow; its index is a column, called annotation_id where it has no name."""
    if frame.index.name is None and not frame.index.equals(type(frame.index)(range(len(frame)))):
        frame = frame.rename_axis("annotation_id")
    keep = frame.reset_index() if frame.index.name is not None else frame
    return pa.Table.from_pandas(keep.rename(columns=str), preserve_index=False)
