"""The commands that cut and fit: split, manifest, run."""

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from embedstore.files.at_hand import brought_in
from embedstore.files.objects import place
from embedstore.terminal.options import (
    PLACE,
    EngineOptions,
    JsonOption,
    MaxMemoryOption,
    OutputOptions,
    OverwriteOption,
    StoreOption,
    numbers,
    parse_bytes,
)
from embedstore.terminal.printing import print_arrow, print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar
from probes.commands.options import ManifestOptions, SplitOptions, VectorOptions
from probes.commands.printing import print_runs, print_splits, say_leakage
from probes.methods.table import METHODS, USUAL
from probes.splits.spec import ManifestSpec

if TYPE_CHECKING:  # what this imports is numpy
    from embedstore.store import Store
    from probes.scores.results import RunReport


class ManifestAction(StrEnum):
    """What `probes manifest` does."""

    export = "export"
    import_ = "import"


def split_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset.")],
    cut: ManifestOptions,
    folds: Annotated[int, typer.Option(min=1, help="How many folds.")] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="Comma-separated, in (0, 1]; default 0.001,0.01,0.1,1.")
    ] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write the split manifest; print its sizes and what leaks from train to test.

    Example: probes split midog --scheme cross-domain --group-by case
    """
    from embedstore.store import Store
    from embedstore.store.tidy import compact
    from probes.splits.candidates import candidates
    from probes.splits.copied import copies_seen
    from probes.splits.manifests import ensure_splits

    spec = cut.spec(dataset)
    opened = Store.open(store, write=True)
    manifest = candidates(opened, spec)
    splits, notes = ensure_splits(
        opened, manifest, folds=range(folds), fractions=numbers(fractions, "--fractions")
    )
    compact(opened, "splits")
    rows = [s.row for s in splits]
    if as_json:
        print_json([asdict(r) for r in rows])
    else:
        what = f"{dataset}, {spec.scheme}, by {spec.group_by}"
        print_splits(f"manifest {manifest.manifest_id}: {what}", rows)
    if manifest.n_left_out:
        say(f"{manifest.n_left_out} annotations with a problem are in no split")
    say_notes([*notes, *copies_seen(opened, splits, None)])
    say_leakage(rows)


def run_command(
    context: typer.Context,
    dataset: Annotated[str, typer.Argument(help="A registered dataset with embeddings.")],
    cut: ManifestOptions,
    splits: SplitOptions,
    of: VectorOptions,
    where: EngineOptions,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeatable; default: all. A+B: both side by side; mean-logit:A+B: the mean of "
            "their probes' log-odds."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="; ".join(f"{n}: {m.about}" for n, m in METHODS.items())),
    ] = None,
    eval_dataset: Annotated[
        str | None, typer.Option(help="Score this dataset with the probes trained on the other.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Fit again what is recorded.")] = False,
    max_memory: MaxMemoryOption = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Fit and score probes on a manifest, made if it is missing; recorded runs are skipped.

    Example: probes run midog --fraction 0.1 --fraction 1 --group-by case
    """
    from embedstore.store import Store
    from probes.runs import RunOptions, run, run_on_cluster

    spec = cut.spec(dataset)
    options = RunOptions(
        models=model,
        methods=tuple(dict.fromkeys(method or (USUAL,))),
        splits=splits.asked(context),
        eval_dataset=eval_dataset,
        force=force,
        max_memory=None if max_memory is None else parse_bytes(max_memory),
        **vars(of),
    )
    with progress_bar("fitting", "fits") as on_progress:
        opened = Store.open(store, write=True)
        if (cluster := where.cluster()) is None:
            report = run(opened, spec, options, on_progress)
        else:
            report = run_on_cluster(opened, spec, options, cluster, on_progress, say)
    print_runs(report, "fits done", as_json)
    if of.correct is not None:
        _before_and_after(opened, spec, report, as_json)


def _before_and_after(
    store: "Store", spec: ManifestSpec, report: "RunReport", as_json: bool
) -> None:
    """Compare corrected runs with the same ones without, record that, and print it."""
    from embedstore.errors import EmbedstoreError
    from probes.scores.comparisons import CompareOptions
    from probes.scores.sides import Side
    from probes.studies.compare import compare

    rows = []
    for corrected in dict.fromkeys(Side.of(r) for r in report.rows):
        after = Side(corrected.method, corrected.model, corrected.variant)
        try:
            found, _ = compare(store, spec, after, [corrected.uncorrected], CompareOptions())
        except EmbedstoreError as e:
            say(f"note: no comparison with what was before: {e}")
            return
        rows += [r for r in found if r["fold"] is None]
    if rows and not as_json:
        columns = ("a", "fraction", "eval_domain", "difference", "ci_low", "ci_high", "p_value")
        print_table("corrected less not corrected, AUROC", rows, list(columns))


def manifest_command(
    action: Annotated[ManifestAction, typer.Argument(help="export or import.")],
    what: Annotated[str, typer.Argument(help="export: a manifest id; import: a dataset.")],
    file: Annotated[str, typer.Argument(metavar=PLACE, help="CSV or Parquet file.")],
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Take a manifest out, or bring one in that another tool made or changed.

    A file has annotation_id and role (train, val or test), and fold, fraction and train_domain
    where there are several splits. `probes run DATASET --manifest ID` runs on it.

    Example: probes manifest import midog splits.csv
    """
    from embedstore.store import Store
    from probes.splits.files import import_manifest, manifest_table

    if action is ManifestAction.export:
        printed = OutputOptions(output=file, overwrite=overwrite)
        printed.place()
        table = manifest_table(Store.open(store), what)
        print_arrow(table, printed, as_json=False)
        say(f"{len(table):,} rows of manifest {what} written to {file}")
        return
    with brought_in(place(file)) as path:
        rows, manifest_id = import_manifest(Store.open(store, write=True), what, path)
    if as_json:
        print_json([asdict(r) for r in rows])
    else:
        print_splits(f"manifest {manifest_id}: {what}, imported from {path.name}", rows)
    say_leakage(rows)
