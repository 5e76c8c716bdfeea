"""The boundary to DuckDB: SQL views over a store's tables, read only.

Lance tables are scanned in place (projection and simple filters are pushed down); nothing is
copied and no database file is kept.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from embedstore.errors import EmbedstoreError, UsageError, nearest
from embedstore.files.faults import is_of_lance, unanswered
from embedstore.store.layout import (
    CUT,
    TABLES,
    model_schema,
    model_table,
    views_schema,
    views_table,
)
from embedstore.store.removed import either, removed
from embedstore.store.store import Store
from embedstore.store.views import FORMER, VIEWS, valid

UNIONS = ("embeddings", "embedding_views")
"""Views over the tables of all models."""


def connect(
    store: Store, *, files: bool = False, max_memory: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection that sees the store's views, pinned to this moment.

    files: whether its SQL may read files; max_memory: bytes that sorts, joins and groups may take
    before they go to disk. Not to be shared by threads. Each model's table is there
    under its own name, `embeddings` unites them.
    """
    con = connect_to(store, *TABLES, files=files, max_memory=max_memory)
    for view, sql in VIEWS.items():
        con.execute(f"create temp view {view} as {sql}")
    keys = "annotation_id, model, dataset, domain, label, slide"
    gone = removed(store)
    plain = {m: model_table(m) for m in store.models()}
    _unite(con, "embeddings", keys, _tables(store, plain, gone), model_schema(1))
    views = {views_name(m): views_table(m) for m in store.viewed_models()}
    keys = f"view_id, view, {keys}"
    _unite(con, "embedding_views", keys, _tables(store, views, gone), views_schema(1))
    return con


def _tables(
    store: Store, names: Mapping[str, str], gone: Mapping[str, list[str]]
) -> dict[str, tuple[Any, str]]:
    """Return Lance tables by their SQL names, each with the condition on its rows to be seen."""
    return {
        own: (store.lance(table), f"({either(gone.get(table, []))}) is not true")
        for own, table in names.items()
    }


@functools.cache
def _database(files: bool, max_memory: int | None) -> duckdb.DuckDBPyConnection:
    """Return a database of this process, empty: what a connection sees is its own alone.

    Its SQL reaches no file, no other database, no extension and no setting; with files, it does
    reach files. Sorts and joins larger than memory still go to disk.
    """
    config = {
        # Without this SQL could name Python variables of ours as if they were tables.
        "python_enable_replacements": "false",
        "enable_external_access": str(files).lower(),
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "lock_configuration": "true",
    }
    if max_memory is not None:
        config["memory_limit"] = f"{max_memory}B"
    return duckdb.connect(config=config)


def connect_to(
    store: Store, *tables: str, files: bool = False, max_memory: int | None = None
) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB connection that sees some tables, each as _NAME, and no view.

    files: whether its SQL may read files.
    """
    con = _database(files, max_memory).cursor()
    gone = removed(store)
    for table in tables:
        # A store of an older format may be read before it is upgraded, maybe without the right to.
        if not store.is_current and not store.has(table):
            con.register(f"_{table}", TABLES[table].empty_table())
            continue
        lance = store.lance(table)
        missing = [f for f in TABLES[table] if f.name not in lance.schema.names]
        is_whole = not missing and table not in gone
        con.register(f"_{table}" if is_whole else f"_stored_{table}", lance)
        if is_whole:
            continue
        if not missing:
            con.execute(
                f"create temp view _{table} as select * from _stored_{table} where "
                f"({either(gone[table])}) is not true"
            )
        elif missing and table in FORMER:
            con.execute(f"create temp view _{table} as {FORMER[table]}")
        else:
            con.register(f"_lacking_{table}", pa.schema(missing).empty_table())
            con.execute(
                f"create temp view _{table} as select * from _stored_{table} union all by name "
                f"select * from _lacking_{table}"
            )
    return con


def views_name(model: str) -> str:
    """Return the SQL name of a model's table of views."""
    return f"{model}#views"


def _unite(
    con: duckdb.DuckDBPyConnection,
    name: str,
    columns: str,
    tables: dict[str, tuple[Any, str]],
    schema: pa.Schema,
) -> None:
    """Make a view of each table's valid rows, and `name` over them all, vector FLOAT[]."""
    parts = []
    for own_name, (table, is_there) in tables.items():
        stored, own = identifier(stored_name(own_name)), identifier(own_name)
        con.register(stored_name(own_name), table)
        rows = f"select * from {stored} where {is_there}"
        if cut_columns(table):
            of_old = f"exclude ({', '.join(CUT)})"
            rows = f"select * {of_old} from {stored} v where {is_there} and {valid('v')}"
        con.execute(f"create temp view {own} as {rows}")
        parts.append(f"select {columns}, vector::float[] as vector from {own}")
    if not parts:
        con.register(f"_no_{name}", schema.empty_table())
        parts.append(f"select {columns}, vector::float[] as vector from _no_{name}")
    con.execute(f"create temp view {name} as {' union all '.join(parts)}")


