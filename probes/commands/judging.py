"""The commands that judge what is recorded: compare, predict, verify, report."""

from typing import Annotated

import typer

from embedstore.files.at_hand import as_delivered, delivered
from embedstore.files.output import write_out
from embedstore.files.targets import folder_target
from embedstore.terminal.options import (
    PLACE,
    JsonOption,
    OutputOptions,
    OverwriteOption,
    StoreOption,
)
from embedstore.terminal.printing import print_arrow, print_json, print_table, say, say_notes
from embedstore.terminal.progress import progress_bar
from probes.commands.options import ManifestOptions
from probes.scores.metrics import METRICS


def compare_command(
    dataset: Annotated[str, typer.Argument(help="A dataset with recorded runs.")],
    cut: ManifestOptions,
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
    fraction: Annotated[
        list[float] | None, typer.Option(help="Only these fractions; repeatable.")
    ] = None,
    metric: Annotated[str, typer.Option(help=f"What is compared: {', '.join(METRICS)}.")] = "auroc",
    by_fold: Annotated[bool, typer.Option("--by-fold", help="Show single folds as well.")] = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Test whether two methods differ, on the same test annotations.

    Over folds: the mean difference, slides (or cases, as the manifest groups) left out one at
    a time, jointly; p-values corrected by Holm for the number of rows. By fold: DeLong's test as
    well, which takes annotations as independent. groups_needed: how many slides (or cases) would
    find a difference as large, were it true, in 80 of 100 studies. What is found over folds is
    recorded (view comparisons), and shown by `probes report`.

    Example: probes compare midog --a uni:uni --b uni:virchow2 --metric average_precision
    """
    from embedstore.store import Store
    from probes.scores.comparisons import CompareOptions
    from probes.scores.sides import Side
    from probes.studies.compare import compare

    spec = cut.spec(dataset)
    options = CompareOptions(fractions=fraction, metric=metric)
    first = None if a is None else Side.parse(a)
    sides = [Side.parse(text) for text in dict.fromkeys(b or ())]
    opened = Store.open(store, write=True)
    with progress_bar("comparing", "pairs") as on_progress:
        rows, notes = compare(opened, spec, first, sides, options, on_progress)
    if as_json:
        print_json(rows)
    else:
        shown = [r for r in rows if by_fold or r["fold"] is None]
        hidden = (
            {"metric"}
            | {k for k in ("manifest_id",) if len({r[k] for r in shown}) == 1}
            | {k for k in ("train_domain", "fold", "p_delong") if all(r[k] is None for r in shown)}
        )
        columns = [k for k in rows[0] if k not in hidden]
        print_table(f"{dataset}: difference in {metric}", shown, columns)
    say_notes(notes)


def verify_command(
    run_id: Annotated[str, typer.Argument(help="A recorded run.")],
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Derive a recorded result again, from stored vectors, manifest and code; say what differs.

    The manifest is cut again, the probe fitted and the test set scored again; of a network trained
    end to end the metrics are derived from its predictions. Ends with 1 where anything differs.

    Example: probes verify RUN_ID
    """
    from dataclasses import asdict

    from embedstore.store import Store
    from probes.studies.verify import verify

    checks = verify(Store.open(store), run_id)
    rows = [asdict(c) for c in checks]
    if as_json:
        print_json(rows)
    else:
        shown = [{**r, "same": "yes" if r["same"] else "NO"} for r in rows]
        print_table(f"run {run_id}", shown)
    wrong = [c.check for c in checks if not c.same]
    say(
        f"{len(wrong)} of {len(checks)} checks differ: {', '.join(wrong[:8])}"
        if wrong
        else f"all {len(checks)} checks are the same"
    )
    if wrong:
        raise typer.Exit(1)


def predict_command(
    run_id: Annotated[str, typer.Argument(help="A recorded run of a linear probe.")],
    dataset: Annotated[str, typer.Argument(help="Any dataset that its model has embedded.")],
    printed: OutputOptions,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Score a dataset with a recorded probe: annotation_id, label, score (its probability).

    Example: probes predict RUN_ID midog --output scores.csv
    """
    from embedstore.store import Store
    from probes.runs.predict import predict

    printed.place()
    scores = predict(Store.open(store), run_id, dataset)
    print_arrow(scores, printed, as_json)


def report_command(
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar=PLACE, help="Folder of the page, figures and tables."
        ),
    ],
    dataset: Annotated[
        list[str] | None, typer.Argument(help="Which datasets; default: all of the store.")
    ] = None,
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write what is recorded as a page, with every figure as SVG and PNG and every table as files.

    The page (index.html) needs no network: learning curves, in and out of domain, the paper's
    numbers beside yours, the leakage audit, calibration, the worst mistakes with their patches, a
    map of the embeddings, and the commands that repeat it. Nothing is fitted: what is missing is
    named with the command that fills it.

    Example: probes report midog --output report
    """
    from embedstore.store import Store
    from probes.reports import ABOUT, report

    to = folder_target(output, own=ABOUT, overwrite=overwrite)
    with delivered(to) as folder, progress_bar("reporting", "sections") as on_progress:
        rows = report(Store.open(store), dataset or [], folder, on_progress)
    rows = as_delivered(rows, folder, output)
    if as_json:
        print_json(rows)
    else:
        write_out(None, lambda sink: sink.write(f"{rows[0]['file']}\n".encode()))
    n = {k: sum(r["kind"] == k for r in rows) for k in ("figure", "table")}
    say(f"{rows[0]['title']}: {n['figure']} files of figures and {n['table']} of tables beside it")
