"""The verb `import`: embeddings in from a file, if all of it is well."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.embeddings.identity import check_model_name, recorded_models
from embedstore.embeddings.writer import bind_name, embeddings_table
from embedstore.errors import EmbedstoreError
from embedstore.exchange.checks import (
    ANOTHER,
    already_there,
    check_width,
    identity_of,
    match_ids,
    some,
)
from embedstore.exchange.h5 import SUFFIXES
from embedstore.exchange.tiles import TileOptions, read_tiles
from embedstore.exchange.vector_files import FORMATS, ID, VectorFile
from embedstore.store import Store
from embedstore.store.clock import later
from embedstore.store.layout import model_table
from embedstore.store.sql import check_dataset, connect, fetch_rows, identifier, literal, stale
from embedstore.store.tidy import compact

Annotations = Mapping[str, Mapping[str, Any]]
"""A dataset's annotations, as the view has them, by id."""
READ_ROWS, WRITE_ROWS = 4096, 1024
"""Rows read together, and written in one atomic step."""


@dataclass(frozen=True)
class ImportReport:
    """What an import did.

    n_before were there already, with the same vectors; n_left_out have a problem; n_lacking are
    the dataset's annotations without one that the file does not have; dtype is that of the file.
    """

    dataset: str
    model: str
    weights: str
    dim: int
    dtype: str
    n_imported: int
    n_before: int
    n_left_out: int
    n_lacking: int
    notes: list[str]

    def row(self) -> dict[str, Any]:
        """Return it as the command prints it."""
        return {
            "dataset": self.dataset,
            "model": self.model,
            "weights": self.weights,
            "dim": self.dim,
            "imported": self.n_imported,
            "there_before": self.n_before,
            "left_out": self.n_left_out,
            "not_in_file": self.n_lacking,
        }

    def said(self) -> list[str]:
        """Return what is to be said beside that row."""
        said = list(self.notes)
        if self.dtype != "float32":
            said.append(f"the file holds {self.dtype}, stored as float32")
        if self.n_left_out:
            said.append(
                f"{self.n_left_out:,} annotations have a problem and are left out (`embedstore "
                f"status {self.dataset}` shows which)"
            )
        if self.n_lacking:
            only = f"annotation_id in (select annotation_id from {identifier(self.model)})"
            said.append(
                f"{self.n_lacking:,} annotations of {self.dataset} are not in the file; probes go "
                f"on without them with --where '{only}'"
            )
        return said


def import_embeddings(
    store: Store,
    dataset: str,
    model: str,
    path: Path,
    options: TileOptions | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportReport:
    """Store a file's embeddings under a model's name; nothing is written unless all is well.

    path is Parquet or npz, or an h5 file or a folder of them (see tiles.py). Rows that are there
    with the same vector are left alone, so that an import that was killed is completed by the same
    call; one that differs is an error. on_progress counts h5 files read, then rows written.
    """

    def read(annotations: Annotations) -> VectorFile:
        return _read(path, annotations, options or TileOptions(), on_progress)

    return import_vectors(store, dataset, model, path, read, on_progress)


def import_vectors(
    store: Store,
    dataset: str,
    model: str,
    path: Path,
    read: Callable[[Annotations], VectorFile],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ImportReport:
    """Store what `read` makes of a dataset's annotations by id: see `import_embeddings`.

    path is what the vectors came from, for what is said and recorded of them.
    """
    recorded = recorded_models(store)
    con = connect(store)
    check_dataset(store, con, dataset)
    check_model_name(model, recorded, other=ANOTHER)
    sql = f"select * from annotations where dataset = {literal(dataset)}"
    annotations = {r[ID]: r for r in fetch_rows(con, sql)}
    con.close()  # open, it would hold the version it sees from being given back
    file = read(annotations)
    ids, problems = match_ids(file, annotations, dataset)
    problems = [
        f"{len(places_of):,} {what}: {some(places_of)}" for what, places_of in file.faults.items()
    ] + problems
    if file.ids and not file.faults:
        problems += check_width(store, model, file)
    stored: set[str] = set()
    if not problems:
        identity = identity_of(path, file, model, recorded.get(model))
        stored, problems = already_there(store, model, dataset, ids, file)
    usable = {i for i, r in annotations.items() if r["status"] == "ok"}
    if not problems and not usable.intersection(ids):
        problems = [f"every annotation of it has a problem (`embedstore status {dataset}`)"]
    if problems:
        listed = "".join(f"\n- {p}" for p in problems)
        raise EmbedstoreError(f"{path} was not imported, nothing is written:{listed}")
    places = [n for n, i in enumerate(ids) if i in usable]
    new = [n for n in places if ids[n] not in stored]
    if new:
        _write(store, identity, [annotations[ids[n]] for n in new], file.vectors, new, on_progress)
    if model in recorded and recorded[model].weights != identity["weights"]:
        columns = {k: [identity[k]] for k in ("model", "weights")}
        store.update_columns("models", pa.table(columns))
    return ImportReport(
        dataset,
        model,
        identity["weights"],
        file.vectors.shape[1],
        file.dtype,
        len(new),
        len(places) - len(new),
        len(ids) - len(places),
        len(usable.difference(ids)),
        file.notes,
    )


def _read(
    path: Path,
    annotations: Annotations,
    options: TileOptions,
    on_progress: Callable[[int, int], None],
) -> VectorFile:
    if not path.exists():
        raise EmbedstoreError(f"no file or folder of embeddings at {path}")
    is_h5 = path.is_dir() or path.suffix.lower() in SUFFIXES
    options.check(is_h5=is_h5)
    if is_h5:
        return read_tiles(path, annotations.values(), options, on_progress)
    if (form := FORMATS.get(path.suffix.lower())) is None:
        raise EmbedstoreError(
            f"{path}: give a {', '.join((*FORMATS, *SUFFIXES))} file or a folder of h5 files"
        )
    return form.read(path)


def _write(
    store: Store,
    identity: Mapping[str, Any],
    rows: list[Mapping[str, Any]],
    vectors: NDArray[np.float32],
    places: list[int],
    on_progress: Callable[[int, int], None],
) -> None:
    """Store rows, whose vectors lie at these places, batch by batch, each whole or not at all."""
    model = identity["model"]
    bind_name(store, identity, ANOTHER)
    # A vector of what the annotation was before is none, and makes room for this one.
    mine = {r[ID] for r in rows}
    of_old = [i for i in stale(connect(store), model) if i in mine]
    store.delete(model_table(model), ID, of_old)
    at = later(store, model_table(model), column="embedded_at")
    for start in range(0, len(rows), WRITE_ROWS):
        on_progress(start, len(rows))
        part = rows[start : start + WRITE_ROWS]
        of_part = vectors[places[start : start + WRITE_ROWS]]
        table = embeddings_table(model, part, of_part, [None] * len(part), at)
        store.merge(model_table(model), table, replace=False)
    on_progress(len(rows), len(rows))
    compact(store, model_table(model))
