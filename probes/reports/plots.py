"""The boundary to matplotlib: figures of the report, as SVG and PNG files and for the page.

Drawn without pyplot, so nothing global changes. Colours are Okabe and Ito's, which the colour-blind
tell apart; dashes and markers say the same again.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from probes.reports.blocks import Figure, MatrixPanel, Panel, Style
from probes.reports.panels import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    MUTED,
    RULE,
    Room,
    colour,
    draw,
    room_of,
    short,
)

_SETTINGS: dict[str, Any] = {
    "text.parse_math": False,
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "path.simplify_threshold": 0.1,
}

_ON_PAGE = {"svg.fonttype": "none", "figure.facecolor": "none", "axes.facecolor": "none"}


@contextmanager
def _settings(**more: Any) -> Iterator[None]:
    with mpl.rc_context({**_SETTINGS, **more}), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn with boxes; the tables have it whole.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def files_of(figure: Figure) -> dict[str, bytes]:
    """Return a figure's SVG and PNG by ending, all panels together."""
    with _settings(**{"svg.hashsalt": figure.name}):
        canvas = _together(figure)
        return {"svg": _saved(canvas, "svg"), "png": _saved(canvas, "png")}


def panels_for_page(figure: Figure) -> list[tuple[str, str]]:
    """Return each panel's title and its SVG to stand in a page, in the page's colours and font."""
    made = []
    for n, panel in enumerate(figure.panels):
        name = f"{figure.name}-{n}"
        with _settings(**{"svg.hashsalt": name, **_ON_PAGE}):
            room = room_of(panel)
            size = (room.width, room.height - room.title)
            canvas = Canvas(figsize=size)
            draw(_axes(canvas, room, (0.0, 0.0), size), panel, title="")
            made.append((panel.title, _inline(_saved(canvas, "svg").decode(), name, panel.title)))
    return made


def _axes(
    canvas: Canvas, room: Room, corner: tuple[float, float], size: tuple[float, float]
) -> Axes:
    """Return axes for a panel with that lower left corner on a canvas of `size`, in inches."""
    (x, y), (width, height) = corner, size
    tall = min(room.height, height) - room.bottom - room.top
    tall -= room.title if height >= room.height else 0
    return canvas.add_axes(
        (
            (x + room.left) / width,
            (y + room.bottom) / height,
            (room.width - room.left - room.right) / width,
            tall / height,
        )
    )


def _together(figure: Figure) -> Canvas:
    rooms = [room_of(p) for p in figure.panels]
    n, wide, high = len(rooms), max(r.width for r in rooms), max(r.height for r in rooms)
    n_columns = max(1, min(n, 3 if isinstance(figure.panels[0], MatrixPanel) or wide < 4 else 2))
    n_columns = min(n, 4) if wide < 3.5 and n > 3 else n_columns
    n_rows = -(-n // n_columns)
    longest = max((len(short(name, 40)) for name, _ in figure.legend), default=0)
    per_row = max(1, int(max(n_columns * wide, 4.6) / (0.6 + 0.078 * longest)))
    below = 0.2 * -(-len(figure.legend) // per_row) + 0.15 if figure.legend else 0.0
    size = (max(n_columns * wide, 4.6), n_rows * high + below)
    canvas = Canvas(figsize=size)
    for k, (panel, room) in enumerate(zip(figure.panels, rooms, strict=True)):
        # Panels of a row begin at one height, below their titles.
        corner = (k % n_columns * wide, size[1] - (k // n_columns) * high - room.height)
        draw(_axes(canvas, room, corner, size), panel, _wrapped(panel.title, room.width - 0.3))
    if figure.legend:
        # A label that begins with an underscore is no label to matplotlib.
        names = [
            f" {s}" if (s := short(name, 40)).startswith("_") else s for name, _ in figure.legend
        ]
        canvas.legend(
            [_handle(style) for _, style in figure.legend],
            names,
            loc="lower left",
            ncols=per_row,
            borderaxespad=0.4,
        )
    return canvas


def _wrapped(text: str, width: float) -> str:
    """Return a title on up to two lines that fit a panel `width` inches wide."""
    n = max(12, int(width * 13))
    words, lines = short(text, 2 * n).split(" "), [""]
    for w in words:
        if len(lines[-1]) + len(w) >= n and lines[-1] and len(lines) < 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {w}".strip()
    return "\n".join(lines)


def _handle(style: Style) -> Line2D:
    return Line2D(
        [],
        [],
        color=colour(style),
        linestyle=DASHES[style.dash],
        marker=MARKERS[style.marker % len(MARKERS)],
        markersize=4,
        linewidth=2.2 if style.colour is None else 1.4,
    )


def _saved(canvas: Canvas, form: str) -> bytes:
    out = io.BytesIO()
    metadata = (
        {"Date": None, "Creator": "probes report"}
        if form == "svg"
        else {"Software": "probes report"}
    )
    canvas.savefig(out, format=form, dpi=200, metadata=metadata)
    return out.getvalue()


_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    **{c: f"var(--c{n})" for n, c in enumerate(COLOURS)},
}


def _inline(svg: str, name: str, label: str) -> str:
    """Return an SVG file's text fit to stand in a page: no prolog, no ids but its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r"<svg \1", svg, count=1)
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r'<svg role="img" \1', svg, count=1)
    svg = svg.replace("<svg ", f'<svg aria-label="{escape(label)}" ', 1)
    svg = re.sub(r'\bid="(line|band|keptband)-(\d+)"', r'class="\1" data-line="\2"', svg)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))
    svg = re.sub(r'\sid="([^"]+)"', lambda m: m[0] if m[1] in used else "", svg)
    for old in used:
        svg = re.sub(rf'(id="|url\(#|href="#){re.escape(old)}(?=[")])', rf"\g<1>{name}-{old}", svg)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    for fixed, variable in _THEME.items():
        svg = svg.replace(fixed, variable)
    return re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)


def legend_swatch(style: Style, name: str) -> str:
    """Return a style as a small SVG for a legend of the page; name tells its ids from others'."""
    with _settings(**{"svg.hashsalt": "legend", **_ON_PAGE}):
        canvas = Canvas(figsize=(0.42, 0.16))
        axes = canvas.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        handle = _handle(style)
        handle.set_data([0.04, 0.5, 0.96], [0.5, 0.5, 0.5])
        handle.set_markevery([1])
        axes.add_line(handle)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        return _inline(_saved(canvas, "svg").decode(), f"swatch-{name}", "")


def series(figure: Figure) -> Sequence[Sequence[str]]:
    """Return the names of each panel's lines, by the number its SVG has for them."""
    return [[line.name for line in p.lines] if isinstance(p, Panel) else [] for p in figure.panels]
