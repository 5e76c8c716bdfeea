"""The command line: parse, call, print. One Typer app per console script; nothing imports this.

Results go to stdout, progress and messages to stderr. Heavy parts are imported where they are used,
so that --help is instant.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from embedstore.annotations.readers import READERS
from embedstore.errors import EmbedstoreError

_SETTINGS: dict[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": "rich",
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
embedstore_app = typer.Typer(
    name="embedstore",
    help="Embeddings of annotated cells in a store that answers SQL.",
    **_SETTINGS,
)
probes_app = typer.Typer(
    name="probes", help="Linear probes on any slice of the embeddings.", **_SETTINGS
)
e2e_app = typer.Typer(
    name="e2e", help="Models trained end to end on the manifests of the probes.", **_SETTINGS
)

StoreOption = Annotated[
    str,
    typer.Option("--store", envvar="EMBEDSTORE_URI", help="Folder or s3:// prefix of the store."),
]
_SCHEME_HELP = (
    "monte-carlo, cross-domain, leave-one-domain-out, or predefined: the dataset's own split."
)
_MATCHED_HELP = "With cross-domain: train every domain at the smallest one's size."
CacheOption = Annotated[
    bool,
    typer.Option(
        "--patch-cache/--no-patch-cache",
        help="Keep the patches read in the store, so that nothing reads them from slides again.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print rows as JSON.")]


class SqlFormat(StrEnum):
    """How `embedstore sql` prints."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class Metric(StrEnum):
    """How far apart `embedstore neighbors` says two embeddings are."""

    cosine = "cosine"
    l2 = "l2"


class ManifestAction(StrEnum):
    """What `probes manifest` does."""

    export = "export"
    import_ = "import"


class ModelsAction(StrEnum):
    """What `embedstore models` does."""

    list = "list"
    check = "check"


# ------------------------------------------------------------------------------ embedstore


@embedstore_app.command("add")
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
        labels=_pairs(label, "--label"),
        positive=positive,
    )
    with _progress("opening slides", "slides") as on_slide:
        report = add(store, dataset, annotations, options, on_slide)
    opened = Store.open(store)
    rows = status.composition(opened, dataset)
    if as_json:
        _print_json([{"dataset": dataset, **r} for r in rows])
    else:
        _print_table(f"{dataset}: annotations", rows)
    said = [
        f"{name!r} -> {to or 'left out'} ({report.n_by_class[name]:,})"
        for name, to in report.classes.items()
    ]
    on = "patches" if report.kind == "patch" else "slides"
    _say(
        f"read {report.n_annotations:,} annotations on {report.n_slides:,} {on} as "
        f"{report.format}, {report.n_new:,} of them new; classes: {', '.join(said)}"
    )
    _say_notes(report.notes)
    _say_problems(status.problems(opened, dataset))


@embedstore_app.command("ingest")
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
        weights=_pairs(weights, "--weights"),
        name=name,
        views=views,
        variation=Variation(pooling, _rgb(mean, "--mean"), _rgb(std, "--std")),
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
        with _progress("embedding", "embeddings") as on_progress:
            report = ingest(opened, dataset, models, options, on_progress)
    except Interrupted as e:
        done = sum(r.n_embedded for r in e.report.models)
        _say(f"interrupted; {done:,} embeddings stored, the same command does the rest")
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
        _print_json(rows)
    else:
        _print_table(f"{dataset}: embeddings", rows)
    for r in report.models:
        if r.parity is not None and r.parity < 0.999:
            _say(
                f"{r.model}: the lowest cosine of {r.dtype} to float32 in a sample is "
                f"{r.parity:.4f}; --dtype float32 --as NAME is exact"
            )
    embedded = sum(r.n_embedded + r.n_views for r in report.models)
    if embedded:
        rate = embedded / max(report.seconds, 1e-9)
        _say(f"{embedded:,} embedded in {report.seconds:.1f} s ({rate:.1f}/s, loading included)")
    else:
        _say("nothing to embed")
    if report.n_cached:
        _say(f"{report.n_cached:,} patches kept for later reading (--no-patch-cache keeps none)")
    if report.n_off_slide:
        _say(f"{report.n_off_slide} annotations lie off their slide and are not embedded")
    _say_problems(status.problems(opened, dataset))


