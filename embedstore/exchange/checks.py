"""What an imported file must be: of known annotations, of one width, of the model it names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.embeddings.identity import IDENTITY, IMPORTED, check_same
from embedstore.errors import EmbedstoreError
from embedstore.exchange.vector_files import ID, VectorFile
from embedstore.store import Store, now
from embedstore.store.layout import TABLES, model_table
from embedstore.store.records import ModelRow
from embedstore.store.sql import connect, literal, stale

ANOTHER = "another --model NAME"
"""What the messages point to where a model's name stands for something else."""

_READ_ROWS = 4096


def some(names: Sequence[str]) -> str:
    """Return the first three names, as text."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


def match_ids(
    file: VectorFile, annotations: Mapping[str, Mapping[str, Any]], dataset: str
) -> tuple[list[str], list[str]]:
    """Return this dataset's id of each row of the file, and what is wrong with them.

    known are the dataset's annotations by id. The file's ids count as they are, or, where all rows
    allow it, with this dataset's name instead of theirs.
    """
    if not file.ids:
        return [], ["it holds no embeddings"]
    ids = file.ids
    if any(i not in annotations for i in ids):
        renamed = [f"{dataset}/{i.partition('/')[2]}" for i in ids]
        ids = renamed if all(i in annotations for i in renamed) else ids
    problems = []
    if unknown := [i for i in ids if i not in annotations]:
        problems.append(
            f"{len(unknown):,} of {len(ids):,} ids are not of dataset '{dataset}': "
            f"{some(unknown)}; here an id looks like "
            f"{min(annotations, default='none, it is empty')}"
        )
    if repeated := [i for i, n in Counter(ids).items() if n > 1]:
        problems.append(f"{len(repeated):,} annotations come more than once: {some(repeated)}")
    if file.centres is not None and not unknown:
        here = np.array([(annotations[i]["x_l0"], annotations[i]["y_l0"]) for i in ids])
        # A centre that the file does not know (NaN) contradicts nothing.
        elsewhere = (np.abs(here - file.centres) > 1e-3).any(axis=1)
        if elsewhere.any():
            where = [ids[n] for n in np.flatnonzero(elsewhere)]
            problems.append(
                f"{len(where):,} annotations lie elsewhere (x_l0, y_l0) than in this store, so "
                f"their embeddings are of other pixels: {some(where)}"
            )
    return ids, problems


def check_width(store: Store, model: str, file: VectorFile) -> list[str]:
    """Return what is wrong with the width of a file's vectors: that of the table, of its record."""
    dim = file.vectors.shape[1]
    problems = []
    if model in store.models():
        width = store.lance(model_table(model)).schema.field("vector").type.list_size
        if width != dim:
            problems.append(
                f"vectors are {dim} wide, those of model '{model}' {width}: import them under "
                f"{ANOTHER}"
            )
    if file.model is not None and file.model.get("dim") != dim:
        problems.append(f"vectors are {dim} wide, but the file says dim {file.model.get('dim')}")
    return problems


def identity_of(
    path: Path, file: VectorFile, model: str, record: ModelRow | None
) -> dict[str, Any]:
    """Return the row of the models table for a file's embeddings under a model's name.

    It is the row the file was exported with, or one that says imported. Where the name is recorded
    already (record), what it stands for must be the same: else EmbedstoreError.
    """
    columns = TABLES["models"].names
    row: dict[str, Any] = dict.fromkeys(columns)
    if file.model is not None:
        if lost := [k for k in (*IDENTITY, "weights") if k not in file.model]:
            raise EmbedstoreError(f"{path}: the record of its model lacks {', '.join(lost)}")
        row |= {k: v for k, v in file.model.items() if k in columns}
    elif record is not None and record.arch != IMPORTED:
        raise EmbedstoreError(
            f"{path} does not say what made its embeddings, so they cannot join those of model "
            f"'{model}' ({record.arch}, {record.weights}); import them under {ANOTHER}"
        )
    else:
        row |= dict.fromkeys(("arch", "pooling"), IMPORTED)
        row |= {"dim": file.vectors.shape[1], "dtype": "float32"}
        row["weights"] = f"{IMPORTED}: {path.resolve().name}"
    row["model"] = model
    try:
        created_at = row["created_at"]
        row["created_at"] = datetime.fromisoformat(created_at) if created_at is not None else now()
        pa.Table.from_pylist([row], schema=TABLES["models"])
    except (pa.ArrowException, TypeError, ValueError) as e:
        raise EmbedstoreError(f"{path}: the record of its model cannot be stored: {e}") from e
    if record is None:
        return row
    check_same(model, record, {k: row[k] for k in IDENTITY}, other=ANOTHER)
    if file.model is not None or record.weights == row["weights"]:
        return asdict(record)
    # One more file under a name: the first is named, that there are others is said.
    return asdict(record) | {"weights": (record.weights or "").removesuffix(", ...") + ", ..."}


def already_there(
    store: Store, model: str, dataset: str, ids: Sequence[str], file: VectorFile
) -> tuple[set[str], list[str]]:
    """Return which ids the model's table has already, and what is wrong where a vector differs."""
    if model not in store.models():
        return set(), []
    of_old = set(stale(connect(store), model))
    place = {i: n for n, i in enumerate(ids) if i not in of_old}
    same, differ = set(), []
    scanner = store.lance(model_table(model)).scanner(
        columns=[ID, "vector"], filter=f"dataset = {literal(dataset)}", batch_size=_READ_ROWS
    )
    for batch in scanner.to_batches():
        column = batch.column("vector")
        stored = column.flatten().to_numpy(zero_copy_only=True).reshape(len(batch), -1)
        for i, vector in zip(batch.column(ID).to_pylist(), stored, strict=True):
            if i in place:
                same.add(i)
                if not np.array_equal(vector, file.vectors[place[i]]):
                    differ.append(i)
    if not differ:
        return same, []
    return same, [
        f"{len(differ):,} annotations have another embedding of '{model}' already: "
        f"{some(differ)}; nothing is overwritten, import under {ANOTHER}"
    ]
