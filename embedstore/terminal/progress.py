"""Bars with rate and time left, on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from embedstore.terminal.printing import is_quiet, say


class _RateColumn(ProgressColumn):
    """Steps a second, over the last half minute and over all."""

    def render(self, task: Task) -> Text:
        """Return both speeds as text."""
        speed = task.finished_speed or task.speed
        if not speed or not task.elapsed:
            return Text("")
        return Text(f"{speed:.1f}/s (mean {task.completed / task.elapsed:.1f})", style="dim")


class Bar(Protocol):
    """Moves a bar to `done` of `total`; note is what stands beside it."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Move it."""
        ...


@contextmanager
def bars_on_terminal() -> Iterator[Callable[[str, str], Bar]]:
    """Show bars with rate and time left on stderr, if that is a terminal.

    Yields the function that adds one by its title and unit.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),  # all of it fits 80 columns
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[note]}"),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=is_quiet() or not console.is_terminal
    ) as bars:

        def add(what: str, unit: str) -> Bar:
            task = bars.add_task(what, total=None, unit=unit, note="")

            def bar(done: int, total: int, note: str = "") -> None:
                bars.update(task, completed=done, total=total, note=note)

            return bar

        yield add


@contextmanager
def progress_bars() -> Iterator[Callable[[str, str], Bar]]:
    """Show bars for a command: Ctrl-C ends it with a message and code 130."""
    try:
        with bars_on_terminal() as add:
            yield add
    except KeyboardInterrupt:
        say("interrupted; what is stored is kept, the same command does the rest")
        raise typer.Exit(130) from None


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Bar]:
    """Show one bar: see `progress_bars`."""
    with progress_bars() as add:
        yield add(what, unit)
