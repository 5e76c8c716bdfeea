"""One panel drawn into its axes: curves, reliability, a matrix or points; its colours."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap

from probes.reports.blocks import MAX_BANDS, Line, MatrixPanel, Panel, Points, Style

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, RULE = "#1b1b1a", "#6a6963", "#dddbd3"
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (6, 1.4, 1.2, 1.4)))
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "p", "h", "*")
CLASS_MARKERS = ("o", "^", "s", "D", "v", "P", "X", "<", ">", "p")
SEQUENTIAL = LinearSegmentedColormap.from_list("blues", ("#f4f3ee", "#8fb8d6", "#0b4f86"))
DIVERGING = LinearSegmentedColormap.from_list("both", ("#b4540a", "#f4f3ee", "#0b5c94"))


def colour(style: Style) -> str:
    """Return a style's colour as it is in files."""
    return INK if style.colour is None else COLOURS[style.colour]


class Room(NamedTuple):
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


def room_of(panel: Panel | MatrixPanel | Points) -> Room:
    """Return what a panel takes up."""
    if isinstance(panel, MatrixPanel):
        names = max((len(ends(r, 20)) for r in panel.rows), default=1)
        below = max((len(ends(c, 20)) for c in panel.columns), default=1)
        left, bottom = 0.4 + 0.07 * names, 0.45 + 0.045 * below
        return Room(
            left + max(1.6, 0.52 * len(panel.columns)) + 0.12,
            bottom + 0.4 * len(panel.rows) + 0.44,
            left,
            bottom,
        )
    if isinstance(panel, Points):
        n_lines = -(-len(panel.classes) // 2)
        return Room(3.0, 2.75 + 0.16 * n_lines, 0.1, 0.14 + 0.16 * n_lines)
    if panel.kind == "curves":
        return Room(4.6, 3.5, 0.56, 0.5)
    if panel.kind == "plain":
        return Room(4.6, 3.5, 0.66, 0.5)
    return Room(2.35, 2.7, 0.52, 0.48)


def short(text: str, n: int) -> str:
    """Return a text on one line, cut to n characters."""
    flat = re.sub(r"\s+", " ", text).strip() or " "
    return flat if len(flat) <= n else flat[: n - 1] + "\u2026"


def ends(text: str, n: int) -> str:
    """Return a text on one line, its middle left out where it is longer than n characters."""
    flat = short(text, 10**6)
    return flat if len(flat) <= n else f"{flat[: n // 2 - 1]}\u2026{flat[len(flat) - n // 2 :]}"


def draw(axes: Axes, panel: Panel | MatrixPanel | Points, title: str) -> None:
    """Draw a panel; without a title it is for the page, which shows and hides bands itself."""
    if isinstance(panel, MatrixPanel):
        _matrix(axes, panel)
    elif isinstance(panel, Points):
        _points(axes, panel)
    elif panel.kind == "curves":
        _curves(axes, panel, all_bands=not title)
    elif panel.kind == "plain":
        _plain(axes, panel)
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
        shifted = [v * aside for v in line.x]
        if all_bands or line.bold or len(panel.lines) <= MAX_BANDS:
            _band(axes, line, shifted, k)
        axes.plot(
            shifted,
            line.y,
            color=colour(line.style),
            linestyle=DASHES[line.style.dash],
            marker=MARKERS[line.style.marker % len(MARKERS)],
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
    _level(axes, panel)
    axes.set_xlabel("training annotations")
    axes.set_ylabel(panel.y_label)


def _plain(axes: Axes, panel: Panel) -> None:
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    for k, line in enumerate(panel.lines):
        # At the same places, lines stand side by side, so that no interval hides another.
        aside = 0.4 * ((k + 0.5) / len(panel.lines) - 0.5) if panel.ticks else 0.0
        x = [v + aside for v in line.x]
        color = colour(line.style)
        for at, low, high in zip(x, line.low, line.high, strict=False):
            if np.isfinite(low) and np.isfinite(high):
                axes.vlines(
                    at, low, high, color=color, alpha=0.35, linewidth=2.5, gid=f"keptband-{k}"
                )
        axes.plot(
            x,
            line.y,
            color=color,
            linestyle=DASHES[line.style.dash] if len(x) > 1 else "none",
            marker=MARKERS[line.style.marker % len(MARKERS)],
            markersize=4.5,
            linewidth=2.2 if line.bold else 1.3,
            gid=f"line-{k}",
            zorder=3,
        )
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), [short(name, 24) for name in panel.ticks])
        axes.set_xlim(-0.4, len(panel.ticks) - 0.6)
    _level(axes, panel)
    axes.margins(0.08)
    axes.set_xlabel(panel.x_label)
    axes.set_ylabel(panel.y_label)


def _level(axes: Axes, panel: Panel) -> None:
    """Draw where a level lies, named at the right."""
    if panel.level is None:
        return
    of = panel.level
    if np.isfinite(of.low) and np.isfinite(of.high):
        axes.axhspan(of.low, of.high, color=MUTED, alpha=0.14, linewidth=0, zorder=1)
    axes.axhline(of.y, color=MUTED, linewidth=1.0, linestyle=(0, (4, 2)), zorder=2)
    axes.annotate(
        of.name,
        (1, of.y),
        xycoords=("axes fraction", "data"),
        xytext=(-2, 2),
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=7.5,
        color=MUTED,
    )


def _band(axes: Axes, line: Line, shifted: Sequence[float], k: int) -> None:
    bounded = [
        i for i in range(len(line.low)) if np.isfinite(line.low[i]) and np.isfinite(line.high[i])
    ]
    if not bounded:
        return
    gid = f"keptband-{k}" if line.bold else f"band-{k}"
    x, low, high = ([float(v[i]) for i in bounded] for v in (shifted, line.low, line.high))
    if len(bounded) == 1:  # one size has no area; a bar says it
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
            marker=MARKERS[line.style.marker % len(MARKERS)],
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
    floor = 0.0 if np.nanmin(values, initial=1.0) < 0.4 else 0.5
    low, high = (-reach, reach) if panel.diverging else (floor, 1.0)
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
        [ends(c, 20) for c in panel.columns],
        rotation=30,
        ha="right",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(len(panel.rows)), [ends(r, 20) for r in panel.rows])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_ylabel(panel.axes[0])
    axes.set_xlabel(panel.axes[1])


def _points(axes: Axes, panel: Points) -> None:
    of, x, y = np.array(panel.of), np.array(panel.x), np.array(panel.y)
    for k, name in enumerate(panel.classes):
        is_class = of == k
        label = short(name, 28)
        axes.scatter(
            x[is_class],
            y[is_class],
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
