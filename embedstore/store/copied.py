"""Labels, domains and slides beside vectors: copies of what their annotations say."""

from typing import Any

import pyarrow as pa

from embedstore.store.layout import model_table, views_table
from embedstore.store.sql import connect_to, fetch, identifier
from embedstore.store.store import Store

_ROUNDS = 5


def out_of_date(con: Any, stored: str, key: str) -> pa.Table:
    """Return key, label, domain and slide as they are now, of vectors that have others.

    stored: the SQL name of all that a table of vectors holds.
    """
    return fetch(
        con,
        f"select v.{key}, a.label, a.domain, a.slide from {identifier(stored)} v join _annotations "
        "a using (annotation_id) where (v.label, v.domain, v.slide) is distinct from "
        "(a.label, a.domain, a.slide) order by 1",
    )


def bring_up_to_date(store: Store) -> int:
    """Copy what annotations say now beside their vectors; return how many rows had something else.

    Looked at again once it is written: of two `add` at once the one that is done last sees what
    the other has made of the annotations.
    """
    n_rows = 0
    tables = {model_table(m): "annotation_id" for m in store.models()}
    tables |= {views_table(m): "view_id" for m in store.viewed_models()}
    for table, key in tables.items():
        for _ in range(_ROUNDS):
            con = connect_to(store, "annotations")
            con.register("_vectors", store.lance(table))
            rows = out_of_date(con, "_vectors", key)
            if not len(rows):
                break
            n_rows += store.update_columns(table, rows)
    return n_rows
