"""Results on stdout, messages on stderr: tables, records, rows as JSON, CSV and Parquet."""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.files.output import to_json, write_out
from embedstore.terminal.options import OutputOptions, SqlFormat


def print_arrow(table: Any, printed: OutputOptions, as_json: bool) -> None:
    """Print an Arrow table, or write it to a file whose ending decides the format.

    A reader of batches is written batch by batch, but for what is printed as a table.
    """
    from embedstore.files.output import to_rows, write_csv, write_json, write_parquet

    format, output = SqlFormat.json if as_json else printed.format, printed.output
    to = printed.place()
    if output is not None and format is SqlFormat.table:
        format = format_of_file(output)
    if format is SqlFormat.table:
        whole = table if hasattr(table, "to_pylist") else table.read_all()
        print_table(None, to_rows(whole), whole.column_names)
    elif format is SqlFormat.parquet:
        if output is None and sys.stdout.isatty():
            raise EmbedstoreError("Parquet is binary: name a file with --output, or pipe it")
        write_out(to, lambda sink: write_parquet(table, sink))
    else:
        write = write_csv if format is SqlFormat.csv else write_json
        write_out(to, lambda sink: write(table, sink))


def _console() -> Console:
    # Piped, a table is not squeezed into 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=200, file=sys.stdout)


_is_quiet = False


def hush(quiet: bool) -> None:
    """Say nothing from now on but errors, or what there is to say again."""
    global _is_quiet
    _is_quiet = quiet


def is_quiet() -> bool:
    """Return whether only errors are said."""
    return _is_quiet


def say(message: str) -> None:
    """Say a message on stderr, unless only errors are."""
    if not _is_quiet:
        Console(stderr=True, soft_wrap=True).print(escape(message), highlight=False)


def say_error(message: str) -> None:
    """Say on stderr what went wrong."""
    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(message)}", highlight=False
    )


def say_notes(notes: Sequence[str]) -> None:
    """Say notes on stderr, those that repeat once, with how often."""
    for note, n in {n: list(notes).count(n) for n in notes}.items():
        say(f"note: {note}" + (f" ({n} times)" if n > 1 else ""))


def say_problems(problems: Sequence[Mapping[str, Any]], dataset: str | None = None) -> None:
    """Say which slides have no file yet, and which were set aside and why."""
    for line in problem_lines(problems, dataset):
        say(line)


def problem_lines(problems: Sequence[Mapping[str, Any]], dataset: str | None = None) -> list[str]:
    """Return which slides have no file yet, and which were set aside and why, line by line."""
    lines = []
    where = f" of {dataset}" if dataset else ""
    absent = [p for p in problems if p.get("status") == "missing"]
    broken = [p for p in problems if p.get("status") != "missing"]
    if absent:
        names = ", ".join(str(p["slide"]) for p in absent[:3])
        lines.append(
            f"{len(absent)} slides{where} have no file yet (add --slides DIR): {names}"
            + ", ..." * (len(absent) > 3)
        )
    if broken:
        lines.append(f"{len(broken)} slides{where} set aside, tried again at the next ingest:")
    lines += [f"  {p['slide']}: {p['problem']}" for p in broken[:20]]
    return lines + ([f"  ... and {len(broken) - 20} more"] if len(broken) > 20 else [])


def print_table(
    title: str | None,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
    narrow: Sequence[str] = (),
) -> None:
    """Print rows as a table; where they do not fit, those in narrow, or a list a row."""
    columns = list(columns if columns is not None else rows[0] if rows else [])
    console = _console()
    if narrow and not _fits(rows, columns, console.width):
        columns = list(narrow)
    if not _fits(rows, columns, console.width):
        _print_records(title, rows, columns, console)
        return
    table = Table(header_style="bold")
    for c in columns:
        numbers = any(isinstance(r[c], int | float) for r in rows)
        table.add_column(escape(c), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:500]:
        table.add_row(*(_cell(row[c]) for c in columns))
    if title is not None:
        console.print(Text(title, style="bold"))
    console.print(table)
    if len(rows) > 500:
        say(f"the first 500 of {len(rows):,} rows; --format csv or --output FILE gives all")


def _fits(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], width: int) -> bool:
    """Return whether columns stand side by side without headers broken, or texts to shreds."""
    if len(columns) <= 3:
        return True
    widths = [
        max(len(c), min(_LEAST, max((len(_cell(r[c]).plain) for r in rows[:500]), default=0)))
        for c in columns
    ]
    return sum(widths) + 3 * len(columns) + 1 <= width


_LEAST = 12
"""Letters of a text that are to stay on one line."""


def _print_records(
    title: str | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], console: Console
) -> None:
    """Print each row as a list of columns: what has many columns is read down, not across."""
    if title is not None:
        console.print(Text(title, style="bold"))
    for row in rows[:50]:
        table = Table(show_header=False)
        for c in columns:
            table.add_row(Text(c, style="bold"), _cell(row[c]))
        console.print(table)
    if len(rows) > 50:
        say(f"the first 50 of {len(rows):,} rows; --format csv or --output FILE gives all")
    if not rows:
        console.print("no rows")


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", style="dim")
    if isinstance(value, bool):
        return Text(str(value).lower())
    if isinstance(value, float):
        return Text("" if math.isnan(value) else f"{value:.6g}")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, list) and len(value) > 6:
        head = ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value[:3])
        return Text(f"[{head}, ... {len(value)}]")
    return Text(str(value))


def print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as JSON."""
    write_out(None, lambda sink: sink.write(to_json(list(rows)).encode()))


def format_of_file(path: str) -> SqlFormat:
    """Return how a file is to be written, by its ending."""
    ending = PurePosixPath(path).suffix.lower().removeprefix(".")
    if ending not in ("csv", "json", "parquet"):
        raise UsageError(f"{path}: name the file .csv, .json or .parquet, or give --format")
    return SqlFormat(ending)
