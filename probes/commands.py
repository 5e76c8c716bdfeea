"""The commands of `probes`."""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from embedstore.files.output import write_out
from embedstore.terminal.options import SETTINGS, JsonOption, SqlFormat, StoreOption, numbers
from embedstore.terminal.printing import print_arrow, print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar

SCHEME_HELP = (
    "monte-carlo, cross-domain, leave-one-domain-out, or predefined: the dataset's own split."
)


MATCHED_HELP = "With cross-domain: train every domain at the smallest one's size."


class ManifestAction(StrEnum):
    """What `probes manifest` does."""

    export = "export"
    import_ = "import"


def split_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset.")],
    scheme: Annotated[str, typer.Option(help=SCHEME_HELP)] = "monte-carlo",
    folds: Annotated[int, typer.Option(min=1, help="How many folds.")] = 5,
    fractions: Annotated[
        str | None, typer.Option(help="Comma-separated, in (0, 1]; default 0.001,0.01,0.1,1.")
    ] = None,
    group_by: Annotated[
        str, typer.Option(help="annotation, slide or case: what stays on one side.")
    ] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=MATCHED_HELP)] = False,
    where: Annotated[
        str | None, typer.Option(help="SQL condition on the annotations view.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of all draws.")] = 42,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write the split manifest; print its sizes and what leaks from train to test."""
    from embedstore.store import Store
    from probes.splits.manifests import candidates, ensure_splits
    from probes.splits.spec import ManifestSpec

    scheme = scheme_name(scheme, size_matched)
    spec = ManifestSpec(dataset, scheme, group_by, stratify, where, seed)
    opened = Store.open(store)
    found = candidates(opened, spec)
    splits, notes = ensure_splits(
        opened, found, folds=range(folds), fractions=numbers(fractions, "--fractions")
    )
    opened.compact("splits")
    rows = [s.row for s in splits]
    if as_json:
        print_json(rows)
    else:
        print_splits(f"manifest {found.manifest_id}: {dataset}, {scheme}, by {group_by}", rows)
    if found.n_left_out:
        say(f"{found.n_left_out} annotations with a problem are in no split")
    say_notes(notes)
    say_leakage(rows)


def run_command(
    dataset: Annotated[str, typer.Argument(help="A registered dataset with embeddings.")],
    model: Annotated[list[str] | None, typer.Option(help="Repeatable; default: all.")] = None,
    scheme: Annotated[str, typer.Option(help=SCHEME_HELP)] = "monte-carlo",
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
    size_matched: Annotated[bool, typer.Option("--size-matched", help=MATCHED_HELP)] = False,
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
    from probes.splits.spec import ManifestSpec

    scheme = scheme_name(scheme, size_matched)
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
    with progress_bar("fitting", "fits") as on_progress:
        report = run(Store.open(store), spec, options, on_progress)
    print_runs(report, f"{dataset}, {scheme}, by {group_by}", "fits done", as_json)


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
    scheme: Annotated[str, typer.Option(help=SCHEME_HELP)] = "monte-carlo",
    fraction: Annotated[
        list[float] | None, typer.Option(help="Only these fractions; repeatable.")
    ] = None,
    group_by: Annotated[str, typer.Option(help="annotation, slide or case.")] = "annotation",
    stratify: Annotated[str, typer.Option(help="none or label.")] = "none",
    size_matched: Annotated[bool, typer.Option("--size-matched", help=MATCHED_HELP)] = False,
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
    from probes.compare import CompareOptions, compare
    from probes.scores.sides import Side
    from probes.splits.spec import ManifestSpec

    scheme = scheme_name(scheme, size_matched)
    spec = ManifestSpec(dataset, scheme, group_by, stratify, where, seed)
    options = CompareOptions(fractions=fraction, metric=metric)
    first = None if a is None else Side.parse(a)
    sides = [Side.parse(text) for text in dict.fromkeys(b or ())]
    with progress_bar("comparing", "pairs") as on_progress:
        rows, notes = compare(Store.open(store), spec, first, sides, options, on_progress)
    if as_json:
        print_json(rows)
    else:
        shown = [r for r in rows if by_fold or r["fold"] is None]
        hidden = {"metric", "manifest_id"} | {
            k for k in ("train_domain", "fold", "p_delong") if all(r[k] is None for r in shown)
        }
        columns = [k for k in rows[0] if k not in hidden]
        print_table(f"{dataset}: difference in {metric}", shown, columns)
    say_notes(notes)


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

    print_arrow(predict(Store.open(store), run_id, dataset), format, output, as_json)


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

    with progress_bar("reporting", "sections") as on_progress:
        rows = report(Store.open(store), dataset or [], output, on_progress)
    if as_json:
        print_json(rows)
    else:
        write_out(None, lambda sink: sink.write(f"{rows[0]['file']}\n".encode()))
    n = {k: sum(r["kind"] == k for r in rows) for k in ("figure", "table")}
    say(f"{rows[0]['title']}: {n['figure']} files of figures and {n['table']} of tables beside it")


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
        print_arrow(table, SqlFormat.table, file, as_json=False)
        say(f"{len(table):,} rows of manifest {what} written to {file}")
        return
    rows, manifest_id = import_manifest(opened, what, file)
    shown = [{k: v for k, v in r.items() if k not in ("train", "val", "test")} for r in rows]
    if as_json:
        print_json(shown)
    else:
        print_splits(f"manifest {manifest_id}: {what}, imported from {file.name}", shown)
    say_leakage(shown)


def say_leakage(rows: Sequence[Mapping[str, Any]]) -> None:
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
    say(f"leakage at fraction {largest:g}: of the test annotations {', '.join(parts)}")


def print_splits(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the sizes of splits, folds of one fraction and train domain in one row."""
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
    print_table(title, shown)


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} - {high:,}"


def print_runs(report: Any, what: str, done: str, as_json: bool) -> None:
    """Print what `probes run` or `e2e run` reports; done says what its new runs are."""
    from probes.scores.results import summarise

    if as_json:
        print_json(report.rows)
    else:
        title = f"AUROC: {what} (manifest {report.manifest_id})"
        _print_summary(title, [vars(s) for s in summarise(report.rows)])
    say(f"{report.n_new} {done}, {report.n_recorded} recorded before")
    say_notes(report.notes)
    say_leakage([s.row for s in report.splits])


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
    print_table(title, shown)


def scheme_name(scheme: str, size_matched: bool) -> str:
    """Return the scheme, its size-matched form where that is asked for."""
    if size_matched and scheme != "cross-domain":
        raise typer.BadParameter("goes with --scheme cross-domain", param_hint="--size-matched")
    return f"{scheme}-size-matched" if size_matched else scheme


probes_app = typer.Typer(
    name="probes", help="Linear probes on any slice of the embeddings.", **SETTINGS
)
COMMANDS: dict[str, Callable[..., None]] = {
    "split": split_command,
    "run": run_command,
    "compare": compare_command,
    "predict": predict_command,
    "report": report_command,
    "manifest": manifest_command,
}
for _name, _command in COMMANDS.items():
    probes_app.command(_name)(_command)
