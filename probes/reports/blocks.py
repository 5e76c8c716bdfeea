"""What the report's page is made of, before it is a page: sections of blocks, figures as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.methods.table import METHODS
from probes.reports.data import Facts
from probes.reports.tables import Table
from probes.scores.sides import Side


@dataclass(frozen=True)
class Style:
    """How a side differs from the others in figures: colour and dash by model, marker by method.

    colour indexes plots.COLOURS, None is ink, which end to end alone has.
    """

    colour: int | None
    dash: int
    marker: int


N_COLOURS, N_DASHES = 6, 4
_E2E_MARKER = 4


def styles(facts: Facts) -> dict[Side, Style]:
    """Return each side's style: 24 models differ by colour and dash, methods by marker."""
    probes = list(dict.fromkeys(e.model for e in facts.sides if not e.is_e2e))
    trained = [e for e in facts.sides if e.is_e2e]
    styles = {}
    for e in facts.sides:
        if e.is_e2e:
            styles[e] = Style(None, trained.index(e) % N_DASHES, _E2E_MARKER)
        else:
            n = probes.index(e.model)
            styles[e] = Style(n % N_COLOURS, n // N_COLOURS % N_DASHES, _marker(e.method))
    return styles


def style_of(styles: Mapping[Side, Style], model: str) -> Style:
    """Return the style of a model by its first side; without one by its name, in no side's way."""
    mine = [s for e, s in styles.items() if e.model == model and not e.is_e2e]
    return mine[0] if mine else Style(sum(model.encode()) % N_COLOURS, 3, 0)


def _marker(method: str) -> int:
    """Return a probe's marker: by the method's place, leaving out that of end to end."""
    place = list(METHODS).index(method) if method in METHODS else len(METHODS)
    return place + (place >= _E2E_MARKER)


@dataclass(frozen=True)
class Line:
    """One line of a panel; low and high its band, bold what is highlighted."""

    name: str
    style: Style
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    bold: bool = False


def legend_of(panels: Sequence["Panel"]) -> list[tuple[str, Style]]:
    """Return each line of panels once, with its style, as a figure's legend."""
    return list({line.name: line.style for p in panels for line in p.lines}.items())


MAX_BANDS = 8
"""Lines of a panel with which all bands are shown: more of them hide each other."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes. kind: curves, calibration or plain.

    Of curves x is a logarithmic n_train, and y_from where the vertical axis begins; calibration has
    a unit square; plain axes are as wide as what is drawn, x linear or, with ticks, their places.
    """

    title: str
    lines: Sequence[Line]
    kind: str
    y_label: str = ""
    y_from: float = 0.0
    x_label: str = ""
    ticks: Sequence[str] = ()
    level: "Level | None" = None


@dataclass(frozen=True)
class Level:
    """A horizontal line across a panel with a band: where people stand, say."""

    name: str
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class MatrixPanel:
    """A matrix, NaN where there is no value; diverging about zero. axes: of rows and columns."""

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float]]
    diverging: bool = False
    axes: tuple[str, str] = ("trained on", "tested on")


@dataclass(frozen=True)
class Points:
    """A scatter of one model: x and y in its two directions, the class each point belongs to."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    classes: Sequence[str]
    of: Sequence[int]


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Missing:
    """What is not there, and the command that fills it."""

    text: str
    command: str = ""


@dataclass(frozen=True)
class TableBlock:
    """A table, shown and in three files."""

    table: Table
    is_open: bool = True


@dataclass(frozen=True)
class Figure:
    """Panels shown side by side, and together in an SVG and a PNG file called name.

    is_wide: on the page each takes a row.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Panel | MatrixPanel | Points]
    legend: Sequence[tuple[str, Style]] = ()
    on_page: bool = True
    notes: Sequence[str] = ()
    is_wide: bool = False


@dataclass(frozen=True)
class Shot:
    """A patch as a JPEG data address ("" where none is kept) with what is said of it."""

    image: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Patches in rows, each with a heading."""

    title: str
    rows: Sequence[tuple[str, Sequence[Shot]]]
    note: str = ""


@dataclass(frozen=True)
class Widget:
    """What the page's script draws from data: kind is matrices or map; text stands beside it."""

    kind: str
    title: str
    text: str
    data: Mapping[str, Any]


Block = Prose | Missing | TableBlock | Figure | Gallery | Widget


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    key: str
    title: str
    blocks: Sequence[Block]
    lead: str = ""


@dataclass(frozen=True)
class Page:
    """The page: what stands on top, and its sections."""

    title: str
    subtitle: str
    warnings: Sequence[str]
    facts: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)
