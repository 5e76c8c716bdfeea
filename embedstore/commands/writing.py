"""The commands that write a store: add, ingest, import, and the demonstration's files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore.annotations.readers import READERS
from embedstore.errors import EmbedstoreError
from embedstore.terminal.options import CacheOption, JsonOption, StoreOption, pairs, rgb
from embedstore.terminal.printing import print_json, print_table, say, say_notes, say_problems
from embedstore.terminal.progress import progress_bar


def add_command(
    dataset: Annotated[str, typer.Argument(help="Name under which the annotations are kept.")],
    annotations: Annotated[
        Path,
        typer.Option(
            help=f"Annotation file, or a folder of GeoJSON or of patches: {', '.join(READERS)}."
        ),
    ],
    slides: Annotated[
        Path | None, typer.Option(help="Folder of the slides or patches; may come later.")
    ] = None,
    format: Annotated[str, typer.Option(help=f"auto, {', '.join(READERS)}.")] = "auto",
    mpp: Annotated[
        float | None, typer.Option(help="um per level-0 pixel, for slides that do not say.")
    ] = None,
    slide_table: Annotated[
        Path | None,
        typer.Option(help="CSV or Parquet with column slide and any of mpp, scanner, ... ."),
    ] = None,
    domain: Annotated[str | None, typer.Option(help="One domain for all annotations.")] = None,
    domain_from: Annotated[
        str | None, typer.Option(help="Column or key that holds the domain.")
    ] = None,
    case_from: Annotated[
        str | None, typer.Option(help="Column or key that holds the case.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS=LABEL", help="What a class of the file means; repeatable."),
    ] = None,
    positive: Annotated[str | None, typer.Option(help="Which of two labels is positive.")] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Register annotations and slides. Doing it again changes nothing."""
    from embedstore import status
    from embedstore.add import AddOptions, add
    from embedstore.store import Store

    options = AddOptions(
        format=format,
        slides=slides,
        mpp=mpp,
        slide_table=slide_table,
        domain=domain,
        domain_from=domain_from,
        case_from=case_from,
        labels=pairs(label, "--label"),
        positive=positive,
    )
    with progress_bar("opening slides", "slides") as on_slide:
        report = add(store, dataset, annotations, options, on_slide)
    opened = Store.open(store)
    rows = status.composition(opened, dataset)
    if as_json:
        print_json([{"dataset": dataset, **r} for r in rows])
    else:
        print_table(f"{dataset}: annotations", rows)
    said = [
        f"{name!r} -> {to or 'left out'} ({report.n_by_class[name]:,})"
        for name, to in report.classes.items()
    ]
    on = "patches" if report.kind == "patch" else "slides"
    say(
        f"read {report.n_annotations:,} annotations on {report.n_slides:,} {on} as "
        f"{report.format}, {report.n_new:,} of them new; classes: {', '.join(said)}"
    )
    say_notes(report.notes)
    say_problems(status.problems(opened, dataset))


