"""Progress of a call from Python: a bar in the notebook's cell, else on the terminal."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from embedstore.terminal.progress import Bar, bars_on_terminal

# The hub's client looks for another bar of progress than this one, and warns of what it lacks.
warnings.filterwarnings("ignore", message="IProgress not found")

EVERY = 0.2
"""Seconds between two pictures of a bar."""


def cell() -> Any:
    """Return what shows HTML in a notebook's cell and can show other HTML later; None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda html: handle.update(HTML(html))


@contextmanager
def progress(what: str, unit: str) -> Iterator[Bar]:
    """Show a bar while something is done; it goes when that ends."""
    show = cell()
    if show is None:
        with bars_on_terminal() as add:
            yield add(what, unit)
        return
    started = shown_at = time.monotonic()

    def bar(done: int, total: int, note: str = "") -> None:
        nonlocal shown_at
        now = time.monotonic()
        if done < total and now - shown_at < EVERY:
            return
        shown_at = now
        show(html_bar(what, unit, done, total, now - started, note))

    try:
        yield bar
    finally:
        show("")


def html_bar(what: str, unit: str, done: int, total: int, seconds: float, note: str) -> str:
    """Return a bar as HTML, with rate and time left."""
    rate = done / seconds if seconds else 0.0
    left = f", {(total - done) / rate:,.0f} s left" if rate and done < total else ""
    text = f"{what}: {done:,}/{total:,} {unit} ({rate:,.1f}/s{left}) {note}"
    return f'<progress value="{done}" max="{max(total, 1)}"></progress> {escape(text)}'
