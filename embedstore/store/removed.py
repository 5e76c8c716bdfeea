"""Removals in effect: conditions on rows that no view shows any more, until they are deleted.

One row of the table `removals` is a removal: written, it holds for every view (`sql.connect_to`).
Deleting comes after; where that is killed, the next command that writes to the store finishes it.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedstore.files.objects import is_uri, remove_folder
from embedstore.store.layout import REMOVALS, model_table, views_table
from embedstore.store.tidy import give_back, keep_versions

if TYPE_CHECKING:
    from embedstore.store.store import Store

RUNS = "runs"
"""The folder of the store that has one of each run that was trained end to end."""


def either(conditions: Iterable[str]) -> str:
    """Return the condition that any of some holds, false where there are none."""
    return " or ".join(f"({c})" for c in conditions) or "false"


def removed(store: "Store") -> dict[str, list[str]]:
    """Return by table the conditions on rows that are removed, but may not be deleted yet."""
    conditions: dict[str, list[str]] = {}
    for row in _under_way(store):
        for table, of_table in json.loads(row["gone"])["where"].items():
            conditions.setdefault(table, []).extend(of_table)
    return conditions


def _under_way(store: "Store") -> list[Mapping[str, Any]]:
    # A store that is not upgraded, or not made whole yet, has no such table.
    if not store.is_current and not store.has(REMOVALS):
        return []
    if not store.lance(REMOVALS).count_rows():
        return []
    rows: list[Mapping[str, Any]] = store.lance(REMOVALS).to_table().to_pylist()
    return rows


def finish_removals(store: "Store") -> None:
    """Delete for good what was removed, and give back the space it took."""
    for row in _under_way(store):
        gone = json.loads(row["gone"])
        for table, conditions in gone["where"].items():
            if table != "models" and store.has(table):
                for condition in conditions:
                    store.open_table(table).delete(condition)
        for model in gone["models"]:
            _forget(store, model)
        for run in gone["folders"]:
            _delete_folder(store.uri, run)
        for table in gone["where"]:
            if store.has(table):
                keep_versions(store, table, set())  # what is removed is in them
                give_back(store, table)
        store.delete(REMOVALS, "removal_id", [row["removal_id"]])
        give_back(store, REMOVALS)


def _forget(store: "Store", model: str) -> None:
    """Delete a model's record and tables, unless vectors of it have come since."""
    table = model_table(model)
    if store.has(table):
        if store.open_table(table).count_rows():
            return
        store.drop(table)
    if store.has(views_table(model)):
        store.drop(views_table(model))
    store.delete("models", "model", [model])


def _delete_folder(uri: str, run: str) -> None:
    if is_uri(uri):
        remove_folder(f"{uri.rstrip('/')}/{RUNS}/{run}")
    else:
        shutil.rmtree(Path(uri) / RUNS / run, ignore_errors=True)
