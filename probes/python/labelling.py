"""The verbs that look into labels and cells: raters, doubtful, copies, rescore, suggest."""

from pathlib import Path

from embedstore.files.at_hand import delivered
from embedstore.python.asked import Many, many
from embedstore.python.handle import Store, tables_of
from embedstore.python.progress import progress
from embedstore.python.rows import Rows, rows_of
from probes.methods.table import USUAL
from probes.python.studying import measured
from probes.studies.cell_files import cells_target, write_found
from probes.studies.copies import copies as found_copies
from probes.studies.doubtful import doubtful as found_doubtful
from probes.studies.raters import raters as scored_raters
from probes.studies.rescore import rescore as scored_again
from probes.studies.suggest import SuggestOptions, tag_suggested
from probes.studies.suggest import suggest as chosen_next


def raters(store: Store | str, dataset: str) -> Rows:
    """Score each expert against the others as if a model, and models against votes.

    See `probes raters --help`.
    """
    measures, notes = scored_raters(tables_of(store, write=True), dataset)
    return measured(f"{dataset}: experts", measures, notes)


def doubtful(
    store: Store | str,
    dataset: str,
    *,
    output: str | Path | None = None,
    model: Many = None,
    method: str = USUAL,
    overwrite: bool = False,
) -> Rows:
    """Return labels that several models, none of which saw the cell, find hard to believe.

    output: FILE.csv, or a folder for GeoJSON of each slide. See `probes doubtful --help`.
    """
    to = None if output is None else cells_target(str(output), overwrite=overwrite)
    opened = tables_of(store, write=True)
    with progress("fitting", "models") as bar:
        doubts, _, notes = found_doubtful(
            opened,
            dataset,
            models=many(model),
            method=method,
            on_progress=bar,
        )
    if to is not None:
        with delivered(to) as path:
            write_found(opened, doubts, path)
    return rows_of(f"{dataset}: labels in doubt", [vars(d) for d in doubts], notes)


def copies(
    store: Store | str, dataset: str, *, other: str | None = None, model: str | None = None
) -> Rows:
    """Return pairs of annotations on slides of different names that show the same.

    See `probes copies --help`.
    """
    with progress("comparing", "annotations") as bar:
        found, measures, notes = found_copies(
            tables_of(store, write=True), dataset, other=other, model=model, on_progress=bar
        )
    shares = [
        f"{m.value:.1%} of the test annotations of {m.split} have a copy in training"
        for m in measures
        if m.metric == "copies_in_train" and m.value is not None
    ]
    rows = [{**vars(c), "found_by": c.found_by} for c in found]
    return rows_of(f"{dataset}: copies", rows, [*notes, *shares])


def rescore(store: Store | str, dataset: str) -> Rows:
    """Score recorded runs on the labels of now: what mended labels change, and in the ranking."""
    measures, notes = scored_again(tables_of(store, write=True), dataset)
    return measured(f"{dataset}: labels then and now", measures, notes)


def suggest(
    store: Store | str,
    dataset: str,
    *,
    model: str,
    n: int = 200,
    pool: str | None = None,
    pool_where: str | None = None,
    where: str | None = None,
    method: str = USUAL,
    per_slide: int | None = None,
    seed: int = 42,
    tag: str | None = None,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Rows:
    """Return which cells to label next: a probe is unsure of them, and they are unlike each other.

    output: FILE.csv, or a folder for GeoJSON of each slide. See `probes suggest --help`.
    """
    options = SuggestOptions(
        model, n, pool, pool_where, where, method, per_slide=per_slide, seed=seed, tag=tag
    )
    options.check()
    to = None if output is None else cells_target(str(output), overwrite=overwrite)
    opened = tables_of(store, write=tag is not None)
    with progress("choosing", "cells") as bar:
        found, notes = chosen_next(opened, dataset, options, bar)
    notes += tag_suggested(opened, options, found)
    if to is not None:
        with delivered(to) as path:
            write_found(opened, found, path)
    return rows_of(f"{dataset}: cells to label next", [vars(c) for c in found], notes)
