"""A user's own query: one statement that reads, its rows at once or batch by batch."""

import re
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.store.sql import SqlError, StatementType, connect, fetch, sql_error, unique
from embedstore.store.store import Store

BATCH_ROWS = 20_000
"""Rows of a batch: of vectors of 1,536 numbers, 120 MB."""


def run_sql(store: Store, query: str, *, files: bool = False) -> pa.Table:
    """Return the rows of one read-only statement over the views; with files, it may read files.

    Raises EmbedstoreError for SQL with an error, for several statements and for any that writes.
    """
    con = connect(store, files=files)
    _check(con, query, files=files)
    return fetch(con, query)


def stream_sql(
    store: Store, query: str, *, files: bool = False, max_memory: int | None = None
) -> pa.RecordBatchReader:
    """Return the same rows as a reader of batches, so that no more of them is in memory at once.

    max_memory: bytes that DuckDB may take. What goes wrong on the way is raised as it is read.
    """
    con = connect(store, files=files, max_memory=max_memory)
    _check(con, query, files=files)
    try:
        reader = con.sql(query).to_arrow_reader(BATCH_ROWS)
    except SqlError as e:
        raise sql_error(e, con) from e
    names = unique(reader.schema.names)
    schema = pa.schema([f.with_name(n) for f, n in zip(reader.schema, names, strict=True)])

    def batches() -> Iterator[pa.RecordBatch]:
        while True:
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            except (SqlError, OSError, pa.ArrowException) as e:
                raise sql_error(e, con) from e
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _check(con: Any, query: str, *, files: bool) -> None:
    """Raise EmbedstoreError unless a query is one statement that reads."""
    try:
        statements = con.extract_statements(query)
    except SqlError as e:
        raise sql_error(e, con) from e
    if len(statements) != 1:
        raise EmbedstoreError(f"give one SQL statement, not {len(statements)}")
    kind = statements[0].type
    if kind is StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains, so that must be a reading statement, too.
        inner = re.sub(r"(?is)^\s*explain\s+(analyze\s+)?", "", query, count=1)
        try:
            kind = con.extract_statements(inner)[0].type
        except SqlError as e:
            raise sql_error(e, con) from e
    if kind is not StatementType.SELECT:
        raise EmbedstoreError(
            f"the store is read only in SQL, {kind.name} is not allowed; "
            "write results to a file with --output FILE"
        )
    if files and _writes(con, query):
        raise EmbedstoreError("--files lets SQL read files, not write them; --output FILE does")


def _writes(con: Any, query: str) -> bool:
    """Return whether a statement has a part that writes a file: a COPY may stand in a CTE."""
    if re.match(r"(?i)\s*explain\b", query):
        return "copy" in query.lower()
    try:
        plan = con.execute(f"explain {query}").fetchall()
    except SqlError as e:
        raise sql_error(e, con) from e
    return any(re.search("(?i)copy.to.file", str(text)) for row in plan for text in row)
