"""Which row of a table of cells each vector is of: by an id that both have, or row by row."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.annotations.columns import Table
from embedstore.annotations.source import (
    AnnotationFile,
    SourceAnnotation,
    SourceSlide,
    check_splits,
    note_count,
    split_of,
)
from embedstore.errors import EmbedstoreError
from embedstore.exchange.loose import LooseVectors
from embedstore.exchange.narrow import narrow, notes_on
from embedstore.exchange.vector_files import VectorFile
from embedstore.store.records import OF_VECTOR


@dataclass(frozen=True)
class Pairing:
    """What is taken for the same cell: its id, row of the vectors, and row of the table."""

    ids: list[str]
    of_vectors: NDArray[np.int64]
    of_table: NDArray[np.int64]
    notes: list[str]


def pair(
    loose: LooseVectors, table: Table, by: str | None = None, *, in_order: bool = False
) -> Pairing:
    """Return which vector is of which row of the table.

    by: the column that names cells in both, or VECTORS_COLUMN=TABLE_COLUMN; None: the columns whose
    values agree, all of one side's, or half in columns of one name that hold no numbers. in_order:
    the first vector is of the first row, and so on; by is then a column of the table. What is
    chosen is in the notes; EmbedstoreError where nothing, or more than one thing, may be meant.
    """
    if in_order:
        n = len(table.rows)
        if n != len(loose.vectors):
            raise EmbedstoreError(
                f"--in-order: {loose.name} has {len(loose.vectors):,} vectors, {table.path.name} "
                f"{n:,} rows; they must be as many, or have an id that --id names"
            )
        ids, said = _names(table, by)
        notes = [f"vectors and rows are paired in order, {said}"]
        return Pairing(ids, np.arange(n), np.arange(n), notes)
    mine, theirs = _chosen(loose, table, by) if by is not None else _found(loose, table)
    return _joined(loose, table, mine, theirs)


def own_rows(loose: LooseVectors, table: Table, by: str | None = None) -> Pairing:
    """Return the pairing of vectors with the columns beside them, table.

    Cells are known by the column `by`, by one called annotation_id or id, or by their number.
    """
    ids, said = _names(table, by)
    return Pairing(ids, np.arange(len(ids)), np.arange(len(ids)), [said])


def _names(table: Table, by: str | None) -> tuple[list[str], str]:
    """Return what the cells of a table are known by, and that in words.

    The column `by`; else annotation_id, id or the first one that names each cell once and holds no
    decimal number; else their place in the table.
    """
    if by is not None and by not in table.columns:
        raise EmbedstoreError(
            f"--id: {table.path.name} has no column '{by}'; it has: {', '.join(table.columns)}"
        )
    usual = [c for c in ("annotation_id", "id") if c in table.columns]
    for column in [by] if by is not None else [*usual, *table.columns]:
        values = [str(row.get(column) or "") for row in table.rows]
        if by is not None or _names_each(values):
            return _once(values, table.path.name, column), f"cells are known by {column}"
    n = len(table.rows)
    numbers = [f"{k + 1:0{len(str(n))}d}" for k in range(n)]
    return numbers, "cells are known by their place in the table"


def _names_each(values: Sequence[str]) -> bool:
    is_decimal = any(re.fullmatch(r"[+-]?\d*\.\d+([eE][+-]?\d+)?", v.strip()) for v in values)
    return "" not in values and len(set(values)) == len(values) and not is_decimal


def _once(values: Sequence[str], where: str, column: str) -> list[str]:
    """Return ids; EmbedstoreError where one is empty or there twice."""
    if "" in values:
        raise EmbedstoreError(f"{where}: row {values.index('') + 1} has no '{column}'")
    counts = Counter(values)
    if len(counts) < len(values):
        twice = next(v for v in values if counts[v] > 1)
        raise EmbedstoreError(
            f"{where}: '{column}' names '{twice}' more than once; an id is of one cell"
        )
    return list(values)


def _chosen(loose: LooseVectors, table: Table, by: str) -> tuple[str, str]:
    mine, equals, theirs = by.partition("=")
    theirs = theirs if equals else mine
    for column, there, where in (
        (mine, list(loose.texts), loose.name),
        (theirs, table.columns, table.path.name),
    ):
        if column not in there:
            raise EmbedstoreError(
                f"--id: {where} has no column '{column}'; it has: {', '.join(there) or 'none'}"
            )
    return mine, theirs


def _found(loose: LooseVectors, table: Table) -> tuple[str, str]:
    """Return the columns of both that name the same cells, each cell once."""
    n_shared: dict[tuple[str, str], int] = {}
    once = {c: set(v) for c, v in loose.texts.items() if len(set(v)) == len(v)}
    for theirs in table.columns:
        values = [str(row.get(theirs) or "") for row in table.rows]
        distinct = set(values)
        if len(distinct) < len(values):
            continue
        for mine, known in once.items():
            if shared := len(known & distinct):
                n_shared[mine, theirs] = shared
    most = max(n_shared.values(), default=0)
    best = [pair for pair, n in n_shared.items() if n == most]
    same_name = [p for p in best if p[0] == p[1]]
    if len(best) > 1 and len(same_name) == 1:
        best = same_name
    if len(best) == 1:
        (mine, theirs), n_vectors, n_rows = best[0], len(loose.vectors), len(table.rows)
        least = min(n_vectors, n_rows)
        # One name in both is evidence of its own, but not of numbers: rows counted from 0 and from
        # 1 agree in all but one. Else one side has all of the other's.
        are_numbers = all(v.strip().isdigit() for v in loose.texts[mine])
        if most < least and (mine != theirs or are_numbers or 2 * most < least):
            raise EmbedstoreError(
                f"'{mine}' of {loose.name} and '{theirs}' of {table.path.name} agree in {most:,}, "
                f"of {n_vectors:,} vectors and {n_rows:,} rows. Say --id {mine}={theirs} if those "
                "alone are meant, else which columns name the cells"
            )
        return mine, theirs
    here, there = ", ".join(loose.texts) or "none", ", ".join(table.columns)
    if best:
        raise EmbedstoreError(
            f"several columns may name the cells: {', '.join('='.join(p) for p in best[:4])}; say "
            "which with --id VECTORS_COLUMN=LABELS_COLUMN"
        )
    raise EmbedstoreError(
        f"nothing names the cell of each vector: no column of {loose.name} ({here}) has the values "
        f"of one of {table.path.name} ({there}), each once. Say --id VECTORS_COLUMN=LABELS_COLUMN, "
        "or --in-order if the first vector is of the first row, and so on"
    )


def _joined(loose: LooseVectors, table: Table, mine: str, theirs: str) -> Pairing:
    names = _once(loose.texts[mine], loose.name, mine)
    keys = _once([str(row.get(theirs) or "") for row in table.rows], table.path.name, theirs)
    row_of = {key: k for k, key in enumerate(keys)}
    pairs = [(name, k, row_of[name]) for k, name in enumerate(names) if name in row_of]
    if not pairs:
        raise EmbedstoreError(
            f"no '{mine}' of {loose.name} ({names[0]}, ...) is a '{theirs}' of {table.path.name} "
            f"({keys[0]}, ...)"
        )
    said = mine if mine == theirs else f"{mine} of the vectors is {theirs} of the labels"
    notes = [f"cells are known by {said}"]
    note_count(notes, len(names) - len(pairs), "vectors have no row of labels and were")
    note_count(notes, len(keys) - len(pairs), "rows of labels have no vector and were")
    ids, of_vectors, of_table = zip(*pairs, strict=True)
    return Pairing(list(ids), np.array(of_vectors), np.array(of_table), notes)


def cells_of(table: Table, paired: Pairing) -> AnnotationFile:
    """Return the paired rows of a table as annotations, each a cell without a slide to read.

    Columns label (needed), domain, case, slide and split are used, others are attributes.
    """
    if "label" not in table.of:
        raise EmbedstoreError(
            f"{table.path.name} has no column 'label'; say which it is with --column label=NAME. "
            f"It has: {', '.join(table.columns)}"
        )
    rows = [table.rows[k] for k in paired.of_table.tolist()]
    check_splits(table.path, {table.cell(row, "split") for row in rows})
    slides, annotations = {}, []
    for name, row, k in zip(paired.ids, rows, paired.of_table.tolist(), strict=True):
        label = table.cell(row, "label")
        if not label.strip():
            raise EmbedstoreError(f"{table.path.name} row {k + 1} has no label; fill or drop it")
        attributes = table.attributes(row)
        split, votes = split_of(table.cell(row, "split")), table.declared.votes(attributes)
        annotations.append(
            SourceAnnotation(name, OF_VECTOR, None, None, label, attributes, votes, split)
        )
        of_cell = {k: v for k, v in attributes.items() if k not in table.of_points()}
        if slide := table.cell(row, "slide"):
            of_cell["slide"] = slide
        slides[name] = SourceSlide(name, attributes=of_cell)
    case = table.of.get("case", "slide" if "slide" in table.of else None)
    return AnnotationFile(
        table.path,
        "vectors",
        slides,
        annotations,
        table.of.get("domain"),
        case,
        list(paired.notes),
        "patch",
    )


def vector_file(loose: LooseVectors, paired: Pairing, ids: Sequence[str]) -> VectorFile:
    """Return the paired vectors as float32 under ids of annotations; what is wrong is in faults."""
    faults: dict[str, list[str]] = {}
    small: list[str] = []
    chosen = np.ascontiguousarray(loose.vectors[paired.of_vectors])
    values = chosen if chosen.dtype.kind == "f" else chosen.astype(np.float64)
    vectors = narrow(list(paired.ids), values, faults, small)
    return VectorFile(
        list(ids), vectors, str(loose.vectors.dtype), faults=faults, notes=notes_on(small)
    )
