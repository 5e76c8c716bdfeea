"""Recorded manifests by their id: whether they still hold, those from a file too."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch_rows
from probes.splits.candidates import Candidates, candidates, only
from probes.splits.draw import ROLES, Split
from probes.splits.manifests import StoredSplit, load_splits
from probes.splits.spec import ManifestSpec

IMPORTED = "imported"
"""The scheme of a manifest that came from a file."""

Key = tuple[int, float, str | None]


def none_such(con: Any, manifest_id: str) -> EmbedstoreError:
    """Return the error that there is no such manifest, with those that there are."""
    rows = fetch_rows(con, "select distinct manifest_id, dataset, scheme from splits order by 2")
    recorded = "; ".join(f"{r['manifest_id']} ({r['dataset']}, {r['scheme']})" for r in rows)
    return EmbedstoreError(f"no manifest '{manifest_id}'; there: {recorded or 'none'}")


def recorded_manifest(
    store: Store, dataset: str, manifest_id: str
) -> tuple[Candidates, list[StoredSplit]]:
    """Return a recorded manifest with all its splits, once it is sure that it still holds.

    EmbedstoreError where it is of another dataset, or where the annotations it was made of have
    changed since, so that their digest is another one.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    splits = list(load_splits(store, manifest_id).values())
    if not splits:
        raise none_such(con, manifest_id)
    row = splits[0].row
    if row.dataset != dataset:
        raise EmbedstoreError(
            f"manifest {manifest_id} is of dataset '{row.dataset}', not of '{dataset}'"
        )
    if row.scheme == IMPORTED:
        manifest = candidates(store, ManifestSpec(dataset, group_by=row.group_by))
        now_id = _digest_of_stored(manifest, splits)
        manifest = _of_splits(manifest, splits)
    else:
        manifest = candidates(store, ManifestSpec.of(row))
        now_id = manifest.manifest_id
    if now_id != manifest_id:
        raise EmbedstoreError(
            f"the annotations of '{dataset}' have changed since manifest {manifest_id} was made "
            f"(digest now {now_id}); make it anew with `probes split`"
        )
    return replace(manifest, manifest_id=manifest_id), splits


def _of_splits(manifest: Candidates, splits: Sequence[StoredSplit]) -> Candidates:
    """Return those of the annotations that are in a split: what is not there is not learnt."""
    used = {i for s in splits for r in ROLES for i in s.ids(r).to_pylist()}
    return only(manifest, [n for n, i in enumerate(manifest.pool.ids) if i in used])


def _digest_of_stored(manifest: Candidates, stored: Sequence[StoredSplit]) -> str:
    place = {i: n for n, i in enumerate(manifest.pool.ids)}
    splits = {}
    for s in stored:
        ids = {r: s.ids(r).to_pylist() for r in ROLES}
        if any(i not in place for of_role in ids.values() for i in of_role):
            return "none, some are gone or have a problem"
        positions = {
            r: np.array([place[i] for i in of_role], dtype=np.int64) for r, of_role in ids.items()
        }
        key = (s.row.fold, s.row.fraction, s.row.train_domain)
        splits[key] = Split(val_by="given", **positions)
    return imported_digest(manifest, splits)


def imported_digest(manifest: Candidates, splits: dict[Key, Split]) -> str:
    """Return the id of splits from a file: 16 hex digits over their annotations by role."""
    digest = hashlib.sha256(b"imported\n")
    if (group_by := manifest.spec.group_by) != "annotation":
        digest.update(f"{group_by}\n".encode())
    for key in sorted(splits, key=repr):
        digest.update(f"{key!r}\n".encode())
        for role in ROLES:
            for i in getattr(splits[key], role):
                pool = manifest.pool
                row = (role, pool.ids[i], pool.labels[i], pool.domains[i], manifest.places[i])
                digest.update("\t".join(row).encode() + b"\n")
    return digest.hexdigest()[:16]
