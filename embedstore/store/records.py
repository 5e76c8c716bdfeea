"""Rows of tables and views as records: a dataclass says which columns are read, and their types."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa

from embedstore.store.sql import Params, fetch_rows

Record = TypeVar("Record")

OF_VECTOR = "vector"
"""The source_id of a cell that is known by its vector alone: there is no image of it."""


def fetch_records(
    con: Any, record: type[Record], query: str, params: Params | None = None
) -> list[Record]:
    """Return a row each of `query`, which begins with `from`, read into a dataclass.

    The columns read are those that the dataclass has as fields. EmbedstoreError as for `fetch`.
    """
    columns = ", ".join(f.name for f in fields(record))  # type: ignore[arg-type]
    return [record(**row) for row in fetch_rows(con, f"select {columns} {query}", params)]


def shared(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """Return a column's values as Python objects, of which equal ones are one: a pointer a row."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    encoded = column.dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    values = [*encoded.dictionary.to_pylist(), None]
    codes = encoded.indices.fill_null(len(values) - 1).to_pylist()
    return [values[code] for code in codes]


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A dataset as registered: a row of the view `datasets`."""

    dataset: str
    positive_label: str | None
    n_annotations: int
    source: str | None
    created_at: datetime
    mpp: float | None
    classes: str | None
    notes: Sequence[str] | None


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model as recorded when it first embedded anything: a row of the view `models`.

    mean and std are of channels, for pixels in 0..1; parity is the largest difference from the
    reference when its weights were checked. What is not known of imported vectors is None.
    """

    model: str
    arch: str
    dim: int
    pooling: str
    dtype: str | None
    patch_px: int | None
    mpp_out: float | None
    n_params: int | None
    weights: str | None
    weights_sha256: str | None
    timm_version: str | None
    created_at: datetime
    mean: Sequence[float] | None
    std: Sequence[float] | None
    registry_name: str | None
    parity: float | None
    torch_version: str | None
