"""The commands that ask a question of what is stored and record its numbers."""

from typing import Annotated

import typer

from embedstore.terminal.options import JsonOption, StoreOption
from embedstore.terminal.printing import say, say_notes
from embedstore.terminal.progress import progress_bar
from probes.commands.options import GroupOption, SeedOption
from probes.commands.printing import print_beside, print_measures
from probes.methods.table import METHODS, USUAL
from probes.splits.spec import ManifestSpec

ModelsOption = Annotated[
    list[str] | None, typer.Option("--model", help="Repeatable; default: all of the dataset.")
]
MethodOption = Annotated[str, typer.Option(help=f"The probe: {', '.join(METHODS)}.")]
DatasetArgument = Annotated[str, typer.Argument(help="A dataset with embeddings.")]


LIMIT = 3_000
"""As probes.studies.cells has it, which imports numpy."""


def gap_command(
    dataset: DatasetArgument,
    model: ModelsOption = None,
    method: MethodOption = USUAL,
    seed: SeedOption = ManifestSpec.seed,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Tell what honest splits cost: AUROC by annotation, by slide, by case, in a new domain.

    Runs that are missing are made (all folds, fraction 1). The same slides (or cases, where they
    are named) are left out of all splits at once, so that the loss, and a difference between models
    in it, has an interval. Recorded (view measures) and shown first by `probes report`.

    Example: probes gap midog
    """
    from embedstore.store import Store
    from probes.studies.gap import gap

    with progress_bar("measuring", "steps") as on_progress:
        measures, notes = gap(
            Store.open(store, write=True),
            dataset,
            models=model,
            method=method,
            seed=seed,
            on_progress=on_progress,
        )
    print_measures(f"{dataset}: what honest splits cost", measures, as_json)
    say_notes([f"left out {n}" for n in notes])


def robustness_command(
    dataset: DatasetArgument,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="A column of the annotations, slides or slide table; repeatable; default: slide, "
            "scanner and domain.",
        ),
    ] = None,
    model: ModelsOption = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Annotations drawn of a larger dataset; 0: all.")
    ] = LIMIT,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Tell what embeddings say of slide, scanner, centre or species rather than of cells.

    Per model and column: the robustness index, CRoMa margins with their worst tenth, probes trained
    where the column goes with the label (APD, nIPD), and how well a probe tells the column itself;
    with intervals by slide (or case), and each model against the most robust one. Recorded (view
    measures) and shown by `probes report`.

    Example: probes robustness midog --by scanner --by species
    """
    from embedstore.store import Store
    from probes.studies.robustness import robustness

    with progress_bar("measuring", "models") as on_progress:
        measures, notes = robustness(
            Store.open(store, write=True),
            dataset,
            models=model,
            factors=by,
            limit=limit,
            on_progress=on_progress,
        )
    print_measures(f"{dataset}: robustness", measures, as_json)
    say_notes(notes)


def likeness_command(
    dataset: DatasetArgument,
    model: ModelsOption = None,
    limit: Annotated[
        int, typer.Option(min=0, help="Annotations drawn of a larger dataset; 0: all.")
    ] = 2_000,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Tell how alike models are: linear CKA, and how many nearest neighbours they share.

    Example: probes likeness midog
    """
    from embedstore.store import Store
    from probes.studies.likeness import likeness

    with progress_bar("loading", "models") as on_progress:
        measures, notes = likeness(
            Store.open(store, write=True),
            dataset,
            models=model,
            limit=limit,
            on_progress=on_progress,
        )
    print_measures(f"{dataset}: likeness", measures, as_json)
    say_notes(notes)


def fusion_command(
    dataset: DatasetArgument,
    model: ModelsOption = None,
    method: MethodOption = USUAL,
    group_by: GroupOption = "slide",
    steps: Annotated[int, typer.Option(min=2, help="Models of the largest fusion.")] = 4,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Add models one by one to the best, side by side, while validation says that it gains.

    The test set says afterwards what each step gained, paired, slides (or cases) left out; the mean
    of the same models' log-odds stands beside it, and parameters and size of vectors as the cost.
    `probes run --model A+B` and `--model mean-logit:A+B` make single ones.

    Example: probes fusion midog --group-by case
    """
    from embedstore.store import Store
    from probes.studies.fusion import fusion

    with progress_bar("fitting", "fusions") as on_progress:
        measures, notes = fusion(
            Store.open(store, write=True),
            dataset,
            models=model,
            method=method,
            group_by=group_by,
            steps=steps,
            on_progress=on_progress,
        )
    print_measures(f"{dataset}: fusion", measures, as_json)
    say_notes(notes)


def shots_command(
    dataset: DatasetArgument,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            "--shots", min=1, help="Size of support sets; repeatable; default: 1 2 4 8 16 32."
        ),
    ] = None,
    unit: Annotated[
        str,
        typer.Option(help="cell: that many a class; slide, case: that many, with all their cells."),
    ] = "cell",
    sets: Annotated[int, typer.Option(min=10, help="Support sets of each size.")] = 100,
    method: Annotated[str, typer.Option(help="The probe: prototype or uni.")] = "prototype",
    group_by: GroupOption = "slide",
    model: ModelsOption = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Tell how many labels it takes: probes on a few cells a class, or on a few slides.

    Many support sets are drawn from the training side of grouped folds; their spread (sd_draws) is
    the variance of training, the interval that of the test slides. Of runs recorded at several
    fractions of the same split (probes run --fraction, e2e run --fraction) the curves by cells,
    slides and cases are measured too, and where an end-to-end network draws level with a probe.

    Example: probes shots midog --shots 4 --shots 16 --sets 1000
    """
    from embedstore.store import Store
    from probes.studies.shots import SHOTS
    from probes.studies.shots import shots as measure

    with progress_bar("measuring", "models") as on_progress:
        measures, notes = measure(
            Store.open(store, write=True),
            dataset,
            models=model,
            method=method,
            unit=unit,
            sizes=tuple(dict.fromkeys(shots or SHOTS)),
            n_sets=sets,
            group_by=group_by,
            on_progress=on_progress,
        )
    print_measures(f"{dataset}: {method} on few {unit}s", measures, as_json)
    say_notes(notes)


def reproduce_command(
    name: Annotated[str, typer.Argument(help="A published protocol, of those above.")],
    model: ModelsOption = None,
    dataset: Annotated[
        str | None, typer.Option(help="What its dataset is called here; default: its public name.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="Print every published number, not only the nearest.")
    ] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Do what a publication did, with its splits and metrics, and tell how far from its numbers.

    ami-br: atypical mitotic figures, linear probes, LoRA and end-to-end networks (Banerjee et al.,
    MELBA 2026); midog2025-t2: the challenge's training set; paper-midog, paper-ccmct: Ganz et al.
    2025. Mean and SD are over folds, intervals leave slides or cases out. Drift, of the same model
    alone: the difference is more than two of both SDs. What is done otherwise here is said; the
    published numbers come with it, no network is asked. Recorded (view measures).

    Example: probes reproduce ami-br --model uni
    """
    from embedstore.store import Store
    from probes.recipes import recipe_of
    from probes.studies.reproduce import reproduce

    recipe = recipe_of(name)
    with progress_bar("fitting", "steps") as on_progress:
        done = reproduce(
            Store.open(store, write=True),
            name,
            models=model,
            dataset=dataset,
            on_progress=on_progress,
        )
    print_beside(done.measures, every=every, as_json=as_json)
    say(f"{name}: {recipe.about}")
    say(f"published: {recipe.citation}")
    say(f"manifest{'s' * (len(done.manifests) > 1)} {', '.join(done.manifests)}")
    say_notes(done.notes)