@embedstore_app.command("status")
def status_command(
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset, in detail.")] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Show what is embedded, what is missing and what was set aside."""
    from embedstore import status
    from embedstore.store import Store

    opened = Store.open(store)
    rows = status.status(opened, dataset)
    if as_json:
        _print_json(rows)
        return
    shown = [
        {
            "dataset": r["dataset"],
            "annotations": r["n_annotations"],
            "model": r["model"],
            "done": r["done"],
            "missing": r["missing"],
            "set aside": r["set_aside"],
            "views": r.get("views"),
            "dim": r.get("dim"),
            "dtype": r.get("dtype"),
            "weights": r.get("weights"),
            "sha256": (r.get("weights_sha256") or "")[:12],
            "version": r.get("version"),
            "fragments": r.get("n_fragments"),
            "MB": (r.get("n_bytes") or 0) / 1e6,
        }
        for r in rows
    ]
    _print_table(f"store {store}", shown)
    n, n_bytes = status.patches(opened)
    if n:
        _say(f"{n:,} patches kept, {n_bytes / 1e6:,.0f} MB")
    if dataset is not None:
        _print_table(f"{dataset}: annotations", status.composition(opened, dataset))
        _say_notes(status.notes(opened, dataset))
    for name in dict.fromkeys(r["dataset"] for r in rows):
        _say_problems(status.problems(opened, name), name)


@embedstore_app.command("models")
def models_command(
    action: Annotated[
        ModelsAction, typer.Argument(help="list them, or check what can be had from here.")
    ] = ModelsAction.list,
    as_json: JsonOption = False,
) -> None:
    """List the models known by name; others go as timm:NAME or hf-hub:OWNER/NAME."""
    from embedstore.models.checkpoints import availability
    from embedstore.models.registry import REGISTRY

    if action is ModelsAction.check:
        rows = []
        with _progress("asking", "models") as on_progress:
            for n, (name, e) in enumerate(REGISTRY.items(), start=1):
                found = availability(e.default_weights, e.hub, e.hub_file)
                rows.append({"model": name, "gated": e.gated, "weights": found, "hub": e.hub})
                on_progress(n, len(REGISTRY))
        if as_json:
            _print_json(rows)
        else:
            _print_table("weights from here", rows)
            _say("a local file always serves: --weights MODEL=PATH")
        return
    rows = [
        {
            "model": name,
            "arch": e.arch,
            "n_params": e.n_params,
            "dim": e.dim,
            "pooling": e.pooling,
            "licence": e.licence,
            "gated": e.gated,
            "verified": e.verified,
            "expected um/px": e.expected_mpp,
            "default weights": e.default_weights,
            "hub": e.hub,
        }
        for name, e in REGISTRY.items()
    ]
    if as_json:
        _print_json(
            [{k.replace(" ", "_").replace("um/px", "mpp"): v for k, v in r.items()} for r in rows]
        )
    else:
        _print_table("models", rows)


@embedstore_app.command("sql")
def sql_command(
    query: Annotated[str, typer.Argument(help="One SELECT over the views.")],
    format: Annotated[SqlFormat, typer.Option(help="How rows are printed.")] = SqlFormat.table,
    output: Annotated[
        Path | None, typer.Option(help="Write to a file; its ending decides the format.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Ask the store in SQL (DuckDB), read only.

    Views: datasets, annotations, slides, patches, models, embeddings, embedding_views, manifests,
    splits, results, predictions, probes, and each model's embeddings under its own name.
    """
    from embedstore.store import Store
    from embedstore.store.sql import run_sql

    _print_rows(run_sql(Store.open(store), query), format, output, as_json)


def _print_rows(table: Any, format: SqlFormat, output: Path | None, as_json: bool) -> None:
    """Print an Arrow table, or write it to a file whose ending decides the format."""
    from embedstore.store.sql import to_csv, to_rows, write_parquet

    if as_json:
        format = SqlFormat.json
    if output is not None and format is SqlFormat.table:
        format = _format_of(output)
    if format is SqlFormat.table:
        _print_table(None, to_rows(table), table.column_names)
    elif format is SqlFormat.parquet:
        if output is None and sys.stdout.isatty():
            raise EmbedstoreError("Parquet is binary: name a file with --output, or pipe it")
        _write(output, lambda sink: write_parquet(table, sink))
    else:
        text = to_csv(table) if format is SqlFormat.csv else _json(to_rows(table))
        _write(output, lambda sink: sink.write(text.encode()))


@embedstore_app.command("export")
def export_command(
    dataset: Annotated[str, typer.Argument(help="A dataset with embeddings of the model.")],
    model: Annotated[str, typer.Option(help="Whose embeddings.")],
    output: Annotated[Path, typer.Option(help="File to write, .parquet or .npz.")],
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write a model's embeddings of a dataset to a file, with what made them.

    One row an annotation, in order of annotation_id: annotation_id, dataset, slide, case_id,
    domain, label, x_l0, y_l0 (centre, level-0 pixels) and vector (float32).
    """
    from embedstore.exchange import export
    from embedstore.store import Store

    with _progress("writing", "embeddings") as on_progress:
        r = export(Store.open(store), dataset, model, output, on_progress)
    rows = [
        {
            "dataset": dataset,
            "model": model,
            "exported": r.n_rows,
            "not_embedded": r.n_without,
            "dim": r.dim,
            "file": str(output),
        }
    ]
    if as_json:
        _print_json(rows)
    else:
        _print_table(f"{dataset}: exported", rows)


@embedstore_app.command("import")
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
    with _progress("importing", "") as on_progress:
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
        _print_json(rows)
    else:
        _print_table(f"{dataset}: imported", rows)
    _say_notes(r.notes)
    if r.dtype != "float32":
        _say(f"note: the file holds {r.dtype}, stored as float32")
    if r.n_left_out:
        _say(
            f"note: {r.n_left_out:,} annotations have a problem and are left out (`embedstore "
            f"status {dataset}` tells which)"
        )
    if r.n_lacking:
        only = f"annotation_id in (select annotation_id from {identifier(model)})"
        _say(
            f"note: {r.n_lacking:,} annotations of {dataset} are not in the file; probes go on "
            f"without them with --where '{only}'"
        )


@embedstore_app.command("neighbors")
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
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Show the annotations whose embeddings are nearest to one annotation's.

    Exact, over all datasets of the store unless --where says less, for example
    --where "domain = 'canine lymphoma' and label = 'mitotic figure'".
    """
    from embedstore.neighbors import neighbors
    from embedstore.store import Store

    found = neighbors(
        Store.open(store), annotation_id, model, k=k, where=where, metric=metric.value
    )
    if as_json:
        _print_json(found.rows)
    else:
        _print_table(f"nearest to {annotation_id}", found.rows)
    n = f"{len(found.rows):,} of {found.n_searched:,}"
    _say(f"{n} embeddings of {model}, {metric.value} distance")


@embedstore_app.command("demo")
def demo_command(
    directory: Annotated[Path, typer.Argument(help="Folder to write.")] = Path("demo"),
) -> None:
    """Write a small generated dataset: slides of several stain domains with annotations."""
    from embedstore.demo.dataset import write_demo

    try:
        with _progress("drawing slides", "slides") as on_slide:
            written = write_demo(directory, progress=on_slide)
    except OSError as e:
        raise EmbedstoreError(f"{directory} cannot be written: {e.strerror}") from e
    typer.echo(str(written.slides))
    typer.echo(str(written.midog_json))
    typer.echo(str(written.sliderunner_sqlite))


# ---------------------------------------------------------------------------------- probes


@probes_app.command("split")
def split_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset.")],
    scheme: Annotated[str, typer.Option(help=_SCHEME_HELP)] = "monte-carlo",
    folds: Annotated[int, typer.Option(min=1, help="How many folds.")] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="Comma-separated, in (0, 1]; default 0.001,0.01,0.1,1.")
    ] = None,
    group_by: Annotated[
        str, typer.Option(help="annotation, slide or case: what stays on one side.")
    ] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=_MATCHED_HELP)] = False,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of all draws.")] = 42,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write the split manifest; print its sizes and what leaks from train to test."""
    from embedstore.store import Store
    from probes.splits.manifests import ManifestSpec, candidates, ensure_splits

    scheme = _scheme(scheme, size_matched)
    spec = ManifestSpec(dataset, scheme, group_by, stratify, where, seed)
    opened = Store.open(store)
    found = candidates(opened, spec)
    splits, notes = ensure_splits(
        opened, found, folds=range(folds), fractions=_numbers(fractions, "--fractions")
    )
    opened.compact("splits")
    rows = [s.row for s in splits]
    if as_json:
        _print_json(rows)
    else:
        _print_splits(f"manifest {found.manifest_id}: {dataset}, {scheme}, by {group_by}", rows)
    if found.n_left_out:
        _say(f"{found.n_left_out} annotations with a problem are in no split")
    _say_notes(notes)
    _say_leakage(rows)


@probes_app.command("run")
def run_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset with embeddings.")],
    model: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all.")] = None,
    scheme: Annotated[str, typer.Option(help=_SCHEME_HELP)] = "monte-carlo",
    fraction: Annotated[
        list[float] | None, typer.Option(help="Share of the training pool, in (0, 1]; repeatable.")
    ] = None,
    fold: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; default: 0-4.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="uni (the default), logreg, knn or prototype; repeatable."),
    ] = None,
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=_MATCHED_HELP)] = False,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    train_domain: Annotated[
        list[str] | None, typer.Option(help="By-domain schemes: only these; repeatable.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="label, or domain: how much of it embeddings give away.")
    ] = "label",
    views: Annotated[
        str | None, typer.Option(help="d4: train on stored views and average over them.")
    ] = None,
    eval_dataset: Annotated[
        str | None, typer.Option(help="Score this dataset with the probes trained on the other.")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option(help="Id of a recorded or imported manifest to run on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the manifest.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Fit again what is recorded.")] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Fit and score probes on a manifest, made if it is missing; recorded runs are skipped."""
    from embedstore.store import Store
    from probes.run import RunOptions, run
    from probes.splits.manifests import ManifestSpec

    scheme = _scheme(scheme, size_matched)
    spec = ManifestSpec(dataset, scheme, group_by, stratify, where, seed)
    options = RunOptions(
        models=model,
        methods=tuple(dict.fromkeys(method or ("uni",))),
        fractions=fraction,
        folds=fold,
        train_domains=train_domain,
        target=target,
        views=views,
        eval_dataset=eval_dataset,
        manifest=manifest,
        force=force,
    )
    with _progress("fitting", "fits") as on_progress:
        report = run(Store.open(store), spec, options, on_progress)
    _print_runs(report, f"{dataset}, {scheme}, by {group_by}", "fits done", as_json)


@probes_app.command("compare")
def compare_command(
    dataset: Annotated[str, typer.Argument(help="A dataset with recorded runs.")],
    a: Annotated[
        str | None,
        typer.Option("--a", metavar="METHOD:MODEL", help="One side; default: the best."),
    ] = None,
    b: Annotated[
        list[str] | None,
        typer.Option(
            "--b", metavar="METHOD:MODEL", help="The other side; repeatable; default: all others."
        ),
    ] = None,
    scheme: Annotated[str, typer.Option(help=_SCHEME_HELP)] = "monte-carlo",
    fraction: Annotated[
        list[float] | None, typer.Option(help="Only these fractions; repeatable.")
    ] = None,
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=_MATCHED_HELP)] = False,
    where: Annotated[str | None, typer.Option(help="As the runs were made with.")] = None,
    metric: Annotated[str, typer.Option(help="What is compared.")] = "auroc",
    by_fold: Annotated[bool, typer.Option("--by-fold", help="Show single folds as well.")] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the manifest.")] = 42,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Test whether two methods differ, on the same test annotations.

    Over folds: the bootstrap of the mean difference, slides (or cases, as the manifest groups)
    resampled jointly, p-values corrected by Holm for the number of rows. By fold: DeLong's test as
    well, which takes annotations as independent. What is found over folds is recorded (view
    comparisons), and shown by `probes report`.
    """
    from embedstore.store import Store
    from probes.compare import CompareOptions, Side, compare

    options = CompareOptions(
        scheme=_scheme(scheme, size_matched),
        group_by=group_by,
        stratify=stratify,
        where=where,
        seed=seed,
        fractions=fraction,
        metric=metric,
    )
    first = None if a is None else Side.parse(a)
    sides = [Side.parse(text) for text in dict.fromkeys(b or ())]
    with _progress("comparing", "pairs") as on_progress:
        rows, notes = compare(Store.open(store), dataset, first, sides, options, on_progress)
    if as_json:
        _print_json(rows)
    else:
        shown = [r for r in rows if by_fold or r["fold"] is None]
        hidden = {"metric", "manifest_id"} | {
            k for k in ("train_domain", "fold", "p_delong") if all(r[k] is None for r in shown)
        }
        columns = [k for k in rows[0] if k not in hidden]
        _print_table(f"{dataset}: difference in {metric}", shown, columns)
    _say_notes(notes)


@probes_app.command("predict")
def predict_command(
    run_id: Annotated[str, typer.Argument(help="A recorded run of a linear probe.")],
    dataset: Annotated[str, typer.Argument(help="Any dataset that its model has embedded.")],
    format: Annotated[SqlFormat, typer.Option(help="How rows are printed.")] = SqlFormat.table,
    output: Annotated[
        Path | None, typer.Option(help="Write to a file; its ending decides the format.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score a dataset with a recorded probe: annotation_id, label, score (its probability)."""
    from embedstore.store import Store
    from probes.predict import predict

    _print_rows(predict(Store.open(store), run_id, dataset), format, output, as_json)


@probes_app.command("report")
def report_command(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the page, figures and tables.")
    ],
    dataset: Annotated[
        list[str] | None, typer.Argument(help="Which datasets; default: all of the store.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write what is recorded as a page, with every figure as SVG and PNG and every table as files.

    The page (index.html) needs no network: learning curves, in and out of domain, the paper's
    numbers beside yours, the leakage audit, calibration, the worst mistakes with their patches, a
    map of the embeddings, and the commands that repeat it. Nothing is fitted: what is missing is
    named with the command that fills it.
    """
    from embedstore.store import Store
    from probes.report import report

    with _progress("reporting", "sections") as on_progress:
        rows = report(Store.open(store), dataset or [], output, on_progress)
    if as_json:
        _print_json(rows)
    else:
        _write(None, lambda sink: sink.write(f"{rows[0]['file']}\n".encode()))
    n = {k: sum(r["kind"] == k for r in rows) for k in ("figure", "table")}
    _say(f"{rows[0]['title']}: {n['figure']} files of figures and {n['table']} of tables beside it")


@probes_app.command("paper")
def paper_command(
    dataset: Annotated[list[str], typer.Argument(help="Datasets that models have embedded.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the report.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: all that have embeddings.")
    ] = None,
    with_e2e: Annotated[
        bool, typer.Option("--with-e2e", help="Train end to end as well, on the same splits.")
    ] = False,
    backbone: Annotated[str, typer.Option(help="With --with-e2e: what is trained.")] = "resnet50",
    weights: Annotated[
        str | None, typer.Option(metavar="PATH|hub|random", help="Where the backbone starts.")
    ] = None,
    device: Annotated[str, typer.Option(help="Of training: auto, cpu, cuda, ...")] = "auto",
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the manifests.")] = 42,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, and run nothing.")
    ] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Run what is missing of both experiments of the paper, then write the report.

    Monte Carlo over all domains at the fractions 0.001, 0.01, 0.1 and 1 (Figure 1), and train on
    one domain, test on each (Table 2, Figure 2), five folds each, with UNI's probe. The plan comes
    first. Recorded runs are skipped, so the same command goes on after an interruption.
    """
    from e2e.paper import PaperOptions, fill, plan
    from e2e.run import Listener, TrainOptions
    from embedstore.store import Store
    from probes.report import report

    if output is None and not only_plan:
        raise typer.BadParameter("name the report's folder", param_hint="--output")
    opened = Store.open(store)
    trained = TrainOptions(backbone=backbone, weights=weights, device=device)
    options = PaperOptions(model, trained if with_e2e else None, group_by, seed)
    planned = plan(opened, dataset, options)
    _say_notes(planned.notes)
    if only_plan or not as_json:
        rows = [s.row() for s in planned.steps]
        _print_json(rows) if as_json else _print_table("plan", rows)
    if only_plan or output is None:
        return
    with _bars() as add_bar:
        listener = Listener(
            reading=add_bar("reading patches", "patches"),
            step=add_bar("training", "steps"),
            line=_say,
        )
        n_new = fill(
            opened,
            planned.steps,
            options,
            add_bar("fitting", "fits"),
            listener,
            add_bar("comparing", "pairs"),
        )
    _say(f"{n_new} runs done")
    with _progress("reporting", "sections") as on_progress:
        written = report(opened, dataset, output, on_progress)
    if as_json:
        _print_json(written)
    else:
        _write(None, lambda sink: sink.write(f"{written[0]['file']}\n".encode()))


@probes_app.command("manifest")
def manifest_command(
    action: Annotated[ManifestAction, typer.Argument(help="export or import.")],
    what: Annotated[str, typer.Argument(help="export: a manifest id; import: a dataset.")],
    file: Annotated[Path, typer.Argument(help="CSV or Parquet file.")],
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Take a manifest out, or bring one in that another tool made or changed.

    A file has annotation_id and role (train, val or test), and fold, fraction and train_domain
    where there are several splits. `probes run DATASET --manifest ID` runs on it.
    """
    from embedstore.store import Store
    from probes.splits.files import import_manifest, manifest_table

    opened = Store.open(store)
    if action is ManifestAction.export:
        table = manifest_table(opened, what)
        _print_rows(table, SqlFormat.table, file, as_json=False)
        _say(f"{len(table):,} rows of manifest {what} written to {file}")
        return
    rows, manifest_id = import_manifest(opened, what, file)
    shown = [{k: v for k, v in r.items() if k not in ("train", "val", "test")} for r in rows]
    if as_json:
        _print_json(shown)
    else:
        _print_splits(f"manifest {manifest_id}: {what}, imported from {file.name}", shown)
    _say_leakage(shown)


# ------------------------------------------------------------------------------------- e2e


@e2e_app.command("run")
def e2e_run_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset with its slides.")],
    backbone: Annotated[
        str, typer.Option(help="resnet50, a registry name, or any timm architecture.")
    ] = "resnet50",
    weights: Annotated[
        str | None, typer.Option(metavar="PATH|hub|random", help="Where it starts from.")
    ] = None,
    adapt: Annotated[
        str, typer.Option(help="full: train all; lora: low-rank additions; head: the last layer.")
    ] = "full",
    scheme: Annotated[str, typer.Option(help=_SCHEME_HELP)] = "monte-carlo",
    fraction: Annotated[
        list[float] | None, typer.Option(help="Share of the training pool, in (0, 1]; repeatable.")
    ] = None,
    fold: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; default: 0-4.")] = None,
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=_MATCHED_HELP)] = False,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    train_domain: Annotated[
        list[str] | None, typer.Option(help="By-domain schemes: only these; repeatable.")
    ] = None,
    manifest: Annotated[
        str | None, typer.Option(help="Id of a recorded or imported manifest to train on.")
    ] = None,
    epochs: Annotated[int, typer.Option(help="Validations, evenly over the schedule.")] = 20,
    min_steps: Annotated[
        int, typer.Option(help="Steps of the schedule at least, however few the annotations.")
    ] = 500,
    batch_size: Annotated[int, typer.Option(help="Patches a step.")] = 32,
    max_lr: Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")] = 1e-4,
    weight_decay: Annotated[float, typer.Option(help="Of Adam.")] = 0.0,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop after so many epochs without a better one; cuts the cycle's end."),
    ] = None,
    lora_rank: Annotated[int, typer.Option(help="With --adapt lora.")] = 16,
    jitter: Annotated[
        float, typer.Option(help="Brightness, contrast and saturation vary by this share.")
    ] = 0.2,
    hue: Annotated[float, typer.Option(help="Hue varies by this share of a turn.")] = 0.05,
    blur: Annotated[float, typer.Option(help="Largest sigma of the Gaussian blur, px.")] = 1.5,
    rotate: Annotated[float, typer.Option(help="Largest rotation, degrees.")] = 180.0,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Flip across and down.")] = True,
    patch_px: Annotated[int, typer.Option(help="Patch width in pixels.")] = 224,
    mpp_out: Annotated[float, typer.Option(help="Patch scale in um per pixel.")] = 0.25,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="Of autocast: float32, bfloat16, or auto for what is fast here.")
    ] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read patches.")] = None,
    patch_cache: CacheOption = True,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of the manifest.")] = 42,
    force: Annotated[bool, typer.Option("--force", help="Train again what is recorded.")] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Train and score on a manifest of `probes run`, into the same tables.

    Recorded runs are skipped; an interrupted one goes on from its last epoch.
    """
    from e2e.recipe import Recipe
    from e2e.run import Listener, TrainOptions, run
    from embedstore.store import Store
    from probes.splits.manifests import ManifestSpec

    recipe = Recipe(
        adapt=adapt,
        epochs=epochs,
        min_steps=min_steps,
        batch_size=batch_size,
        max_lr=max_lr,
        weight_decay=weight_decay,
        patience=patience,
        lora_rank=lora_rank,
        jitter=jitter,
        hue=hue,
        blur=blur,
        rotate=rotate,
        flip=flip,
        patch_px=patch_px,
        mpp_out=mpp_out,
    )
    scheme = _scheme(scheme, size_matched)
    spec = ManifestSpec(dataset, scheme, group_by, stratify, where, seed)
    options = TrainOptions(
        backbone=backbone,
        weights=weights,
        recipe=recipe,
        fractions=fraction,
        folds=fold,
        train_domains=train_domain,
        manifest=manifest,
        device=device,
        dtype=dtype,
        workers=workers,
        patch_cache=patch_cache,
        force=force,
    )
    with _bars() as add_bar:
        listener = Listener(
            reading=add_bar("reading patches", "patches"),
            step=add_bar("training", "steps"),
            line=_say,
        )
        report = run(Store.open(store), spec, options, listener)
    _print_runs(report, f"{dataset}, {scheme}, by {group_by}", "runs trained", as_json)


@e2e_app.command("predict")
def e2e_predict_command(
    run_id: Annotated[str, typer.Argument(help="A run that `e2e run` trained.")],
    dataset: Annotated[str, typer.Argument(help="Any registered dataset with its slides.")],
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="lora and head: the backbone's weights, if moved."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    dtype: Annotated[str, typer.Option(help="Of autocast: float32, bfloat16, or auto.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Threads that read patches.")] = None,
    patch_cache: CacheOption = True,
    format: Annotated[SqlFormat, typer.Option(help="How rows are printed.")] = SqlFormat.table,
    output: Annotated[
        Path | None, typer.Option(help="Write to a file; its ending decides the format.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score a dataset with a trained model: annotation_id, label, score (its probability)."""
    from e2e.predict import predict
    from embedstore.store import Store

    with _progress("scoring", "patches") as on_progress:
        table = predict(
            Store.open(store),
            run_id,
            dataset,
            weights=weights,
            device=device,
            dtype=dtype,
            workers=workers,
            patch_cache=patch_cache,
            on_progress=on_progress,
        )
    _print_rows(table, format, output, as_json)


# --------------------------------------------------------------------------------- printing


def _console() -> Console:
    # Piped, a table is not squeezed into 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=200, file=sys.stdout)


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(escape(message), highlight=False)


def _say_notes(notes: Sequence[str]) -> None:
    for note, n in {n: list(notes).count(n) for n in notes}.items():
        _say(f"note: {note}" + (f" ({n} times)" if n > 1 else ""))


def _say_problems(problems: Sequence[Mapping[str, Any]], dataset: str | None = None) -> None:
    where = f" of {dataset}" if dataset else ""
    absent = [p for p in problems if p.get("status") == "missing"]
    broken = [p for p in problems if p.get("status") != "missing"]
    if absent:
        names = ", ".join(str(p["slide"]) for p in absent[:3])
        _say(
            f"{len(absent)} slides{where} have no file yet (add --slides DIR): {names}"
            + ", ..." * (len(absent) > 3)
        )
    if broken:
        _say(f"{len(broken)} slides{where} set aside, tried again at the next ingest:")
    for p in broken[:20]:
        _say(f"  {p['slide']}: {p['problem']}")
    if len(broken) > 20:
        _say(f"  ... and {len(broken) - 20} more")


def _say_leakage(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say what the largest fraction's train gives away of its test, as a mean over folds."""
    largest = max(r["fraction"] for r in rows)
    mine = [r for r in rows if r["fraction"] == largest]
    said = {
        "shared_slides": "lie on a slide seen in training",
        "shared_cases": "come from a case seen",
        "overlapping_patches": "overlap a training patch",
        "shared_centres": "contain a training annotation's centre",
    }
    parts = []
    for key, what in said.items():
        known = [r[key] for r in mine if r[key] is not None]
        share = f"{sum(known) / len(known):.1%}" if known else "an unknown share"
        parts.append(f"{share} {what}")
    _say(f"leakage at fraction {largest:g}: of the test annotations {', '.join(parts)}")


def _print_splits(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for r in rows:
        lines.setdefault((r["train_domain"], r["fraction"]), []).append(r)
    shown = []
    for (domain, fraction), mine in lines.items():
        line: dict[str, Any] = {"train domain": domain} if domain is not None else {}
        line |= {"fraction": fraction, "folds": len(mine)}
        line |= {
            k.removeprefix("n_"): _span([r[k] for r in mine])
            for k in ("n_train", "n_val", "n_test")
        }
        shown.append(line | {"val by": ", ".join(sorted({r["val_by"] for r in mine}))})
    _print_table(title, shown)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} - {high:,}"


def _print_runs(report: Any, what: str, done: str, as_json: bool) -> None:
    """Print what `probes run` or `e2e run` reports; done says what its new runs are."""
    from probes.scores.results import summarise

    if as_json:
        _print_json(report.rows)
    else:
        title = f"AUROC: {what} (manifest {report.manifest_id})"
        _print_summary(title, [vars(s) for s in summarise(report.rows)])
    _say(f"{report.n_new} {done}, {report.n_recorded} recorded before")
    _say_notes(report.notes)
    _say_leakage([s.row for s in report.splits])


def _print_summary(title: str, lines: Sequence[Mapping[str, Any]]) -> None:
    shown = []
    for s in lines:
        line = {
            "model": s["model"],
            "weights": s["weights"],
            "method": s["method"],
            "fraction": s["fraction"],
            "n_train": s["n_train"],
        }
        if s["where"] != "all":
            line["test"] = s["where"]
        known = not math.isnan(s["low"])
        line |= {
            "mean": f"{s['mean']:.3f}",
            "SD": f"{s['sd']:.3f}" if s["n_runs"] > 1 else "",
            "a run's 95% CI": f"{s['low']:.3f} - {s['high']:.3f}" if known else "",
            "runs": s["n_runs"],
        }
        if any(x["n_failed"] for x in lines):
            line["collapsed or unconverged"] = s["n_failed"]
        shown.append(line)
    _print_table(title, shown)


def _print_table(
    title: str | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    columns = list(columns if columns is not None else rows[0] if rows else [])
    console = _console()
    if len(columns) > 3 and 9 * len(columns) > console.width:
        _print_records(title, rows, columns, console)
        return
    table = Table(header_style="bold")
    for c in columns:
        numbers = any(isinstance(r[c], int | float) for r in rows)
        table.add_column(escape(c), justify="right" if numbers else "left", overflow="fold")
    for row in rows[:500]:
        table.add_row(*(_cell(row[c]) for c in columns))
    if title is not None:
        console.print(Text(title, style="bold"))
    console.print(table)
    if len(rows) > 500:
        _say(f"the first 500 of {len(rows):,} rows; --format csv or --output FILE gives all")


def _print_records(
    title: str | None, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], console: Console
) -> None:
    """Print each row as a list of columns: what has many columns is read down, not across."""
    if title is not None:
        console.print(Text(title, style="bold"))
    for row in rows[:50]:
        table = Table(show_header=False)
        for c in columns:
            table.add_row(Text(c, style="bold"), _cell(row[c]))
        console.print(table)
    if len(rows) > 50:
        _say(f"the first 50 of {len(rows):,} rows; --format csv or --output FILE gives all")
    if not rows:
        console.print("no rows")


def _cell(value: Any) -> Text:
    if value is None:
        return Text("null", style="dim")
    if isinstance(value, bool):
        return Text(str(value).lower())
    if isinstance(value, float):
        return Text("" if math.isnan(value) else f"{value:.6g}")
    if isinstance(value, int):
        return Text(f"{value:,}")
    if isinstance(value, list) and len(value) > 6:
        head = ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in value[:3])
        return Text(f"[{head}, ... {len(value)}]")
    return Text(str(value))


def _json(rows: Any) -> str:
    def plain(value: Any) -> Any:
        return value.isoformat() if hasattr(value, "isoformat") else str(value)

    return json.dumps(rows, indent=1, ensure_ascii=False, default=plain, allow_nan=False) + "\n"


def _print_json(rows: Sequence[Mapping[str, Any]]) -> None:
    _write(None, lambda sink: sink.write(_json(list(rows)).encode()))


def _write(path: Path | None, write: Callable[[Any], Any]) -> None:
    """Write to stdout, or to a file that is whole or not there."""
    if path is None:
        sys.stdout.flush()
        write(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    from embedstore.files.output import write_whole

    write_whole(path, write)


def _format_of(path: Path) -> SqlFormat:
    ending = path.suffix.lower().removeprefix(".")
    if ending not in ("csv", "json", "parquet"):
        raise EmbedstoreError(f"{path}: name the file .csv, .json or .parquet, or give --format")
    return SqlFormat(ending)


# ---------------------------------------------------------------------------------- parsing


def _pairs(values: Sequence[str] | None, option: str) -> dict[str, str]:
    """Return NAME=VALUE options as a dict; usage error for another form or a name given twice."""
    pairs: dict[str, str] = {}
    for value in values or ():
        # A label may hold "=", a path may too: the first one divides.
        name, equals, rest = value.partition("=")
        if not (name and equals and rest):
            raise typer.BadParameter(f"'{value}' is not of the form NAME=VALUE", param_hint=option)
        if pairs.setdefault(name, rest) != rest:
            raise typer.BadParameter(f"'{name}' is given twice", param_hint=option)
    return pairs


def _scheme(scheme: str, size_matched: bool) -> str:
    if size_matched and scheme != "cross-domain":
        raise typer.BadParameter("goes with --scheme cross-domain", param_hint="--size-matched")
    return f"{scheme}-size-matched" if size_matched else scheme


def _rgb(text: str | None, option: str) -> tuple[float, float, float] | None:
    values = _numbers(text, option)
    if values is None:
        return None
    if len(values) != 3:
        raise typer.BadParameter(f"'{text}' is not three numbers R,G,B", param_hint=option)
    return values[0], values[1], values[2]


def _numbers(text: str | None, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a list of numbers", param_hint=option) from None


class _RateColumn(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Return the speed as text."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="dim")


Bar = Callable[[int, int], None]


@contextmanager
def _bars() -> Iterator[Callable[[str, str], Bar]]:
    """Show bars with rate and time left on stderr; Ctrl-C ends with a message and code 130.

    Yields the function that adds one by its title and unit.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    try:
        with Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as bars:

            def add(what: str, unit: str) -> Bar:
                task = bars.add_task(what, total=None, unit=unit)
                return lambda done, total: bars.update(task, completed=done, total=total)

            yield add
    except KeyboardInterrupt:
        _say("interrupted; what is stored is kept, the same command does the rest")
        raise typer.Exit(130) from None


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Bar]:
    """Show one bar: see `_bars`."""
    with _bars() as add:
        yield add(what, unit)


# ---------------------------------------------------------------------------- entry points


def _main(app: typer.Typer) -> None:
    try:
        app()
    except EmbedstoreError as e:
        Console(stderr=True, soft_wrap=True).print(
            f"[bold red]error:[/] {escape(str(e))}", highlight=False
        )
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except PermissionError as e:
        _say(f"error: {e.strerror}: {e.filename}")
        raise SystemExit(1) from None
    except BrokenPipeError:
        sys.stderr.close()  # the reader has gone; say nothing more
        raise SystemExit(1) from None


def embedstore() -> None:
    """Run the `embedstore` command."""
    _main(embedstore_app)


def probes() -> None:
    """Run the `probes` command."""
    _main(probes_app)


def e2e() -> None:
    """Run the `e2e` command."""
    _main(e2e_app)
