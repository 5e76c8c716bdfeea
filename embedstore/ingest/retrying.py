"""Slides that were set aside or missing, opened again before an ingest."""

from embedstore.files.objects import place
from embedstore.slides.fingerprint import CHANGED
from embedstore.slides.images import probe_patch
from embedstore.slides.slide import probe
from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch_rows, literal


def retry_slides(store: Store, dataset: str) -> None:
    """Open again the slides and patches set aside or missing, and write what has changed.

    One set aside since it is not the file that was added stays so until `add` takes it.
    """
    sql = f"select * from _slides where status != 'ok' and dataset = {literal(dataset)}"
    changed = []
    for row in fetch_rows(connect_to(store, "slides"), sql):
        if row["path"] is None:
            continue
        path = place(row["path"])
        given = (row["mpp"], row["mpp_source"]) if row["mpp_source"] != "slide" else (None, None)
        seen = probe_patch(path) if row["kind"] == "patch" else probe(path, given)
        is_other = CHANGED in (row["problem"] or "") and seen["fingerprint"] != row["fingerprint"]
        if not is_other and (fresh := row | seen) != row:
            changed.append(fresh)
    store.merge("slides", changed)
