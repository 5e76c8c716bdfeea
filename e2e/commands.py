"""The commands of `e2e`, and `probes paper`, which may train."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from embedstore.files.output import write_out
from embedstore.terminal.options import SETTINGS, CacheOption, JsonOption, SqlFormat, StoreOption
from embedstore.terminal.printing import print_arrow, print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar, progress_bars
from probes.commands import MATCHED_HELP, SCHEME_HELP, print_runs, scheme_name


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
    from e2e.paper import PaperListener, PaperOptions, paper, plan
    from e2e.run import TrainOptions
    from embedstore.store import Store

    if output is None and not only_plan:
        raise typer.BadParameter("name the report's folder", param_hint="--output")
    opened = Store.open(store)
    trained = TrainOptions(backbone=backbone, weights=weights, device=device)
    options = PaperOptions(model, trained if with_e2e else None, group_by, seed)
    planned = plan(opened, dataset, options)
    say_notes(planned.notes)
    if only_plan or not as_json:
        rows = [s.row() for s in planned.steps]
        print_json(rows) if as_json else print_table("plan", rows)
    if only_plan or output is None:
        return
    with progress_bars() as add_bar:
        listener = PaperListener(
            reading=add_bar("reading patches", "patches"),
            step=add_bar("training", "steps"),
            line=say,
            fitting=add_bar("fitting", "fits"),
            comparing=add_bar("comparing", "pairs"),
            reporting=add_bar("reporting", "sections"),
        )
        written = paper(opened, planned, output, options, listener)
    if as_json:
        print_json(written)
    else:
        write_out(None, lambda sink: sink.write(f"{written[0]['file']}\n".encode()))


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
    scheme: Annotated[str, typer.Option(help=SCHEME_HELP)] = "monte-carlo",
    fraction: Annotated[
        list[float] | None, typer.Option(help="Share of the training pool, in (0, 1]; repeatable.")
    ] = None,
    fold: Annotated[list[int] | None, typer.Option(min=0, help="Repeatable; default: 0-4.")] = None,
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=MATCHED_HELP)] = False,
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
    from probes.splits.spec import ManifestSpec

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
    scheme = scheme_name(scheme, size_matched)
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
    with progress_bars() as add_bar:
        listener = Listener(
            reading=add_bar("reading patches", "patches"),
            step=add_bar("training", "steps"),
            line=say,
        )
        report = run(Store.open(store), spec, options, listener)
    print_runs(report, f"{dataset}, {scheme}, by {group_by}", "runs trained", as_json)


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
    from e2e.predict import PredictOptions, predict
    from embedstore.store import Store

    options = PredictOptions(weights, device, dtype, workers, patch_cache)
    with progress_bar("scoring", "patches") as on_progress:
        table = predict(Store.open(store), run_id, dataset, options, on_progress)
    print_arrow(table, format, output, as_json)


e2e_app = typer.Typer(
    name="e2e", help="Models trained end to end on the manifests of the probes.", **SETTINGS
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": e2e_run_command,
    "predict": e2e_predict_command,
}
for _name, _command in COMMANDS.items():
    e2e_app.command(_name)(_command)
