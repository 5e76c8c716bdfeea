"""What recorded copies, cells that are there twice, give away of a test set."""

from collections.abc import Sequence

import numpy as np

from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch_rows
from probes.splits.manifests import StoredSplit


def copies_seen(store: Store, splits: Sequence[StoredSplit], other: str | None) -> list[str]:
    """Return a note where test annotations have copies in training, as far as copies are recorded.

    other: the dataset that is scored in place of the splits' own test sets.
    """
    rows = fetch_rows(
        connect_to(store, "copies"),
        "select a, b, dataset_a, dataset_b from _copies",
    )
    if not rows:
        return []
    pairs = {(r["a"], r["b"]) for r in rows} | {(r["b"], r["a"]) for r in rows}
    of = {r["a"]: r["dataset_a"] for r in rows} | {r["b"]: r["dataset_b"] for r in rows}
    largest = max(s.row.fraction for s in splits)
    counts = []
    for s in (s for s in splits if s.row.fraction == largest):
        train = set(s.train)
        seen = {b for a, b in pairs if a in train}
        if other is None:
            counts.append(len(seen & set(s.test)))
        else:
            counts.append(sum(of[i] == other for i in seen))
    if not any(counts):
        return []
    whose = "test" if other is None else "the other dataset's"
    return [
        f"copies: {np.mean(counts):.1f} of {whose} annotations a split have a copy in training, on "
        "a slide of another name (view copies); no split by slide or case keeps them apart"
    ]
