"""The verb `tag`: a name for some annotations, to cut them out of any slice by.

A row a tag and annotation. The view `annotations` lists each one's tags, so that a condition may
say `'odd' in tags`; what is removed loses its tags, what is added again keeps them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedstore.errors import EmbedstoreError, UsageError, nearest
from embedstore.store.asking import run_sql
from embedstore.store.clock import now
from embedstore.store.layout import TABLES, TAGS
from embedstore.store.sql import connect, fetch, fetch_rows, literal
from embedstore.store.store import Store

KEY = "annotation_id"
MAX_LENGTH = 64
_OF_TAG = f"select {KEY} from tags where tag = $tag order by 1"


def check_tag(name: str) -> None:
    """Raise UsageError unless a name is fit for a tag: short, one line, without / and quotes."""
    if (
        not name.strip()
        or name != name.strip()
        or len(name) > MAX_LENGTH
        or not name.isprintable()
        or set("/'\"\\") & set(name)
    ):
        raise UsageError(
            f"'{name}' is no name for a tag: give 1 to {MAX_LENGTH} characters in one line, "
            "without / \\ and quotes, that neither begin nor end with a space"
        )


def check_ids(store: Store, rows: pa.Table) -> None:
    """Raise EmbedstoreError unless each row names an annotation of the store in annotation_id."""
    if KEY not in rows.column_names:
        raise EmbedstoreError(
            f"the rows need a column {KEY}; there: {', '.join(rows.column_names) or 'none'}"
        )
    if n_without := rows[KEY].null_count:
        raise EmbedstoreError(f"{n_without:,} of {len(rows):,} rows have no {KEY}; nothing is done")
    con = connect(store)
    con.register("_named", rows.select([KEY]))
    named = f"select distinct {KEY}::text as {KEY} from _named"
    sql = f"select {KEY} from ({named}) anti join annotations using ({KEY}) order by 1"
    if strangers := fetch(con, sql)[KEY].to_pylist():
        raise EmbedstoreError(
            f"{len(strangers):,} of the rows' {KEY} are none of {store.uri}: "
            f"{', '.join(strangers[:3])}{', ...' * (len(strangers) > 3)}; nothing is done"
        )


def ids_of(store: Store, rows: pa.Table) -> list[str]:
    """Return the annotations that rows name, each once, in order; errors as of `check_ids`."""
    check_ids(store, rows)
    return list(dict.fromkeys(rows[KEY].to_pylist()))


def chosen_ids(store: Store, query: str | None, file: Path | None) -> list[str] | None:
    """Return the annotations named by a query, or by a local CSV, Parquet or JSON file.

    None where neither is given, UsageError where both are.
    """
    if query is not None and file is not None:
        raise UsageError("give a query or --from FILE, not both")
    if file is not None:
        if not file.is_file():
            raise EmbedstoreError(f"no file {file}")
        return ids_of(store, run_sql(store, f"from {literal(str(file))}", files=True))
    return None if query is None else ids_of(store, run_sql(store, query))


def tag(store: Store, name: str, ids: Sequence[str]) -> int:
    """Give annotations a tag; return how many had it not yet."""
    check_tag(name)
    con = connect(store)
    con.register("_named", pa.table({KEY: pa.array(ids, pa.string())}))
    rows = fetch(
        con,
        f"select {literal(name + '/')} || {KEY} as tag_id, {literal(name)} as tag, {KEY}, "
        f"a.dataset, $now::timestamp as created_at from _named join annotations a using ({KEY}) "
        f"anti join (select {KEY} from tags where tag = {literal(name)}) using ({KEY})",
        {"now": now()},
    )
    return store.merge(TAGS, rows.cast(TABLES[TAGS]), replace=False)


def untag(store: Store, name: str, ids: Sequence[str] | None = None) -> int:
    """Take a tag from annotations, or from all that have it; return from how many.

    EmbedstoreError where no annotation has it.
    """
    there = tagged(store, name)
    going = there if ids is None else sorted(set(there) & set(ids))
    store.delete(TAGS, "tag_id", [f"{name}/{i}" for i in going])
    return len(going)


def tagged(store: Store, name: str) -> list[str]:
    """Return the annotations with a tag, by id; EmbedstoreError where there is none."""
    ids: list[str] = fetch(connect(store), _OF_TAG, {"tag": name})[KEY].to_pylist()
    if not ids:
        tags = list(dict.fromkeys(r["tag"] for r in counted(store)))
        raise EmbedstoreError(
            f"no annotation has the tag '{name}'; there: {', '.join(tags) or 'none'}"
            f"{nearest(name, tags)}"
        )
    return ids


def counted(store: Store, name: str | None = None) -> list[dict[str, Any]]:
    """Return a row per tag and dataset: how many annotations have it, and since when."""
    one = "" if name is None else f"where tag = {literal(name)} "
    return fetch_rows(
        connect(store),
        "select tag, dataset, count(*) as n_annotations, "
        "date_trunc('second', max(created_at)) as newest from tags "
        f"{one}group by all order by all",
    )


def change(
    store: Store, name: str, ids: Sequence[str] | None, *, remove: bool = False
) -> tuple[list[str], list[str]]:
    """Tag annotations, or untag them; return which have the tag now, and what is to be said.

    Without ids nothing changes, but that `remove` takes the tag from all that have it.
    """
    check_tag(name)
    if ids is None and not remove:
        return tagged(store, name), []
    if remove:
        n = untag(store, name, ids)
        left = fetch(connect(store), _OF_TAG, {"tag": name})[KEY].to_pylist()
        return left, [f"{n:,} annotations had the tag '{name}' and lost it"]
    if not ids:
        raise EmbedstoreError("there are no rows, so no annotation to tag; nothing is done")
    n = tag(store, name, ids)
    note = f"{n:,} of {len(ids):,} annotations are newly tagged"
    return tagged(store, name), [f"{note}; --where \"'{name}' in tags\" cuts by it"]
