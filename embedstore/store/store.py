"""The boundary to LanceDB: how rows get into a store exactly once, by merges on a table's key."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("LANCE_LOG", "error")
os.environ.setdefault("LANCEDB_LOG", "error")

import lance
import lancedb
import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.files.faults import in_words
from embedstore.files.objects import is_uri, settle
from embedstore.store.clock import now
from embedstore.store.layout import (
    FORMAT,
    LISTS,
    MODEL_PREFIX,
    TABLES,
    VIEWS_PREFIX,
    model_of_table,
    model_schema,
    model_table,
    views_schema,
    views_table,
)
from embedstore.store.migrations import upgrade
from embedstore.store.removed import finish_removals
from embedstore.store.tidy import EVERY, hold, keep_up, keep_up_all, pin


def _connect(uri: str) -> Any:
    settle(uri)
    try:
        return lancedb.connect(uri)
    except Exception as e:  # what Rust panics with has no class of its own
        raise EmbedstoreError(f"the store at {uri} cannot be opened: {in_words(e)}") from e


class Store:
    """A folder or s3:// prefix of Lance tables. Open with `Store.open`."""

    def __init__(self, uri: str, db: Any) -> None:
        """Hold an open connection; use `Store.open`. is_current: its format is the newest."""
        self.uri, self._db = uri, db
        self.is_current = True
        self._made: set[str] = set()
        self._datasets: dict[str, Any] = {}

    @staticmethod
    def is_taken(uri: str) -> bool:
        """Return whether anything lies at a local path; for s3:// whether there are tables."""
        if is_uri(uri):
            return bool(Store(uri, _connect(uri)).tables())
        path = Path(uri)
        return path.is_file() or (path.is_dir() and any(path.iterdir()))

    @classmethod
    def open(cls, uri: str, *, write: bool = False, create: bool = False) -> "Store":
        """Return the store at uri (a local path or s3://...), made if `create` and not there.

        With `create`, one that was killed while being made, or is just being made, is completed.
        With `write` or `create`, one of an older format is upgraded; without, it can be read only.
        Raises EmbedstoreError where there is none, it is newer than this version, or something else
        lies there.
        """
        local = None if is_uri(uri) else Path(uri)
        if local is not None and local.is_file():
            raise EmbedstoreError(f"{uri} is a file, not a store; name a folder with --store")
        if not cls.is_taken(uri) and not create:
            raise EmbedstoreError(
                f"no store at {uri}; `embedstore add` makes one, --store or EMBEDSTORE_URI names it"
            )
        if local is not None and cls.is_taken(uri) and not any(local.glob("*.lance")):
            raise EmbedstoreError(
                f"{uri} holds other files and is no store; name another folder with --store"
            )
        store = cls(uri, _connect(uri))
        tables = store.tables()
        if "store" not in tables and any(t not in TABLES for t in tables):
            raise EmbedstoreError(f"{uri} was not made by this tool; name another one with --store")
        if create:
            store._make()
        elif not store.has("store") or not store.open_table("store").count_rows():
            raise EmbedstoreError(
                f"the store at {uri} is not finished: what made it was killed, or is still at "
                "it; the next `embedstore add` finishes it"
            )
        hold(uri, write=write or create)
        store._upgrade(is_written=write or create)
        return store

    def _make(self) -> None:
        # 'store' comes last: a store killed while being made is completed by the next add.
        for name in [*(t for t in TABLES if t != "store"), "store"]:
            if not self.has(name):
                self.create_table(name, TABLES[name])
        if not self.open_table("store").count_rows():
            self.merge("store", [{"format": str(FORMAT), "created_at": now()}])

    def _upgrade(self, *, is_written: bool) -> None:
        """Bring the layout up to date if the store is to be written; refuse a newer one."""
        stored = max(map(int, self.open_table("store").to_arrow()["format"].to_pylist()))
        if stored > FORMAT:
            raise EmbedstoreError(
                f"{self.uri} has store format {stored}, this version reads up to {FORMAT}; "
                "upgrade embedstore"
            )
        self.is_current = is_written or stored == FORMAT
        if is_written and stored != FORMAT:
            upgrade(self, stored)
        if is_written:
            finish_removals(self)
            keep_up_all(self)

    def _check_format(self) -> None:
        if not self.is_current:
            raise EmbedstoreError(
                f"{self.uri} has an older store format and is open for reading; open it with "
                "Store.open(uri, write=True), which upgrades it"
            )

    def tables(self) -> list[str]:
        """Return the names of all tables."""
        names: list[str] = []
        token = None
        while True:
            page = self._db.list_tables(page_token=token)
            names += page.tables
            token = page.page_token
            if not token:
                return names

    def models(self) -> list[str]:
        """Return the models that have a table of embeddings; one being made counts once it is."""
        return self._models(MODEL_PREFIX)

    def viewed_models(self) -> list[str]:
        """Return the models that have a table of views."""
        return self._models(VIEWS_PREFIX)

    def _models(self, prefix: str) -> list[str]:
        named = ((t, model_of_table(t, prefix)) for t in self.tables())
        return sorted(m for t, m in named if m is not None and self._is_made(t))

    def _is_made(self, name: str) -> bool:
        # Listed is also what a process is just making, or was killed while making: a folder without
        # a version. Making it again completes it. Other faults show when the table is read.
        if name not in self._made:
            try:
                self._db.open_table(name)
            except (ValueError, OSError, RuntimeError) as e:
                return "was not found" not in str(e)
            self._made.add(name)
        return True

    def create_table(self, name: str, schema: pa.Schema) -> Any:
        """Return an empty table, made here or by another process."""
        # LanceDB's own creation looks first and writes then: of two at once the second would take
        # away what the first has filled already. A first version is committed once.
        empty = lance.LanceOperation.Overwrite(schema, [])
        where = f"{self.uri.rstrip('/')}/{name}.lance"
        try:
            lance.LanceDataset.commit(where, empty, read_version=0, max_retries=0)
        except (ValueError, OSError, RuntimeError) as e:
            if not self._is_made(name):  # nor by another process
                raise EmbedstoreError(
                    f"table '{name}' of the store at {self.uri} could not be made ({in_words(e)}); "
                    "check its space, rights and credentials, then run again"
                ) from e
        return self.open_table(name)

    def open_table(self, name: str) -> Any:
        """Return a LanceDB table at its newest version."""
        with self._reading(name):
            return self._db.open_table(name)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Say what to do where a table cannot be read, as when it was just removed."""
        try:
            yield
        except (ValueError, OSError, RuntimeError) as e:
            raise EmbedstoreError(
                f"table '{name}' of the store at {self.uri} cannot be read ({in_words(e)}); "
                "check its rights and credentials, then run again; restore a copy if that is in "
                "vain: nothing is repaired by guessing"
            ) from e

    def make_model_table(self, model: str, dim: int) -> None:
        """Make the table of a model's embeddings if it is not there."""
        if model not in self.models():
            self.create_table(model_table(model), model_schema(dim))

    def make_views_table(self, model: str, dim: int) -> None:
        """Make the table of a model's views if it is not there."""
        if model not in self.viewed_models():
            self.create_table(views_table(model), views_schema(dim))

    def has(self, name: str) -> bool:
        """Return whether a table is there."""
        return name in self.tables() and self._is_made(name)

    def merge(
        self,
        name: str,
        rows: list[Mapping[str, Any]] | pa.Table,
        *,
        replace: bool = True,
        instead_of: str | None = None,
    ) -> int:
        """Write rows by key in one atomic step and return how many keys were new.

        Rows whose key is there already are replaced, or left alone if not `replace`. instead_of: a
        condition on the rows that these stand for; those of other keys are deleted.
        """
        self._check_format()
        table = self.open_table(name)
        before = table.version
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pylist(list(rows), schema=table.schema)
        if not rows.num_rows:
            return 0
        merge = table.merge_insert(table.schema.field(0).name)
        if replace:
            merge = merge.when_matched_update_all()
        if instead_of is not None:
            merge = merge.when_not_matched_by_source_delete(instead_of)
        try:
            n_new = int(merge.when_not_matched_insert_all().execute(rows).num_inserted_rows)
        except (OSError, RuntimeError, ValueError) as e:
            raise EmbedstoreError(
                f"{rows.num_rows} rows could not be written to '{name}' of the store {self.uri}, "
                f"what was there is unchanged ({in_words(e)}); check its space and rights, then "
                "run again"
            ) from e
        self._keep_up(name, before, table.version)
        return n_new

    def _keep_up(self, name: str, before: int, after: int) -> None:
        """Tidy a table once in `EVERY` versions, whatever kind of write makes the one."""
        if before // EVERY != after // EVERY:
            keep_up(self, name)

    def update_columns(self, name: str, rows: pa.Table) -> int:
        """Overwrite some columns, given beside the key, of rows that are there; return how many."""
        table = self.open_table(name)
        schema = pa.schema([table.schema.field(c).remove_metadata() for c in rows.column_names])
        before = table.version
        merge = table.merge_insert(table.schema.field(0).name).when_matched_update_all()
        n_updated = int(merge.execute(rows.cast(schema)).num_updated_rows)
        self._keep_up(name, before, table.version)
        return n_updated

    def delete(self, name: str, key: str, values: list[str]) -> None:
        """Delete the rows whose key is among values."""
        table = self.open_table(name)
        before = table.version
        for i in range(0, len(values), 1000):
            quoted = ", ".join("'" + v.replace("'", "''") + "'" for v in values[i : i + 1000])
            table.delete(f"{key} in ({quoted})")
        self._keep_up(name, before, table.version)

    def drop(self, name: str) -> None:
        """Remove a table with all its rows."""
        self._db.drop_table(name, ignore_missing=True)
        self._made.discard(name)
        self._datasets.pop(name, None)

    def lance(self, name: str) -> Any:
        """Return a table as a Lance dataset pinned to its newest version."""
        with self._reading(name):
            held = self._datasets.get(name)
            # To ask for the newest version takes a hundredth of what opening a table takes.
            if held is None or held.latest_version != held.version:
                options = {"default_scan_options": {"batch_size": 16}} if name in LISTS else {}
                held = self._datasets[name] = self._db.open_table(name).to_lance(**options)
                pin(self.uri, name, held)
            return held

    def forget_pins(self, name: str) -> None:
        """Let go of the version of a table that was last read."""
        self._datasets.pop(name, None)

    def stats(self, name: str) -> dict[str, int]:
        """Return n_rows, n_bytes, n_fragments and version of a table."""
        table = self.open_table(name)
        stats = table.stats()
        return {
            "n_rows": stats["num_rows"],
            "n_bytes": stats["total_bytes"],
            "n_fragments": stats["fragment_stats"]["num_fragments"],
            "version": table.version,
        }
