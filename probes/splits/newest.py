"""Which manifest of a spec stands: the one whose annotations are those of today."""

import pyarrow as pa

from embedstore.store import Store
from embedstore.store.clock import later
from embedstore.store.layout import TABLES
from embedstore.store.sql import connect_to, fetch_rows
from probes.splits.spec import ManifestSpec


def make_newest(store: Store, spec: ManifestSpec, manifest_id: str) -> None:
    """Date a manifest from now if others of its spec are younger: annotations are again as then.

    The view `results` shows what was scored on the youngest manifest of each spec.
    """
    condition, values = spec.condition()
    con = connect_to(store, "splits")
    rows = fetch_rows(
        con,
        "select split_id, manifest_id, created_at from _splits where " + condition,
        values,
    )
    mine = [r for r in rows if r["manifest_id"] == manifest_id]
    others = [r["created_at"] for r in rows if r["manifest_id"] != manifest_id]
    if not mine or not others or max(r["created_at"] for r in mine) > max(others):
        return
    columns = ["split_id", "created_at"]
    schema = pa.schema([TABLES["splits"].field(k) for k in columns])
    at = later(store, "splits", column="created_at")
    dated = [{"split_id": r["split_id"], "created_at": at} for r in mine]
    store.update_columns("splits", pa.Table.from_pylist(dated, schema=schema))
