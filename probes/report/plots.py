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
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from probes.report.blocks import MAX_BANDS, Figure, Line, MatrixPanel, Panel, Points, Style

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, RULE = "#1b1b1a", "#6a6963", "#dddbd3"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "v", "D", "P")
CLASS_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p")
SEQUENTIAL = LinearSegmentedColormap.from_list("blues", ("#f4f3ee", "#8fb8d6", "#0b4f86"))
DIVERGING = LinearSegmentedColormap.from_list("both", ("#b4540a", "#f4f3ee", "#0b5c94"))

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


def colour(style: Style) -> str:
    """Return a style's colour as it is in files."""
    return INK if style.colour is None else COLOURS[style.colour]


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
            room = _room(panel)
            size = (room.width, room.height - room.title)
            canvas = Canvas(figsize=size)
            _draw(_axes(canvas, room, (0.0, 0.0), size), panel, title="")
            made.append((panel.title, _inline(_saved(canvas, "svg").decode(), name, panel.title)))
    return made


class _Room(NamedTuple):
    """What a panel takes up, in inches: all of it, and the margins around its axes.

    Set by hand: a layout engine takes seconds for forty panels. title lies above top.
    """

    width: float
    height: float
    left: float
    bottom: float
    right: float = 0.12
    top: float = 0.08
    title: float = 0.36


