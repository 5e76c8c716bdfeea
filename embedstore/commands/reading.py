"""The commands that read a store: status, models, sql, export."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from embedstore.files.at_hand import delivered
from embedstore.files.targets import target
from embedstore.terminal.options import (
    PLACE,
    JsonOption,
    MaxMemoryOption,
    OutputOptions,
    OverwriteOption,
    StoreOption,
    parse_bytes,
)
from embedstore.terminal.printing import (
    print_arrow,
    print_json,
    print_table,
    say,
    say_notes,
    say_problems,
)
from embedstore.terminal.progress import progress_bar


class ModelsAction(StrEnum):
    """What `embedstore models` does."""

    list = "list"
    check = "check"


def status_command(
    dataset: Annotated[str | None, typer.Argument(help="Only this dataset, in detail.")] = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Show what is embedded, what is missing, what was set aside, and what to do next.

    Example: embedstore status midog
    """
    from embedstore.reading import status
    from embedstore.store import Store

    opened = Store.open(store)
    rows = status.status(opened, dataset)
    if as_json:
        print_json(rows)
        return
    print_table(f"store {store}", [_overview(r) for r in rows])
    if dataset is not None and (tables := [_table(r) for r in rows if r["model"] is not None]):
        print_table(f"{dataset}: tables", tables)
    n, n_bytes = status.patches(opened)
    if n:
        say(f"{n:,} patches kept, {n_bytes / 1e6:,.0f} MB")
    if dataset is not None:
        print_table(f"{dataset}: annotations", status.composition(opened, dataset))
        say_notes(status.notes(opened, dataset))
    for name in dict.fromkeys(r["dataset"] for r in rows):
        say_problems(status.problems(opened, name), name)
    steps = status.next_steps(opened, rows)
    for step in steps[:_STEPS]:
        say(f"next: {step}")
    if len(steps) > _STEPS:
        say(f"and {len(steps) - _STEPS} more")


_STEPS = 3
"""How many next commands are said at once."""


def _overview(r: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a row of `status` fits beside others in 80 columns."""
    return {
        "dataset": r["dataset"],
        "cells": r["n_annotations"],
        "model": r["model"],
        "done": r["done"],
        "missing": r["missing"],
        "set aside": r["set_aside"],
        "MB": round((r.get("n_bytes") or 0) / 1e6, 1),
    }


def _table(r: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a model's table of embeddings."""
    return {
        "model": r["model"],
        "weights": r.get("weights"),
        "sha256": (r.get("weights_sha256") or "")[:12],
        "dim": r.get("dim"),
        "dtype": r.get("dtype"),
        "views": r.get("views"),
        "version": r.get("version"),
        "fragments": r.get("n_fragments"),
    }


def models_command(
    action: Annotated[
        ModelsAction, typer.Argument(help="list them, or check what can be had from here.")
    ] = ModelsAction.list,
    as_json: JsonOption = False,
) -> None:
    """List the models known by name; others go as timm:NAME or hf-hub:OWNER/NAME.

    Example: embedstore models check
    """
    from embedstore.reading.models import available, registered

    if action is ModelsAction.check:
        with progress_bar("asking", "models") as on_progress:
            rows = available(on_progress)
    else:
        rows = registered()
    if as_json:
        print_json(rows)
        return
    if action is ModelsAction.list:
        narrow = ("model", "n_params", "dim", "pooling", "licence", "gated")
        print_table("models", rows, narrow=narrow)
    else:
        print_table("weights from here", rows, narrow=("model", "gated", "weights", "pin"))
    if action is ModelsAction.check:
        say("a local file always serves: --weights MODEL=PATH")


def sql_command(
    query: Annotated[str, typer.Argument(help="One SELECT over the views.")],
    printed: OutputOptions,
    files: Annotated[
        bool,
        typer.Option("--files", help="Let this query read files: read_csv, read_parquet, ... ."),
    ] = False,
    max_memory: MaxMemoryOption = None,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Ask the store in SQL (DuckDB), read only.

    Views: datasets, annotations, slides, patches, models, embeddings, embedding_views, manifests,
    splits, results, predictions, probes, tags, and each model's embeddings under its own name.

    Example: embedstore sql "select domain, label, count(*) from annotations group by all"
    """
    from embedstore.store import Store
    from embedstore.store.asking import stream_sql

    limit = None if max_memory is None else parse_bytes(max_memory)
    printed.place()
    rows = stream_sql(Store.open(store), query, files=files, max_memory=limit)
    print_arrow(rows, printed, as_json)


def export_command(
    dataset: Annotated[str, typer.Argument(help="A dataset with embeddings of the model.")],
    model: Annotated[str, typer.Option(help="Whose embeddings.")],
    output: Annotated[str, typer.Option(metavar=PLACE, help="File to write, .parquet or .npz.")],
    overwrite: OverwriteOption = False,
    store: StoreOption = "./store",
    as_json: JsonOption = False,
) -> None:
    """Write a model's embeddings of a dataset to a file, with what made them.

    One row an annotation, in order of annotation_id: annotation_id, dataset, slide, case_id,
    domain, label, x_l0, y_l0 (centre, level-0 pixels) and vector (float32).

    Example: embedstore export midog --model uni --output uni.parquet
    """
    from embedstore.exchange import export
    from embedstore.store import Store

    to = target(output, overwrite=overwrite)
    with delivered(to) as path, progress_bar("writing", "embeddings") as on_progress:
        r = export(Store.open(store), dataset, model, path, on_progress)
    rows = [r.row(output)]
    if as_json:
        print_json(rows)
    else:
        print_table(f"{dataset}: exported", rows)
