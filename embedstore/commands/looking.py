"""The commands that look at cells: neighbors, sheet, tag, explore."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedstore.errors import UsageError
from embedstore.files.at_hand import delivered
from embedstore.files.objects import is_uri, place
from embedstore.files.targets import folder_target, page_target
from embedstore.terminal.options import PLACE, JsonOption, OverwriteOption, StoreOption
from embedstore.terminal.printing import print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar

if TYPE_CHECKING:
    from embedstore.reading.neighbors import Neighbors


class Metric(StrEnum):
    """How far apart `embedstore neighbors` says two embeddings are."""

    cosine = "cosine"
    l2 = "l2"


def neighbors_command(
    annotation_id: Annotated[str, typer.Argument(help="Whose neighbours.")],
    model: Annotated[str, typer.Option(help="By whose embeddings.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    metric: Annotated[
        Metric, typer.Option(help="cosine: 1 - similarity; l2: Euclidean.")
    ] = Metric.cosine,
    exact: Annotated[
        bool, typer.Option("--exact", help="Compare all, whether there is an index or not.")
    ] = False,
    index: Annotated[
        bool,
        typer.Option("--index", help="Make the model's index first, which serves later calls too."),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar=PLACE, help="FILE.html: their patches on a page."),
    ] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Show the annotations whose embeddings are nearest to one annotation's.

    Over all datasets of the store unless --where says less; exactly, unless the model has an index.
    The page of --output begins with the annotation itself, at distance 0.

    Example: embedstore neighbors ID --model uni --where "domain = 'canine lymphoma'"
    """
    from embedstore.reading.neighbors import neighbors
    from embedstore.reading.sheet import neighbors_sheet, write_sheet
    from embedstore.store import Store

    to = None if output is None else page_target(output, overwrite=overwrite)
    opened = Store.open(store, write=index)
    nearest = neighbors(
        opened,
        annotation_id,
        model,
        k=k,
        where=where,
        metric=metric.value,
        exact=exact,
        index=index,
    )
    if to is not None:
        write_sheet(neighbors_sheet(opened, annotation_id, model, nearest), to)
        say(f"their patches are in {output}")
    if as_json:
        print_json(nearest.rows)
    else:
        print_table(f"nearest to {annotation_id}", nearest.rows)
    say(
        f"{len(nearest.rows):,} of {nearest.n_searched:,} embeddings of {model}, "
        f"{metric.value} distance"
    )
    say_notes(_how(nearest, may_index=not (exact or where)))


def _how(nearest: "Neighbors", *, may_index: bool) -> list[str]:
    """Return how neighbours were found, as far as one should know."""
    from embedstore.reading.neighbors import PAYS

    notes = []
    if nearest.recall is not None:
        notes.append(f"the index finds {nearest.recall:.3f} of the 20 nearest of 20 embeddings")
    if nearest.by_index:
        notes.append("found by an index, which may miss some; --exact compares all")
    elif nearest.n_searched >= PAYS and may_index:
        notes.append(
            "all were compared; --index makes an index, which takes the vectors' size on disk"
        )
    return notes


def sheet_command(
    query: Annotated[str, typer.Argument(help="One SELECT whose rows have annotation_id.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar=PLACE, help="FILE.html.")],
    limit: Annotated[int, typer.Option(min=1, help="How many rows the page shows.")] = 500,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write a page that shows the patch of each row of a query: a contact sheet.

    One HTML file that needs nothing else. Patches come in the rows' order, beside them the other
    columns; those that are not kept are read from the slides.

    Example: embedstore sheet "from tags where tag = 'odd'" --output odd.html
    """
    from embedstore.reading.sheet import sheet, write_sheet
    from embedstore.store import Store

    to = page_target(output, overwrite=overwrite)
    made = sheet(Store.open(store), query, limit=limit)
    write_sheet(made, to)
    rows = [made.row(output)]
    print_json(rows) if as_json else print_table("sheet", rows)


def tag_command(
    name: Annotated[
        str | None, typer.Argument(help="The tag; without it, all tags are listed.")
    ] = None,
    query: Annotated[
        str | None, typer.Argument(help="One SELECT whose rows have annotation_id.")
    ] = None,
    from_file: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar=PLACE,
            help="A CSV, Parquet or JSON file with annotation_id, such as a selection.",
        ),
    ] = None,
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the tag from them, or from all that have it.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar=PLACE,
            help="A folder for what has the tag as GeoJSON of each slide (QuPath).",
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Name a set of annotations, to cut any slice by: --where "'odd' in tags".

    The view annotations lists each one's tags; the view tags has a row each. A split that is cut by
    a tag is another one once the tag is of other annotations.

    Example: embedstore tag odd "select annotation_id from annotations where domain = 'a'"
    """
    from embedstore.exchange.tagging import check_asked, tag_and_write
    from embedstore.store import Store
    from embedstore.store.tags import counted

    changes = remove or query is not None or from_file is not None
    check_asked(name, changes=changes, output=output)
    to = None if output is None else folder_target(output, own=None, overwrite=overwrite)
    opened = Store.open(store, write=changes)
    if name is None:
        rows, notes = counted(opened), list[str]()
    else:
        file = None if from_file is None else place(from_file)
        rows, notes = tag_and_write(opened, name, query, file, remove=remove, to=to)
    say_notes(notes)
    if as_json or rows:
        print_json(rows) if as_json else print_table("tags", rows)
    elif name is None:
        say("no annotation has a tag yet: embedstore tag NAME QUERY gives one")


def explore_command(
    model: Annotated[str, typer.Option(help="Whose embeddings.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar=PLACE, help="A folder.")],
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset; default: all.")] = None,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    umap: Annotated[
        bool, typer.Option("--umap", help="UMAP's map, beside the principal components.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of UMAP.")] = 42,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="With the patches of all cells.")
    ] = True,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page on this machine until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="For --serve; 0: any free.")] = 8050,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write a page to walk through a model's embeddings, each point with its patch.

    It is embedding-atlas's: colour by label, domain, error or doubt (of recorded probes on cells
    that they had not seen), filter, search, select. A selection that it exports comes back as a
    tag: embedstore tag NAME --from FILE. The rows are FOLDER/data/dataset.parquet.

    Example: embedstore explore midog --model uni --umap --output map --serve
    """
    from embedstore.reading.atlas import serve as serve_folder
    from embedstore.reading.explore import ExploreOptions, explore
    from embedstore.store import Store

    to = folder_target(output, own="index.html", overwrite=overwrite)
    if serve and is_uri(to):
        raise UsageError("--serve shows a folder of this machine; name one with --output")
    options = ExploreOptions(model, dataset, where, umap, seed, pictures)
    with delivered(to) as folder, progress_bar("making", "pictures") as on_progress:
        made = explore(Store.open(store), options, folder, on_progress)
    rows = [made.row(model, output)]
    print_json(rows) if as_json else print_table("explore", rows)
    say_notes(made.notes)
    if serve:
        serve_folder(Path(str(to)), port, lambda address: say(f"{address} (Ctrl-C ends it)"))
    else:
        say(f"see it: python -m http.server -d {output}")
