"""The command for own vectors: evaluate."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from embedstore.annotations.columns import Declared
from embedstore.files.at_hand import brought_in
from embedstore.files.objects import place
from embedstore.terminal.options import PLACE, JsonOption, StoreOption, pairs
from embedstore.terminal.printing import say, say_notes
from embedstore.terminal.progress import progress_bar
from probes.commands.options import one_of
from probes.commands.printing import print_measures
from probes.commands.studying import MethodOption
from probes.methods.table import USUAL
from probes.splits.draw import GROUPINGS


@dataclass(frozen=True)
class PairingOptions:
    """Which vector is of which row of the labels."""

    id: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What names a cell in both, or VECTORS_COLUMN=LABELS_COLUMN; default: the columns "
            "whose values agree.",
        ),
    ] = None
    in_order: Annotated[
        bool, typer.Option("--in-order", help="The first vector is of the first row, and so on.")
    ] = False
    vectors_from: Annotated[
        str | None, typer.Option(help="Column or array of the vectors, where there are several.")
    ] = None


@dataclass(frozen=True)
class CellOptions:
    """What the columns of the labels mean, and what cells and vectors are called."""

    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME", help="The column of label, case, slide, domain, split; repeatable."
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=LABEL", help="What a class of the table means; repeatable."),
    ] = None
    positive: Annotated[str | None, typer.Option(help="Which of two labels is positive.")] = None
    dataset: Annotated[
        str | None, typer.Option(help="Name of the cells in the store; default: the labels' file.")
    ] = None
    model: Annotated[
        str | None, typer.Option(help="Name of the vectors in the store; default: their file.")
    ] = None

    def asked(self) -> dict[str, Any]:
        """Return it as the library takes it."""
        return {
            "declared": Declared(pairs(self.column, "--column")),
            "labels": pairs(self.label, "--label"),
            "positive": self.positive,
            "dataset": self.dataset,
            "model": self.model,
        }


def evaluate_command(
    vectors: Annotated[
        str, typer.Argument(metavar=PLACE, help=".parquet, .npz, .npy or .csv: a row a cell.")
    ],
    pairing: PairingOptions,
    cells: CellOptions,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar=PLACE,
            help="CSV or Parquet with column label and any of case, slide, domain, split; default: "
            "the columns beside the vectors.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            help=f"{one_of(GROUPINGS)}: what stays on one side of a split; default: the last of "
            "these that the labels name."
        ),
    ] = None,
    method: MethodOption = USUAL,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Tell how good vectors from anywhere are on labelled cells, without a slide.

    Stores them, fits probes on splits by cell, slide, case and domain, as far as the labels name
    these, and says what is left where nothing of a case (or slide) was seen in training, with an
    interval. Another file of vectors of the same cells is compared with those that are there; all
    other commands then know both.

    Example: probes evaluate vectors.parquet --labels cells.csv --group-by case
    """
    from probes.studies.own import OwnOptions, evaluate_own, read_labels, read_vectors

    options = OwnOptions(group_by=group_by, method=method, **vars(pairing), **cells.asked())
    at_labels = nullcontext(None) if labels is None else brought_in(place(labels))
    with brought_in(place(vectors)) as of_vectors, at_labels as of_labels:
        loose = read_vectors(of_vectors, options)
        table = None if of_labels is None else read_labels(of_labels, options)
    with progress_bar("fitting", "steps") as on_progress:
        report = evaluate_own(store, loose, table, options, on_progress)
    print_measures(f"{report.dataset}: {report.model}", report.measures, as_json)
    say_notes(report.notes)
    for answer in report.answers:
        say(answer)
    say(f"more: probes report {report.dataset} --output report --store {store}")
