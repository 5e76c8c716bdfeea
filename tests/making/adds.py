"""TODO docstring"""

from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


def query(uri: str, sql: str) -> list[dict[str, Any]]:
    return fetch_rows(connect(Store.open(uri)), sql)
