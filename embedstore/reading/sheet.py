"""The verb `sheet`: a contact sheet, the patches of any query's annotations on one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import UsageError
from embedstore.files.objects import Place
from embedstore.files.output import write_out
from embedstore.files.template import filled
from embedstore.reading.images import data_address
from embedstore.reading.neighbors import Neighbors
from embedstore.reading.pixels import Patches
from embedstore.store import Store
from embedstore.store.asking import run_sql
from embedstore.store.sql import connect, fetch
from embedstore.store.tags import KEY, check_ids

TEMPLATE = Path(__file__).parent / "template" / "sheet.html"
PATCH_PX = 160
"""Width of a patch on the page."""
LIMIT = 500
"""How many rows a page shows where nothing else is asked for."""

_ABOUT = ("label", "domain", "dataset")


@dataclass(frozen=True)
class Sheet:
    """A page as HTML, and how many rows there were, it shows, and have a picture."""

    page: str
    n_rows: int
    n_shown: int
    n_pictures: int

    def row(self, output: str) -> dict[str, Any]:
        """Return what the command prints."""
        numbers = {k: getattr(self, k) for k in ("n_rows", "n_shown", "n_pictures")}
        return {"file": output, **numbers, "mb": round(len(self.page) / 1e6, 2)}


def sheet(store: Store, query: str, *, limit: int = LIMIT) -> Sheet:
    """Return a page with a patch for each row of a query, in its order.

    The rows need a column annotation_id; their other columns stand beside the patch. Patches are
    those that are kept or files themselves, and else read from the slides. EmbedstoreError where
    the column is missing or names what the store does not have.
    """
    return sheet_of(store, run_sql(store, query), query, limit=limit)


def sheet_of(store: Store, rows: pa.Table, title: str, *, limit: int = LIMIT) -> Sheet:
    """Return a page with a patch for each of these rows; see `sheet`."""
    if limit < 1:
        raise UsageError(f"--limit {limit}: give at least 1")
    check_ids(store, rows)
    shown = rows.slice(0, limit)
    ids = shown[KEY].to_pylist()
    facts = _facts(store, ids)
    pictures, widths = _pictures(store, facts)
    columns = [c for c in shown.column_names if c != KEY]
    cards = [
        {
            "id": row[KEY],
            "picture": pictures.get(row[KEY]),
            "label": facts[row[KEY]]["label"],
            "about": [] if "domain" in columns else [str(facts[row[KEY]]["domain"])],
            "values": [(c, _words(row[c])) for c in columns if c != "label"],
        }
        for row in shown.to_pylist()
    ]
    n_pictures = sum(c["picture"] is not None for c in cards)
    page = filled(
        TEMPLATE,
        title=title,
        cards=cards,
        n_rows=len(rows),
        n_pictures=n_pictures,
        width=" or ".join(f"{w:g} um" for w in sorted(widths)),
        labels=sorted({str(c["label"]) for c in cards}),
        size=PATCH_PX,
    )
    return Sheet(page, len(rows), len(cards), n_pictures)


def neighbors_sheet(store: Store, annotation_id: str, model: str, nearest: Neighbors) -> Sheet:
    """Return a page with the patch of an annotation, then those of its neighbours."""
    itself = {"rank": 0, KEY: annotation_id, "distance": 0.0}
    rows = [itself, *({k: r[k] for k in itself} for r in nearest.rows)]
    title = f"nearest to {annotation_id} by {model}"
    return sheet_of(store, pa.Table.from_pylist(rows), title, limit=len(rows))


def write_sheet(made: Sheet, to: Place) -> None:
    """Write a page to its place, whole or not at all."""
    write_out(to, lambda sink: sink.write(made.page.encode()))


def _facts(store: Store, ids: list[str]) -> dict[str, dict[str, Any]]:
    con = connect(store)
    con.register("_shown", pa.table({KEY: pa.array(ids, pa.string())}))
    sql = f"select {KEY}, {', '.join(_ABOUT)} from annotations semi join _shown using ({KEY})"
    return {r[KEY]: r for r in fetch(con, sql).to_pylist()}


def _pictures(store: Store, facts: dict[str, dict[str, Any]]) -> tuple[dict[str, str], set[float]]:
    """Return the patches that are to be had, as data addresses, and how wide they are, in um."""
    pictures, widths = dict[str, str](), set[float]()
    con = connect(store)
    for dataset in dict.fromkeys(f["dataset"] for f in facts.values()):
        mine = [i for i, f in facts.items() if f["dataset"] == dataset]
        patches = Patches(store, con, dataset)
        read: dict[str, NDArray[np.uint8]] = patches.read(mine, PATCH_PX)
        read |= patches.read_slides([i for i in mine if i not in read], PATCH_PX)
        pictures |= {i: data_address(p) for i, p in read.items()}
        if patches.shown_um is not None:
            widths.add(patches.shown_um)
    return pictures, widths


def _words(value: Any) -> str:
    """Return a value as it stands beside a patch: numbers short, long lists by their length."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list) and len(value) > 8:
        return f"{len(value):,} values"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = "" if value is None else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
