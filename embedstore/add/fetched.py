"""A public dataset that was fetched, added: the catalogue says how."""

from collections.abc import Callable
from pathlib import Path

from embedstore.add.options import AddOptions
from embedstore.add.register import AddReport, add
from embedstore.annotations.columns import Declared
from embedstore.archives.planning import Plan, file_below
from embedstore.errors import EmbedstoreError


def add_fetched(
    uri: str,
    asked: Plan,
    folder: Path,
    on_slide: Callable[[int, int], None] = lambda done, total: None,
) -> AddReport:
    """Register a dataset from the folder it was fetched to, under its public name.

    EmbedstoreError where the catalogue does not say how.
    """
    of = asked.public
    if not of.add:
        raise EmbedstoreError(f"'{asked.name}' is not added by itself: {of.note}")
    paths = {option: file_below(folder, path) for option, path in of.add.items()}
    options = AddOptions(
        slides=paths.get("slides"),
        slide_table=paths.get("slide_table"),
        labels=dict(of.labels),
        positive=of.positive,
        declared=Declared(dict(of.columns)),
    )
    return add(uri, asked.name, paths["annotations"], options, on_slide)
