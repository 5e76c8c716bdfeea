"""The commands that fill tables of embeddings: ingest, import."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedstore.files.at_hand import brought_in
from embedstore.files.objects import place
from embedstore.models.registry import PARITY, Variation
from embedstore.terminal.options import (
    PLACE,
    CacheOption,
    DeviceOption,
    EngineOptions,
    JsonOption,
    StoreOption,
    WorkersOption,
    pairs,
    rgb,
)
from embedstore.terminal.printing import print_json, print_table, say, say_notes, say_problems
from embedstore.terminal.progress import Bar, progress_bar

if TYPE_CHECKING:
    from embedstore.exchange.incoming import ImportReport
    from embedstore.ingest import IngestReport, OnProgress


@dataclass(frozen=True)
class VariationOptions:
    """How a model is used otherwise than the registry says."""

    pooling: Annotated[
        str | None,
        typer.Option(help="cls, cls+mean, mean or timm, in place of the model's own."),
    ] = None
    mean: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Normalise by this mean, pixels in 0..1.")
    ] = None
    std: Annotated[
        str | None, typer.Option(metavar="R,G,B", help="Normalise by this standard deviation.")
    ] = None

    def variation(self) -> Variation:
        """Return it as the library takes it; a usage error where a colour has another form."""
        return Variation(self.pooling, rgb(self.mean, "--mean"), rgb(self.std, "--std"))


@dataclass(frozen=True)
class PatchOptions:
    """How patches are cut, read, batched, pooled and turned."""

    patch_px: Annotated[int, typer.Option(help="Patch width in pixels.")] = 224
    mpp_out: Annotated[
        list[float] | None,
        typer.Option(help="Patch scale in um per pixel, 0.25; repeatable: fields of view."),
    ] = None
    batch_size: Annotated[int | None, typer.Option(min=1, help="Patches a batch.")] = None
    workers: WorkersOption = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="Embed at most this many annotations.")
    ] = None
    patch_cache: CacheOption = True
    pool: Annotated[
        list[str] | None,
        typer.Option(
            help="What of the network stands for a patch: own, cls, mean, centre2 (tokens), "
            "centre:12um, cls+centre2, or all; repeatable, one pass for all."
        ),
    ] = None

    views: Annotated[
        str | None,
        typer.Option(
            help="Store as well: d4, the 8 flips and rotations of each patch; jitter, 4 views that "
            "are shifted by up to 4 um."
        ),
    ] = None

    def asked(self) -> dict[str, Any]:
        """Return it as the library takes it."""
        asked = {k: v for k, v in vars(self).items() if k != "pool"}
        return asked | {"mpp_out": self.mpp_out or (0.25,), "pools": self.pool or ()}


NetworkDtypeOption = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16, or auto: see the README; float32 if it would differ."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(metavar="N/OF", help="Embed the N-th of OF parts alone: a job of an array."),
]


def ingest_command(
    dataset: Annotated[str, typer.Argument(help="A dataset that `embedstore add` registered.")],
    model: Annotated[
        list[str],
        typer.Option(
            help="Registry name, timm:NAME or hf-hub:OWNER/NAME; repeatable, read once for all."
        ),
    ],
    varied: VariationOptions,
    patches: PatchOptions,
    where: EngineOptions,
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="M=PATH|hub|random", help="Where a model's weights come from."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--as", help="Store under another model name.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: NetworkDtypeOption = "auto",
    shard: ShardOption = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Embed every annotation a model lacks. Interrupt it any time; again, it does only the rest.

    Example: embedstore ingest midog --model uni --model virchow2 --weights uni=uni.bin
    """
    from embedstore.ingest import IngestOptions, Interrupted, Shard, ingest
    from embedstore.reading import status
    from embedstore.store import Store

    options = IngestOptions(
        weights=pairs(weights, "--weights"),
        name=name,
        variation=varied.variation(),
        device=device,
        dtype=dtype,
        shard=None if shard is None else Shard.parse(shard),
        cluster=where.cluster(),
        **patches.asked(),
    )
    opened, models = Store.open(store, write=True), list(dict.fromkeys(model))
    try:
        with progress_bar("embedding", "embeddings") as on_progress:
            moved, told = _moving(on_progress), lambda estimate: say(str(estimate))
            report = ingest(opened, dataset, models, options, moved, told)
    except Interrupted as e:
        done = sum(r.n_embedded for r in e.report.models)
        say(f"interrupted; {done:,} embeddings stored, the same command does the rest")
        raise typer.Exit(130) from None
    rows = report.rows(with_views=patches.views is not None)
    print_json(rows) if as_json else print_table(f"{dataset}: embeddings", rows)
    _say_embedded(report)
    say_problems(status.problems(opened, dataset))


def _moving(bar: Bar) -> "OnProgress":
    """Return what moves a bar with what was waited for beside it."""
    return lambda done, total, waited: bar(done, total, waited.words())


def _say_embedded(report: "IngestReport") -> None:
    say_notes(report.notes)
    for r in report.models:
        if r.parity is not None and r.parity < PARITY:
            say(
                f"{r.model}: the lowest cosine of {r.dtype} to float32 in a sample is "
                f"{r.parity:.4f}; --dtype float32 --as NAME is exact"
            )
    embedded = sum(r.n_embedded + r.n_views for r in report.models)
    if embedded:
        rate = embedded / max(report.seconds, 1e-9)
        say(
            f"{embedded:,} embedded in {report.seconds:.1f} s ({rate:.1f}/s, loading included; "
            f"{report.waited.words()})"
        )
    else:
        say("nothing to embed")
    if report.n_cached:
        say(f"{report.n_cached:,} patches kept for later reading (--no-patch-cache keeps none)")
    if report.n_off_slide:
        say(f"{report.n_off_slide} annotations lie off their slide and are not embedded")


def import_command(
    dataset: Annotated[str, typer.Argument(help="A dataset that `embedstore add` registered.")],
    file: Annotated[
        str,
        typer.Argument(
            metavar=PLACE, help=".parquet, .npz, or .h5: one slide's, or a folder of them."
        ),
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

    Example: embedstore import midog features.parquet --model ours
    """
    from embedstore.exchange import import_embeddings
    from embedstore.exchange.tiles import TileOptions
    from embedstore.store import Store

    options = TileOptions(within_px=within, tile_px_l0=tile_px_l0)
    opened = Store.open(store, write=True)
    with brought_in(place(file)) as path, progress_bar("importing", "") as on_progress:
        report = import_embeddings(opened, dataset, model, path, options, on_progress)
    rows = [report.row()]
    print_json(rows) if as_json else print_table(f"{dataset}: imported", rows)
    _say_imported(report)


def _say_imported(report: "ImportReport") -> None:
    for said in report.said():
        say(f"note: {said}")
