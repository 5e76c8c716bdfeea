"""The verb for own vectors: evaluate."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.annotations.columns import Declared, Table
from embedstore.exchange.loose import LooseVectors, of_table, texts_of
from embedstore.files.at_hand import brought_in
from embedstore.python.asked import place_of
from embedstore.python.handle import Store
from embedstore.python.progress import progress
from embedstore.python.rows import DataFrame, Rows, arrow_of
from embedstore.python.vectors import Embeddings
from embedstore.terminal.printing import say
from probes.methods.table import USUAL
from probes.python.studying import measured
from probes.studies.own import OwnOptions, evaluate_own, read_labels, read_vectors, table_of


def evaluate(
    store: Store | str,
    vectors: str | Path | DataFrame | np.ndarray | Embeddings,
    *,
    labels: str | Path | DataFrame | None = None,
    group_by: str | None = None,
    id: str | None = None,
    in_order: bool = False,
    vectors_from: str | None = None,
    column: Mapping[str, str] | None = None,
    label: Mapping[str, str] | None = None,
    positive: str | None = None,
    dataset: str | None = None,
    model: str | None = None,
    method: str = USUAL,
) -> Rows:
    """Tell how good vectors from anywhere are on labelled cells, without a slide.

    vectors: a file, or a DataFrame (numbered columns, or one of lists), whose index names the cells
    where it has a name; an array, which goes with in_order. labels: a file or a DataFrame. Returns
    the measures of `probes.gap`; see `probes evaluate --help`.
    """
    options = OwnOptions(
        dataset=dataset or (None if isinstance(labels, str | Path) else "cells"),
        model=model or (None if isinstance(vectors, str | Path) else "vectors"),
        group_by=group_by,
        method=method,
        id=id,
        in_order=in_order,
        vectors_from=vectors_from,
        declared=Declared(dict(column or {})),
        labels=dict(label or {}),
        positive=positive,
    )
    loose, table = _vectors(vectors, options), _labels(labels, options)
    uri = store.uri if isinstance(store, Store) else str(store)
    with progress("fitting", "steps") as bar:
        report = evaluate_own(uri, loose, table, options, bar)
    rows = measured(f"{report.dataset}: {report.model}", report.measures, report.notes)
    for answer in report.answers:
        say(answer)
    return rows


def _vectors(vectors: Any, options: OwnOptions) -> LooseVectors:
    if isinstance(vectors, str | Path):
        with brought_in(place_of(vectors)) as path:
            return read_vectors(path, options)
    if isinstance(vectors, Embeddings):
        return LooseVectors("vectors", vectors.X, {"annotation_id": [*vectors.cells.index]})
    if isinstance(vectors, DataFrame):
        return of_table("vectors", arrow_of(vectors), options.vectors_from)
    return LooseVectors("vectors", np.asarray(vectors), {})


def _labels(labels: Any, options: OwnOptions) -> Table | None:
    if labels is None:
        return None
    if isinstance(labels, DataFrame):
        # As a file of it would be read: every column is text.
        cells = arrow_of(labels)
        texts = texts_of(cells, cells.column_names)
        return table_of(Path("cells"), texts, options.declared)
    with brought_in(place_of(labels)) as path:
        return read_labels(path, options)
