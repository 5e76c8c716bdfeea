"""Versions of embeddings that recorded results were made of, kept while the results stand."""

from collections import defaultdict
from collections.abc import Sequence

from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.tidy import keep_versions


def pin_versions(store: Store, models: Sequence[str]) -> dict[str, set[int]]:
    """Keep of each model's tables the versions that results which stand name, and only those.

    Returns the versions kept that are still there, by table. A version made by a former one of this
    tool, or given up by a removal, may be gone. Models side by side (A+B) are vectors of no table.
    """
    needed: dict[str, set[int]] = defaultdict(set)
    names = set(models)
    rows = fetch_rows(
        connect(store),
        "select distinct model, embeddings_version as version, "
        "params::json->>'views' is not null as is_viewed from results "
        "where embeddings_version is not null and method != 'e2e'",
    )
    tables = {model_table(m) for m in store.models() if m in names}
    tables |= {views_table(m) for m in store.viewed_models() if m in names}
    for row in rows:
        name = (views_table if row["is_viewed"] else model_table)(row["model"])
        needed[name].add(row["version"])
    return {name: keep_versions(store, name, needed[name]) for name in sorted(tables)}
