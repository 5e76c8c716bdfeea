"""Which sections the page has: each declares itself in a file of `sections`."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

from probes.reports import sections
from probes.reports.blocks import Section, Style
from probes.reports.data import Facts
from probes.reports.predictions import Scores
from probes.scores.sides import Side


@dataclass(frozen=True)
class Material:
    """What sections are made of: facts on record, predictions to look into, each side's style."""

    facts: Facts
    scores: Sequence[Scores]
    styles: Mapping[Side, Style]


@dataclass(frozen=True)
class Maker:
    """A section of the page, which a file of `sections` declares as SECTION; place orders them."""

    place: int
    make: Callable[[Material], Section]


def makers() -> list[Maker]:
    """Return what makes the sections, in the order of the page."""
    names = [m.name for m in pkgutil.iter_modules(sections.__path__)]
    modules = [import_module(f"{sections.__name__}.{n}") for n in names]
    return sorted((m.SECTION for m in modules if hasattr(m, "SECTION")), key=lambda s: s.place)
