"""The boundary to Jinja: HTML pages from templates, in which all text is escaped."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["Markup", "filled"]


def filled(template: Path, **values: Any) -> str:
    """Return a template of a folder with its values; only what is `Markup` goes in as it is.

    A value that the template names and does not get is an error.
    """
    engine = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return engine.get_template(template.name).render(**values)
