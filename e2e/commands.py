"""The commands of `e2e`, and `probes paper`, which may train."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from e2e.recipe import ADAPTATIONS, WEIGHINGS, Recipe
from embedstore.files.at_hand import as_delivered, delivered
from embedstore.files.output import write_out
from embedstore.files.targets import folder_target
from embedstore.terminal.app import make_app
from embedstore.terminal.options import (
    PLACE,
    CacheOption,
    DeviceOption,
    DtypeOption,
    EngineOptions,
    JsonOption,
    OutputOptions,
    OverwriteOption,
    StoreOption,
    WorkersOption,
)
from embedstore.terminal.printing import print_arrow, print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar, progress_bars
from probes.commands.options import (
    GroupOption,
    ManifestOptions,
    SeedOption,
    SplitOptions,
    one_of,
)
from probes.commands.printing import print_runs
from probes.splits.spec import ManifestSpec

if TYPE_CHECKING:
    from e2e.paper import PaperOptions, Plan
    from embedstore.store import Store

WeightsOption = Annotated[
    str | None, typer.Option(metavar="PATH|hub|random", help="The backbone's initial weights.")
]


@dataclass(frozen=True)
class RecipeOptions:
    """The fields of a `Recipe`."""

    adapt: Annotated[
        str,
        typer.Option(
            help=f"{one_of(ADAPTATIONS)}: train all, low-rank additions (dora: with lengths of "
            "their own), or the last layer."
        ),
    ] = Recipe.adapt
    epochs: Annotated[int, typer.Option(help="Epochs; each ends with a validation.")] = (
        Recipe.epochs
    )
    min_steps: Annotated[
        int, typer.Option(help="Train at least this many steps, however small the data.")
    ] = Recipe.min_steps
    batch_size: Annotated[int, typer.Option(help="Patches a step.")] = Recipe.batch_size
    max_lr: Annotated[float, typer.Option(help="Peak of the one-cycle learning rate.")] = (
        Recipe.max_lr
    )
    weight_decay: Annotated[float, typer.Option(help="Weight decay (Adam).")] = Recipe.weight_decay
    patience: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many epochs without a lower validation loss; this cuts the end of "
            "the one-cycle."
        ),
    ] = Recipe.patience
    lora_rank: Annotated[int, typer.Option(help="With --adapt lora and dora.")] = Recipe.lora_rank
    soft_labels: Annotated[
        bool, typer.Option("--soft-labels", help="Learn the experts' share of votes.")
    ] = Recipe.soft_labels
    focal: Annotated[float, typer.Option(help="Gamma of the focal loss; 0: cross-entropy.")] = (
        Recipe.focal
    )
    weigh: Annotated[
        str, typer.Option(help=f"{one_of(WEIGHINGS)}: whose groups weigh alike in the loss.")
    ] = Recipe.weigh
    mixup: Annotated[float, typer.Option(help="Alpha of MixUp; 0: none.")] = Recipe.mixup
    hed: Annotated[
        float, typer.Option(help="How far stains vary in HED, such as 0.05; 0: not.")
    ] = Recipe.hed
    tta: Annotated[bool, typer.Option("--tta", help="Score the mean of eight flips and turns.")] = (
        Recipe.tta
    )
    jitter: Annotated[
        float, typer.Option(help="Brightness, contrast and saturation vary by this share.")
    ] = Recipe.jitter
    hue: Annotated[float, typer.Option(help="Hue varies by this share of a turn.")] = Recipe.hue
    blur: Annotated[float, typer.Option(help="Largest sigma of the Gaussian blur, px.")] = (
        Recipe.blur
    )
    rotate: Annotated[float, typer.Option(help="Largest rotation, degrees.")] = Recipe.rotate
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Flip across and down.")] = (
        Recipe.flip
    )
    patch_px: Annotated[int, typer.Option(help="Patch width in pixels.")] = Recipe.patch_px
    mpp_out: Annotated[float, typer.Option(help="Patch scale in um per pixel.")] = Recipe.mpp_out

    @property
    def recipe(self) -> Recipe:
        """Return it as the library takes it."""
        return Recipe(**vars(self))


def paper_command(
    dataset: Annotated[list[str], typer.Argument(help="Datasets that models have embedded.")],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar=PLACE, help="Folder of the report."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: all that have embeddings.")
    ] = None,
    with_e2e: Annotated[
        bool, typer.Option("--with-e2e", help="Train end to end as well, on the same splits.")
    ] = False,
    backbone: Annotated[str, typer.Option(help="With --with-e2e: what is trained.")] = "resnet50",
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    group_by: GroupOption = ManifestSpec.group_by,
    seed: SeedOption = ManifestSpec.seed,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say what would run, and run nothing.")
    ] = False,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Run what is missing of both experiments of the paper, then write the report.

    Monte Carlo over all domains at the fractions 0.001, 0.01, 0.1 and 1 (Figure 1), and train on
    one domain, test on each (Table 2, Figure 2), five folds each, with UNI's probe. The plan comes
    first. Recorded runs are skipped, so the same command goes on after an interruption.

    Example: probes paper midog --output report
    """
    from e2e.paper import PaperOptions, plan
    from e2e.run import TrainOptions
    from embedstore.store import Store
    from probes.reports import ABOUT

    if output is None and not only_plan:
        raise typer.BadParameter("name the report's folder", param_hint="--output")
    to = None if output is None else folder_target(output, own=ABOUT, overwrite=overwrite)
    opened = Store.open(store, write=True)
    trained = TrainOptions(backbone=backbone, weights=weights, device=device)
    options = PaperOptions(model, trained if with_e2e else None, group_by, seed)
    planned = plan(opened, dataset, options)
    say_notes(planned.notes)
    if only_plan or not as_json:
        rows = [s.row() for s in planned.steps]
        print_json(rows) if as_json else print_table("plan", rows)
    if only_plan or output is None or to is None:
        return
    with delivered(to) as folder:
        written = _carried_out(opened, planned, folder, options)
    written = as_delivered(written, folder, output)
    if as_json:
        print_json(written)
    else:
        write_out(None, lambda sink: sink.write(f"{written[0]['file']}\n".encode()))


