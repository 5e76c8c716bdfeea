"""A page of the report as one HTML file that needs nothing else.

All text is escaped by the template engine; only SVG that we drew goes in as it is.
"""

from pathlib import Path

from embedstore.files.template import Markup, filled
from probes.reports.blocks import MAX_BANDS, Block, Figure, Page
from probes.reports.plots import legend_swatch, panels_for_page, series

TEMPLATES = Path(__file__).parent / "template"


def render(page: Page) -> str:
    """Return the page as HTML; links to the files beside it are relative."""
    style, script = (Markup((TEMPLATES / f).read_text("utf-8")) for f in ("page.css", "page.js"))
    return filled(
        TEMPLATES / "page.html",
        page=page,
        style=style,
        script=script,
        kind=_kind,
        panels=_panels,
        legend=_legend,
        max_bands=MAX_BANDS,
    )


def _kind(block: Block) -> str:
    return type(block).__name__


def _panels(figure: Figure) -> list[tuple[str, Markup, str]]:
    """Return each panel's title, its SVG, and the places of its lines in the figure's legend."""
    places = {name: str(n) for n, (name, _) in enumerate(figure.legend)}
    return [
        (title, Markup(svg), ",".join(places.get(n, "") for n in names))
        for (title, svg), names in zip(panels_for_page(figure), series(figure), strict=True)
    ]


def _legend(figure: Figure) -> list[tuple[str, Markup]]:
    return [
        (name, Markup(legend_swatch(style, f"{figure.name}-{n}")))
        for n, (name, style) in enumerate(figure.legend)
    ]
