"""The commands that look into labels and cells: raters, doubtful, copies, rescore, suggest."""

from dataclasses import dataclass
from typing import Annotated

import typer

from embedstore.files.at_hand import delivered
from embedstore.files.objects import Place
from embedstore.terminal.options import PLACE, JsonOption, OverwriteOption, StoreOption
from embedstore.terminal.printing import print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar
from probes.commands.printing import print_measures
from probes.commands.studying import DatasetArgument, MethodOption
from probes.methods.table import USUAL


@dataclass(frozen=True)
class CellFiles:
    """Where cells go as files."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar=PLACE,
            help="FILE.csv, or a folder for GeoJSON of each slide (QuPath).",
        ),
    ] = None
    overwrite: OverwriteOption = False

    def place(self) -> Place | None:
        """Return where they go, None for nowhere; UsageError where files are there, unasked."""
        from probes.studies.cell_files import cells_target

        return None if self.output is None else cells_target(self.output, overwrite=self.overwrite)


@dataclass(frozen=True)
class PoolOptions:
    """Which cells have a label, which have none yet, and how they are drawn from."""

    pool: Annotated[
        str | None, typer.Option(help="Another dataset, whose cells have no label yet.")
    ] = None
    pool_where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help="Which cells have no label yet: a condition."),
    ] = None
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help="Of the labelled cells, these alone.")
    ] = None
    per_slide: Annotated[
        int | None,
        typer.Option(min=1, help="Of a slide at most; default: three times its equal share."),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 42


def raters_command(
    dataset: Annotated[str, typer.Argument(help="A dataset with votes of several experts.")],
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score each expert against the others as if a model, and models against votes.

    Balanced accuracy of each expert against the majority of the others, and their mean: the human
    line in the report's figures; Fleiss' kappa. Models (runs of `probes gap`) against the majority,
    on unanimous cells, and by Brier score against the share of votes.

    Example: probes raters midog
    """
    from embedstore.store import Store
    from probes.studies.raters import raters

    measures, notes = raters(Store.open(store, write=True), dataset)
    print_measures(f"{dataset}: experts", measures, as_json)
    say_notes(notes)


def doubtful_command(
    dataset: DatasetArgument,
    files: CellFiles,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Repeatable; default: all but random weights."),
    ] = None,
    method: MethodOption = USUAL,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """List labels that several models, none of which saw the cell, find hard to believe.

    Out-of-fold probabilities on folds that keep slides (or cases) apart; likely errors by confident
    learning, and ambiguous cells. Mend the file's labels and `embedstore add` takes it; then
    `probes rescore` tells what that changes.

    Example: probes doubtful midog --output doubtful.csv
    """
    from embedstore.store import Store
    from probes.studies.cell_files import write_found
    from probes.studies.doubtful import doubtful

    to = files.place()
    opened = Store.open(store, write=True)
    with progress_bar("fitting", "models") as on_progress:
        doubts, _, notes = doubtful(
            opened,
            dataset,
            models=model,
            method=method,
            on_progress=on_progress,
        )
    rows = [vars(d) for d in doubts]
    if to is not None:
        with delivered(to) as path:
            written = write_found(opened, doubts, path)
        say(f"{len(rows):,} cells in doubt written to {files.output} ({len(written)} files)")
    if as_json:
        print_json(rows)
    else:
        hidden = ("slide", "x", "y", "id")
        columns = [c for c in rows[0] if c not in hidden] if rows else []
        print_table(f"{dataset}: labels in doubt", rows[:50], columns)
    say_notes(notes)


def copies_command(
    dataset: DatasetArgument,
    other: Annotated[
        str | None, typer.Option(help="Another dataset: copies between the two.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Whose vectors are compared; default: the first there is.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Find cells that are there twice, on slides of different names, within or across datasets.

    By vectors, then by pixels where patches are kept; recorded (view copies). Says of each recorded
    split what share of its test annotations has a copy in training; with --other, what share of the
    other dataset, which --eval-dataset would score.

    Example: probes copies midog --other tcga
    """
    from embedstore.store import Store
    from probes.studies.copies import copies

    with progress_bar("comparing", "annotations") as on_progress:
        found, measures, notes = copies(
            Store.open(store, write=True),
            dataset,
            other=other,
            model=model,
            on_progress=on_progress,
        )
    rows = [{**vars(c), "found_by": c.found_by} for c in found]
    if as_json:
        print_json(rows)
    else:
        columns = ["a", "b", "found_by", "cosine", "pixels"]
        print_table(f"{dataset}: copies", rows, columns)
        shares = [m for m in measures if m.metric == "copies_in_train"]
        if shares:
            print_measures(f"{dataset}{f' to {other}' if other else ''}", shares, as_json)
    say(f"{len(rows):,} pairs of annotations on different slides show the same")
    say_notes(notes)


def rescore_command(
    dataset: Annotated[str, typer.Argument(help="A dataset whose labels have changed.")],
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score recorded runs on the labels of now: what mended labels change, and in the ranking.

    Example: probes rescore midog
    """
    from embedstore.store import Store
    from probes.studies.rescore import rescore

    measures, notes = rescore(Store.open(store, write=True), dataset)
    print_measures(f"{dataset}: labels then and now", measures, as_json)
    say_notes(notes)


def suggest_command(
    dataset: Annotated[str, typer.Argument(help="A dataset of which some cells are labelled.")],
    model: Annotated[str, typer.Option(help="Whose embeddings.")],
    files: CellFiles,
    asked: PoolOptions,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many cells.")] = 200,
    method: MethodOption = USUAL,
    tag: Annotated[
        str | None, typer.Option(help="Tag them in the store too: see `embedstore tag`.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Say which cells to label next: a probe is unsure of them, and they are unlike each other.

    A probe on the labelled cells, then BADGE: k-means++ over the gradients that each cell would
    give. Nothing is recorded; label them in QuPath, and `embedstore add` takes the files.

    Example: probes suggest midog --model uni --n 200 --pool-where "label = 'cell'" -o next
    """
    from embedstore.store import Store
    from probes.studies.cell_files import write_found
    from probes.studies.suggest import SuggestOptions, suggest, tag_suggested

    options = SuggestOptions(model, n, method=method, tag=tag, **vars(asked))
    options.check()
    to = files.place()
    opened = Store.open(store, write=tag is not None)
    with progress_bar("choosing", "cells") as on_progress:
        found, notes = suggest(opened, dataset, options, on_progress)
    notes += tag_suggested(opened, options, found)
    if to is not None:
        with delivered(to) as path:
            written = write_found(opened, found, path)
        say(f"{len(found):,} cells written to {files.output} ({len(written)} files)")
    rows = [vars(c) for c in found]
    if as_json:
        print_json(rows)
    else:
        shown = ("rank", "annotation_id", "domain", "said", "probability", "margin")
        print_table(f"{dataset}: cells to label next", rows[:20], shown)
    say_notes(notes)