def _room(panel: Panel | MatrixPanel | Points) -> _Room:
    if isinstance(panel, MatrixPanel):
        names = max((len(_short(r, 18)) for r in panel.rows), default=1)
        below = max((len(_short(c, 18)) for c in panel.columns), default=1)
        left, bottom = 0.4 + 0.07 * names, 0.45 + 0.045 * below
        return _Room(
            left + max(1.6, 0.52 * len(panel.columns)) + 0.12,
            bottom + 0.4 * len(panel.rows) + 0.44,
            left,
            bottom,
        )
    if isinstance(panel, Points):
        n_lines = -(-len(panel.classes) // 2)
        return _Room(3.0, 2.75 + 0.16 * n_lines, 0.1, 0.14 + 0.16 * n_lines)
    if panel.kind == "curves":
        return _Room(4.6, 3.5, 0.56, 0.5)
    return _Room(2.35, 2.7, 0.52, 0.48)


def _axes(canvas: Canvas, room: _Room, at: tuple[float, float], size: tuple[float, float]) -> Axes:
    """Return axes for a panel whose lower left corner is `at` on a canvas of `size`, in inches."""
    (x, y), (width, height) = at, size
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
    rooms = [_room(p) for p in figure.panels]
    n, wide, high = len(rooms), max(r.width for r in rooms), max(r.height for r in rooms)
    n_columns = max(1, min(n, 3 if isinstance(figure.panels[0], MatrixPanel) or wide < 4 else 2))
    n_columns = min(n, 4) if wide < 3.5 and n > 3 else n_columns
    n_rows = -(-n // n_columns)
    longest = max((len(_short(name, 40)) for name, _ in figure.legend), default=0)
    per_row = max(1, int(max(n_columns * wide, 4.6) / (0.6 + 0.078 * longest)))
    below = 0.2 * -(-len(figure.legend) // per_row) + 0.15 if figure.legend else 0.0
    size = (max(n_columns * wide, 4.6), n_rows * high + below)
    canvas = Canvas(figsize=size)
    for k, (panel, room) in enumerate(zip(figure.panels, rooms, strict=True)):
        # Panels of a row begin at one height, below their titles.
        corner = (k % n_columns * wide, size[1] - (k // n_columns) * high - room.height)
        _draw(_axes(canvas, room, corner, size), panel, _wrapped(panel.title, room.width - 0.3))
    if figure.legend:
        # A label that begins with an underscore is no label to matplotlib.
        names = [
            f" {s}" if (s := _short(name, 40)).startswith("_") else s for name, _ in figure.legend
        ]
        canvas.legend(
            [_handle(style) for _, style in figure.legend],
            names,
            loc="lower left",
            ncols=per_row,
            borderaxespad=0.4,
        )
    return canvas


def _short(text: str, n: int) -> str:
    flat = re.sub(r"\s+", " ", text).strip() or " "
    return flat if len(flat) <= n else flat[: n - 1] + "\u2026"


def _wrapped(text: str, width: float) -> str:
    """Return a title on up to two lines that fit a panel `width` inches wide."""
    n = max(12, int(width * 13))
    words, lines = _short(text, 2 * n).split(" "), [""]
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
        marker=MARKERS[style.marker],
        markersize=4,
        linewidth=2.2 if style.colour is None else 1.4,
    )


def _draw(axes: Axes, panel: Panel | MatrixPanel | Points, title: str) -> None:
    """Draw a panel; without a title it is for the page, which shows and hides bands itself."""
    if isinstance(panel, MatrixPanel):
        _matrix(axes, panel)
    elif isinstance(panel, Points):
        _points(axes, panel)
    elif panel.kind == "curves":
        _curves(axes, panel, all_bands=not title)
    else:
        _reliability(axes, panel)
    if title:
        axes.set_title(title)


def _curves(axes: Axes, panel: Panel, *, all_bands: bool) -> None:
    axes.set_xscale("log")
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    every = sorted({float(x) for line in panel.lines for x in line.x})
    # What is highlighted comes last, on top of all.
    for k, line in sorted(enumerate(panel.lines), key=lambda kl: kl[1].bold):
        # Of one size alone, lines are points: they stand side by side around it.
        aside = 1 + 0.3 * ((k + 0.5) / len(panel.lines) - 0.5) if len(every) == 1 else 1.0
        at = [v * aside for v in line.x]
        if all_bands or line.bold or len(panel.lines) <= MAX_BANDS:
            _band(axes, line, at, k)
        axes.plot(
            at,
            line.y,
            color=colour(line.style),
            linestyle=DASHES[line.style.dash],
            marker=MARKERS[line.style.marker],
            markersize=5 if line.bold else 3.6,
            linewidth=2.4 if line.bold else 1.3,
            gid=f"line-{k}",
            zorder=4 if line.bold else 3,
        )
    ticks: list[float] = []
    for x in reversed(every):  # of sizes too near to each other the larger has the tick
        if not ticks or x < ticks[-1] / 1.6:
            ticks.append(x)
    axes.set_xticks(ticks, [f"{x:,.0f}" for x in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(every) / 1.25, max(every) * 1.25)
    axes.set_ylim(panel.y_from, 1.0)
    if panel.y_from < 0.5:
        axes.axhline(0.5, color=MUTED, linewidth=0.7, linestyle=(0, (2, 2)))
    axes.set_xlabel("training annotations")
    axes.set_ylabel(panel.y_label)


def _band(axes: Axes, line: Line, at: Sequence[float], k: int) -> None:
    known = [
        i for i in range(len(line.low)) if np.isfinite(line.low[i]) and np.isfinite(line.high[i])
    ]
    if not known:
        return
    gid = f"keptband-{k}" if line.bold else f"band-{k}"
    x, low, high = ([float(v[i]) for i in known] for v in (at, line.low, line.high))
    if len(known) == 1:  # one size has no area; a bar says it
        axes.vlines(x, low, high, color=colour(line.style), alpha=0.35, linewidth=3, gid=gid)
    else:
        axes.fill_between(x, low, high, color=colour(line.style), alpha=0.13, linewidth=0, gid=gid)


def _reliability(axes: Axes, panel: Panel) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    for k, line in enumerate(panel.lines):
        axes.plot(
            line.x,
            line.y,
            color=colour(line.style),
            linestyle=DASHES[line.style.dash],
            marker=MARKERS[line.style.marker],
            markersize=3,
            linewidth=1.4,
            gid=f"line-{k}",
            clip_on=False,
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_xlabel("mean score")
    axes.set_ylabel(panel.y_label)


def _matrix(axes: Axes, panel: MatrixPanel) -> None:
    values = np.array(panel.values, dtype=float).reshape(len(panel.rows), len(panel.columns))
    reach = max(0.05, float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.05)
    low, high = (-reach, reach) if panel.diverging else (0.5, 1.0)
    cmap = DIVERGING if panel.diverging else SEQUENTIAL
    axes.imshow(np.ma.masked_invalid(values), cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        v = values[i, j]
        text = "" if np.isnan(v) else (f"{v:+.2f}" if panel.diverging else f"{v:.2f}")
        deep = not np.isnan(v) and (abs(v) > 0.6 * reach if panel.diverging else v > 0.82)
        axes.text(
            j,
            i,
            text.replace("-", "\u2212"),
            ha="center",
            va="center",
            fontsize=8,
            color="#ffffff" if deep else INK,
        )
    axes.set_xticks(
        range(len(panel.columns)),
        [_short(c, 18) for c in panel.columns],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(panel.rows)), [_short(r, 18) for r in panel.rows])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_ylabel("trained on")
    axes.set_xlabel("tested on")


def _points(axes: Axes, panel: Points) -> None:
    of, x, y = np.array(panel.of), np.array(panel.x), np.array(panel.y)
    for k, name in enumerate(panel.classes):
        mine = of == k
        label = _short(name, 28)
        axes.scatter(
            x[mine],
            y[mine],
            s=5,
            c=COLOURS[k % len(COLOURS)],
            alpha=0.65,
            linewidths=0,
            marker=CLASS_MARKERS[k % len(CLASS_MARKERS)],
            rasterized=True,
            label=f" {label}" if label.startswith("_") else label,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        fontsize=7,
        ncols=2,
        handletextpad=0.1,
        columnspacing=0.8,
        markerscale=1.8,
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


def legend_swatch(style: Style) -> str:
    """Return a style as a small SVG for a legend of the page."""
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
        name = f"swatch-{style.colour}-{style.dash}-{style.marker}"
        return _inline(_saved(canvas, "svg").decode(), name, "")


def series(figure: Figure) -> Sequence[Sequence[str]]:
    """Return the names of each panel's lines, by the number its SVG has for them."""
    return [[line.name for line in p.lines] if isinstance(p, Panel) else [] for p in figure.panels]
