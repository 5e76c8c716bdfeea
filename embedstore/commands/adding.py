"""The commands that bring annotations and slides: add, and the demonstration's files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedstore.annotations.readers import FORMATS
from embedstore.errors import EmbedstoreError
from embedstore.terminal.options import JsonOption, StoreOption, pairs
from embedstore.terminal.printing import print_json, print_table, say, say_notes, say_problems
from embedstore.terminal.progress import progress_bar

if TYPE_CHECKING:
    from embedstore.add import AddReport


@dataclass(frozen=True)
class ColumnOptions:
    """Where domains, cases and labels come from."""

    domain: Annotated[str | None, typer.Option(help="One domain for all annotations.")] = None
    domain_from: Annotated[
        str | None, typer.Option(help="Column or key that holds the domain.")
    ] = None
    case_from: Annotated[str | None, typer.Option(help="Column or key that holds the case.")] = None
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=LABEL", help="What a class of the file means; repeatable."),
    ] = None
    positive: Annotated[str | None, typer.Option(help="Which of two labels is positive.")] = None


def add_command(
    dataset: Annotated[str, typer.Argument(help="Name under which the annotations are kept.")],
    annotations: Annotated[
        Path,
        typer.Option(
            help=f"Annotation file, or a folder of GeoJSON or of patches: {', '.join(FORMATS)}."
        ),
    ],
    columns: ColumnOptions,
    slides: Annotated[
        Path | None, typer.Option(help="Folder of the slides or patches; may come later.")
    ] = None,
    format: Annotated[str, typer.Option(help=f"auto, {', '.join(FORMATS)}.")] = "auto",
    mpp: Annotated[
        float | None,
        typer.Option(help="um per level-0 pixel; wins over what the slides say, and says so."),
    ] = None,
    slide_table: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet with column slide and any of mpp, scanner, ... ."),
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Register annotations and slides. Doing it again changes nothing.

    Example: embedstore add midog --annotations midog.json --slides slides/
    """
    from embedstore import status
    from embedstore.add import AddOptions, add
    from embedstore.store import Store

    options = AddOptions(
        format=format,
        slides=slides,
        mpp=mpp,
        slide_table=slide_table,
        domain=columns.domain,
        domain_from=columns.domain_from,
        case_from=columns.case_from,
        labels=pairs(columns.label, "--label"),
        positive=columns.positive,
    )
    with progress_bar("opening slides", "slides") as on_slide:
        report = add(store, dataset, annotations, options, on_slide)
    opened = Store.open(store)
    rows = status.composition(opened, dataset)
    if as_json:
        print_json([{"dataset": dataset, **r} for r in rows])
    else:
        print_table(f"{dataset}: annotations", rows)
    _say_read(report)
    say_problems(status.problems(opened, dataset))


def _say_read(report: "AddReport") -> None:
    meanings = [
        f"{name!r} -> {label or 'left out'} ({report.n_by_class[name]:,})"
        for name, label in report.classes.items()
    ]
    where = "patches" if report.kind == "patch" else "slides"
    say(
        f"read {report.n_annotations:,} annotations on {report.n_slides:,} {where} as "
        f"{report.format}, {report.n_new:,} of them new; classes: {', '.join(meanings)}"
    )
    say_notes(report.notes)


def demo_command(
    directory: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("demo"),
) -> None:
    """Write a small generated dataset: slides of several stain domains with annotations.

    Example: embedstore demo demo
    """
    from embedstore.demo.dataset import write_demo

    try:
        with progress_bar("drawing slides", "slides") as on_slide:
            written = write_demo(directory, progress=on_slide)
    except OSError as e:
        raise EmbedstoreError(f"{directory} cannot be written: {e.strerror}") from e
    typer.echo(str(written.slides))
    typer.echo(str(written.midog_json))
    typer.echo(str(written.sliderunner_sqlite))
