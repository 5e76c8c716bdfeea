"""The commands that bring annotations and slides: add, and the demonstration's files."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from embedstore.annotations.columns import Box, Declared
from embedstore.annotations.readers import FORMATS
from embedstore.annotations.source import Frame, Unit
from embedstore.errors import EmbedstoreError
from embedstore.files.objects import place
from embedstore.terminal.options import PLACE, JsonOption, StoreOption, pairs
from embedstore.terminal.printing import print_json, print_table, say, say_notes, say_problems
from embedstore.terminal.progress import progress_bar

if TYPE_CHECKING:
    from embedstore.add import AddReport
    from embedstore.store import Store


@dataclass(frozen=True)
class ColumnOptions:
    """Where domains, cases and labels come from."""

    domain: Annotated[str | None, typer.Option(help="One domain for all annotations.")] = None
    domain_from: Annotated[
        str | None, typer.Option(help="Column or key that holds the domain.")
    ] = None
    case_from: Annotated[str | None, typer.Option(help="Column or key that holds the case.")] = None
    case_from_name: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Pattern whose first group is the case in a slide's or patch's file name.",
        ),
    ] = None
    label_from: Annotated[str | None, typer.Option(help="Column or key that holds the class.")] = (
        None
    )
    column: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="The column of slide, path, x, y, xmin, ..., label, id, split, domain, case or an "
            "attribute; of votes a pattern: vote='Expert_*'. Repeatable.",
        ),
    ] = None
    columns: Annotated[
        str | None,
        typer.Option(help="Names of the columns in order, if a table has none: x,y,label."),
    ] = None
    box: Annotated[
        Box | None,
        typer.Option(help="What x and y are of boxes; slide: width and height are the slide's."),
    ] = None
    unit: Annotated[
        Unit | None,
        typer.Option(help="What x and y are in; relative: parts of the slide's width and height."),
    ] = None
    frame: Annotated[
        Frame | None,
        typer.Option(
            help="From where x and y count on a slide with an empty border: its corner, or that "
            "of the scanned area (QuPath)."
        ),
    ] = None
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=LABEL", help="What a class of the file means; repeatable."),
    ] = None
    positive: Annotated[str | None, typer.Option(help="Which of two labels is positive.")] = None

    def declared(self) -> Declared:
        """Return what is said of the file's columns."""
        columns = pairs(self.column, "--column")
        label = self.label_from or columns.get("label")
        if label is not None and columns.setdefault("label", label) != label:
            raise typer.BadParameter("--label-from names another column than --column label=")
        header = tuple(c.strip() for c in (self.columns or "").split(",")) if self.columns else ()
        return Declared(columns, header, self.box, self.case_from_name)


SlideTableOption = Annotated[
    str | None,
    typer.Option(
        metavar=PLACE, help="CSV or Parquet with column slide and any of mpp, scanner, ... ."
    ),
]


def add_command(
    dataset: Annotated[str, typer.Argument(help="Name under which the annotations are kept.")],
    annotations: Annotated[
        str,
        typer.Option(
            metavar=PLACE,
            help=f"Annotation file, or a folder of them or of patches: {', '.join(FORMATS)}.",
        ),
    ],
    columns: ColumnOptions,
    slides: Annotated[
        str | None,
        typer.Option(metavar=PLACE, help="Folder of the slides or patches; may come later."),
    ] = None,
    format: Annotated[str, typer.Option(help=f"auto, {', '.join(FORMATS)}.")] = "auto",
    mpp: Annotated[
        str | None,
        typer.Option(
            metavar="UM|file",
            help="um per level-0 pixel; wins over what the slides say, and says so. file: what "
            "they say is taken again.",
        ),
    ] = None,
    slide_table: SlideTableOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be registered, and write nothing.")
    ] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Register annotations and slides. Doing it again changes nothing.

    Example: embedstore add midog --annotations midog.json --slides slides/
    """
    from embedstore.add import AddOptions, add
    from embedstore.store import Store

    options = AddOptions(
        format=format,
        slides=None if slides is None else place(slides),
        mpp=_mpp(mpp),
        slide_table=None if slide_table is None else place(slide_table),
        domain=columns.domain,
        domain_from=columns.domain_from,
        case_from=columns.case_from,
        labels=pairs(columns.label, "--label"),
        positive=columns.positive,
        declared=columns.declared(),
        unit=columns.unit,
        frame=columns.frame,
        dry_run=dry_run,
    )
    with progress_bar("opening slides", "slides") as on_slide:
        report = add(store, dataset, place(annotations), options, on_slide)
    if dry_run:
        _print_dry(report, as_json=as_json)
        return
    print_added(Store.open(store), report, as_json=as_json)


def _mpp(text: str | None) -> float | Literal["file"] | None:
    """Return what --mpp says: a number, or that the files are to be believed."""
    if text is None:
        return None
    try:
        return "file" if text == "file" else float(text)
    except ValueError:
        raise typer.BadParameter(f"--mpp '{text}' is neither a number of um nor 'file'") from None


def print_added(store: "Store", report: "AddReport", *, as_json: bool) -> None:
    """Print what the store now has of a dataset."""
    from embedstore.reading import status

    rows = status.composition(store, report.dataset)
    if as_json:
        print_json([{"dataset": report.dataset, **r} for r in rows])
    else:
        print_table(f"{report.dataset}: annotations", rows)
    _say_read(report)
    say_problems(status.problems(store, report.dataset))


_FIRST_ROWS = 5


def _print_dry(report: "AddReport", *, as_json: bool) -> None:
    """Print what `add` would register: counts, the first rows, and what is doubtful."""
    keys = ("domain", "label", "split")
    counts = Counter(tuple(r[k] for k in keys) for r in report.annotations)
    composition: list[dict[str, Any]] = [
        {**dict(zip(keys, key, strict=True)), "n_annotations": n} for key, n in counts.items()
    ]
    composition.sort(key=lambda r: str(r))
    shown = ("slide", "case_id", "domain", "label", "x_l0", "y_l0", "votes", "split")
    first = [{k: r[k] for k in shown} for r in report.annotations[:_FIRST_ROWS]]
    if as_json:
        print_json([{"dataset": report.dataset, **r} for r in composition])
    else:
        print_table(f"{report.dataset}: would be registered", composition)
        print_table("the first rows", first)
    _say_read(report)
    bad = [s for s in report.slides if s["status"] != "ok"]
    say_notes([f"{s['slide']}: {s['problem']}" for s in bad[:10]])
    say(f"a dry run: nothing was written; {len(bad):,} of {report.n_slides:,} files are not ok")


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