def ingest_command(
    dataset: Annotated[str, typer.Argument(help="A dataset that `embedstore add` registered.")],
    model: Annotated[
        list[str],
        typer.Option(
            help="Registry name, timm:NAME or hf-hub:OWNER/NAME; repeatable, read once for all."
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="M=PATH|hub|random", help="Where a model's weights come from."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="Store under another model name.")
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="cls, cls+mean, mean or timm, in place of the model's own."),
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Normalise by this mean, pixels in 0..1.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Normalise by this standard deviation.")
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="d4: store the 8 flips and rotations of each patch as well."),
    ] = None,
    patch_px: Annotated[int, typer.Option(help="Patch width in pixels.")] = 224,
    mpp_out: Annotated[float, typer.Option(help="Patch scale in um per pixel.")] = 0.25,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="float32, bfloat16, float16, or auto: see the README; float32 if it would differ."
        ),
    ] = "auto",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches a batch.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read patches.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Embed at most this many annotations.")
    ] = None,
    patch_cache: CacheOption = True,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Embed every annotation a model lacks. Interrupt it any time; again, it does only the rest."""
    from embedstore import status
    from embedstore.ingest import IngestOptions, Interrupted, ingest
    from embedstore.models.registry import Variation
    from embedstore.store import Store

    options = IngestOptions(
        weights=pairs(weights, "--weights"),
        name=name,
        views=views,
        variation=Variation(pooling, rgb(mean, "--mean"), rgb(std, "--std")),
        patch_px=patch_px,
        mpp_out=mpp_out,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        workers=workers,
        limit=limit,
        patch_cache=patch_cache,
    )
    opened = Store.open(store)
    models = list(dict.fromkeys(model))
    try:
        with progress_bar("embedding", "embeddings") as on_progress:
            report = ingest(opened, dataset, models, options, on_progress)
    except Interrupted as e:
        done = sum(r.n_embedded for r in e.report.models)
        say(f"interrupted; {done:,} embeddings stored, the same command does the rest")
        raise typer.Exit(130) from None
    rows: list[dict[str, Any]] = [
        {
            "dataset": dataset,
            "model": r.model,
            "weights": r.weights,
            "dtype": r.dtype,
            "parity": r.parity,
            "there_before": r.n_before,
            "embedded": r.n_embedded,
            "not_embedded": r.n_left,
            **({"views": r.n_views} if views else {}),
        }
        for r in report.models
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(f"{dataset}: embeddings", rows)
    for r in report.models:
        if r.parity is not None and r.parity < 0.999:
            say(
                f"{r.model}: the lowest cosine of {r.dtype} to float32 in a sample is "
                f"{r.parity:.4f}; --dtype float32 --as NAME is exact"
            )
    embedded = sum(r.n_embedded + r.n_views for r in report.models)
    if embedded:
        rate = embedded / max(report.seconds, 1e-9)
        say(f"{embedded:,} embedded in {report.seconds:.1f} s ({rate:.1f}/s, loading included)")
    else:
        say("nothing to embed")
    if report.n_cached:
        say(f"{report.n_cached:,} patches kept for later reading (--no-patch-cache keeps none)")
    if report.n_off_slide:
        say(f"{report.n_off_slide} annotations lie off their slide and are not embedded")
    say_problems(status.problems(opened, dataset))


def import_command(
    dataset: Annotated[str, typer.Argument(help="A dataset that `embedstore add` registered.")],
    file: Annotated[
        Path, typer.Argument(help=".parquet, .npz, or .h5: one slide's, or a folder of them.")
    ],
    model: Annotated[str, typer.Option(help="Name under which the embeddings are kept.")],
    within: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            help="h5: how far a tile's centre may be from the annotation, in level-0 pixels; "
            "default 1. With more, embeddings are not centred on the cell.",
        ),
    ] = None,
    tile_px_l0: Annotated[
        float | None,
        typer.Option(metavar="N", help="h5: width of a tile in level-0 pixels, if files lack it."),
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Bring your own embeddings; all of a file is checked before any of it is stored.

    Parquet and npz, as `export` writes them or with at least annotation_id and vector (or
    embedding, or features). The h5 files of TRIDENT and CLAM: an annotation takes the tile whose
    centre is nearest to it. Nothing is overwritten; interrupted, the same command does the rest.
    """
    from embedstore.exchange import import_embeddings
    from embedstore.exchange.tiles import TileOptions
    from embedstore.store import Store
    from embedstore.store.sql import identifier

    options = TileOptions(within_px=within, tile_px_l0=tile_px_l0)
    with progress_bar("importing", "") as on_progress:
        r = import_embeddings(Store.open(store), dataset, model, file, options, on_progress)
    rows = [
        {
            "dataset": dataset,
            "model": model,
            "weights": r.weights,
            "dim": r.dim,
            "imported": r.n_imported,
            "there_before": r.n_before,
            "left_out": r.n_left_out,
            "not_in_file": r.n_lacking,
        }
    ]
    if as_json:
        print_json(rows)
    else:
        print_table(f"{dataset}: imported", rows)
    say_notes(r.notes)
    if r.dtype != "float32":
        say(f"note: the file holds {r.dtype}, stored as float32")
    if r.n_left_out:
        say(
            f"note: {r.n_left_out:,} annotations have a problem and are left out (`embedstore "
            f"status {dataset}` tells which)"
        )
    if r.n_lacking:
        only = f"annotation_id in (select annotation_id from {identifier(model)})"
        say(
            f"note: {r.n_lacking:,} annotations of {dataset} are not in the file; probes go on "
            f"without them with --where '{only}'"
        )


def demo_command(
    directory: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("demo"),
) -> None:
    """Write a small generated dataset: slides of several stain domains with annotations."""
    from embedstore.demo.dataset import write_demo

    try:
        with progress_bar("drawing slides", "slides") as on_slide:
            written = write_demo(directory, progress=on_slide)
    except OSError as e:
        raise EmbedstoreError(f"{directory} cannot be written: {e.strerror}") from e
    typer.echo(str(written.slides))
    typer.echo(str(written.midog_json))
    typer.echo(str(written.sliderunner_sqlite))