def cut_columns(table: Any) -> list[str]:
    """Return what a table says its rows were cut from: `CUT`, nothing before it is upgraded."""
    return [c for c in CUT if c in table.schema.names]


def stored_name(name: str) -> str:
    """Return the SQL name of all that a table of vectors holds, what is not valid any more too."""
    return f"{name}#stored"


def stale(con: duckdb.DuckDBPyConnection, model: str) -> list[str]:
    """Return the annotations whose vector of a model is of other pixels than theirs are now."""
    rows = fetch_rows(
        con,
        f"select annotation_id from {identifier(stored_name(model))} anti join "
        f"{identifier(model)} using (annotation_id) order by 1",
    )
    return [r["annotation_id"] for r in rows]


def check_dataset(store: Store, con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Raise EmbedstoreError unless the store has a dataset of that name."""
    datasets = [r["dataset"] for r in fetch_rows(con, "select dataset from datasets")]
    if dataset not in datasets:
        raise EmbedstoreError(
            f"no dataset '{dataset}' in {store.uri}; there: "
            f"{', '.join(sorted(datasets)) or 'none'} (`embedstore add` registers one)"
            f"{nearest(dataset, datasets)}"
        )


def embedded_models(con: duckdb.DuckDBPyConnection, dataset: str) -> list[str]:
    """Return the names of the models that have embeddings of a dataset."""
    sql = "select distinct model from embeddings where dataset = $dataset order by 1"
    return [r["model"] for r in fetch_rows(con, sql, {"dataset": dataset})]


def identifier(name: str) -> str:
    """Return name quoted as a SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text quoted as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


SqlError, StatementType = duckdb.Error, duckdb.StatementType
"""What DuckDB raises, and what it calls the kinds of statements."""

Params = Sequence[Any] | Mapping[str, Any]


def fetch(con: duckdb.DuckDBPyConnection, query: str, params: Params | None = None) -> pa.Table:
    """Return a query's rows as an Arrow table; EmbedstoreError where DuckDB refuses it.

    params stand in the query as ? in their order, or as $name.
    """
    try:
        table = con.sql(query, params=params).to_arrow_table()
    except duckdb.Error as e:
        raise sql_error(e, con) from e
    except RuntimeError as e:
        if "interrupted" in str(e):
            raise KeyboardInterrupt from e
        raise
    return table.rename_columns(unique(table.column_names))


def fetch_rows(
    con: duckdb.DuckDBPyConnection, query: str, params: Params | None = None
) -> list[dict[str, Any]]:
    """Return a query's rows as dicts, params as for `fetch`; EmbedstoreError if DuckDB refuses."""
    return list(fetch(con, query, params).to_pylist())


def unique(names: list[str]) -> list[str]:
    """Return names of which none is there twice: a second a is a_1."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        n = seen[name] = seen.get(name, -1) + 1
        result.append(f"{name}_{n}" if n else name)
    return result


def sql_error(error: Exception, con: duckdb.DuckDBPyConnection) -> EmbedstoreError:
    """Return what DuckDB says, with what helps; KeyboardInterrupt is raised where it was that."""
    if "KeyboardInterrupt" in str(error):
        raise KeyboardInterrupt from error
    if is_of_lance(error):
        return EmbedstoreError(unanswered(error))
    hint = ""
    if isinstance(error, duckdb.CatalogException):
        models = [r[0] for r in con.execute("select model from _models order by 1").fetchall()]
        names = [*sorted([*VIEWS, *UNIONS]), *(identifier(m) for m in models)]
        hint = f"\nviews: {', '.join(names)}"
    if isinstance(error, duckdb.PermissionException):
        return EmbedstoreError(
            f"SQL: {str(error).strip()}\nSQL here sees the store alone; `embedstore sql --files` "
            "may read files, and --output FILE writes the rows"
        )
    return EmbedstoreError(f"SQL: {str(error).strip()}{hint}")


def where_clause(where: str | None) -> str:
    """Return a condition on the annotations view fit to stand after `and`; EmbedstoreError if not.

    It must be a single expression: what closes a bracket early or starts another statement is
    refused.
    """
    if where is None or not where.strip():
        return "true"
    try:
        # Inside a case no bracket closed early can start a union or another clause; and what closes
        # a round one early does not stand in square ones, nor the other way round.
        statements = duckdb.extract_statements(
            f"select case when (\n{where}\n) then 1 end, [\n{where}\n]"
        )
    except duckdb.Error as e:
        raise UsageError(f"--where '{where}' is no SQL condition: {e}") from e
    if len(statements) != 1:
        raise UsageError(f"--where '{where}' must be one SQL condition, without a semicolon")
    return f"(\n{where}\n)"