def e2e_run_command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="A registered dataset with its slides.")],
    cut: ManifestOptions,
    splits: SplitOptions,
    recipe: RecipeOptions,
    where: EngineOptions,
    backbone: Annotated[
        str, typer.Option(help="resnet50, a registry name, or any timm architecture.")
    ] = "resnet50",
    weights: WeightsOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    workers: WorkersOption = None,
    patch_cache: CacheOption = True,
    force: Annotated[bool, typer.Option("--force", help="Train again what is recorded.")] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Train and score on a manifest of `probes run`, into the same tables.

    Recorded runs are skipped; an interrupted one goes on from its last epoch.

    Example: e2e run midog --backbone resnet50 --fraction 0.1 --fold 0
    """
    from e2e.run import Listener, TrainOptions, run
    from e2e.spread import run_on_cluster
    from embedstore.store import Store

    spec = cut.spec(dataset)
    options = TrainOptions(
        backbone=backbone,
        weights=weights,
        recipe=recipe.recipe,
        splits=splits.asked(context),
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
        opened = Store.open(store, write=True)
        if (cluster := where.cluster()) is None:
            report = run(opened, spec, options, listener)
        else:
            report = run_on_cluster(opened, spec, options, cluster, listener)
    print_runs(report, "runs trained", as_json)


def e2e_predict_command(
    run_id: Annotated[str, typer.Argument(help="A run that `e2e run` trained.")],
    dataset: Annotated[str, typer.Argument(help="Any registered dataset with its slides.")],
    printed: OutputOptions,
    weights: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="lora and head: the backbone's weights, if moved."),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    workers: WorkersOption = None,
    patch_cache: CacheOption = True,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score a dataset with a trained model: annotation_id, label, score (its probability).

    Example: e2e predict RUN_ID midog --output scores.csv
    """
    from e2e.predict import PredictOptions, predict
    from embedstore.store import Store

    options = PredictOptions(weights, device, dtype, workers, patch_cache)
    printed.place()
    with progress_bar("scoring", "patches") as on_progress:
        table = predict(Store.open(store, write=patch_cache), run_id, dataset, options, on_progress)
    print_arrow(table, printed, as_json)


def _carried_out(
    store: "Store", planned: "Plan", output: Path, options: "PaperOptions"
) -> list[dict[str, Any]]:
    from e2e.paper import PaperListener, paper

    with progress_bars() as add_bar:
        listener = PaperListener(
            reading=add_bar("reading patches", "patches"),
            step=add_bar("training", "steps"),
            line=say,
            fitting=add_bar("fitting", "fits"),
            comparing=add_bar("comparing", "pairs"),
            reporting=add_bar("reporting", "sections"),
        )
        return paper(store, planned, output, options, listener)


e2e_app = make_app(
    "e2e",
    "Models trained end to end on the manifests of the probes.",
    {"Train and score": {"run": e2e_run_command, "predict": e2e_predict_command}},
)
