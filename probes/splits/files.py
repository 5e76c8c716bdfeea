"""Manifests as files: out to other tools, and back in once every row of them holds."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.files.tables import MALFORMED, table_rows
from embedstore.store import Store, now
from embedstore.store.sql import check_dataset, connect, fetch, fetch_rows, literal
from probes.splits.draw import ROLES, Split, check_fraction, lacking
from probes.splits.manifests import (
    Candidates,
    StoredSplit,
    as_stored,
    candidates,
    load_splits,
    split_id,
    split_row,
)
from probes.splits.recorded import SplitRow
from probes.splits.spec import ManifestSpec

COLUMNS = (
    "dataset",
    "scheme",
    "group_by",
    "stratify",
    "where_sql",
    "seed",
    "manifest_id",
    "fold",
    "fraction",
    "train_domain",
    "role",
    "annotation_id",
    "label",
    "domain",
    "slide",
    "case_id",
)
"""What a manifest's file holds; the first six and the last four are for reading only."""

IMPORTED = "imported"
"""The scheme of a manifest that came from a file."""

Key = tuple[int, float, str | None]


def manifest_table(store: Store, manifest_id: str) -> pa.Table:
    """Return a manifest, one row per split and annotation, in order of drawing."""
    con = connect(store)
    table = fetch(
        con,
        f"select {', '.join(COLUMNS)} from manifests join (select annotation_id, label, domain, "
        "coalesce(source_slide, slide) as slide, case_id from annotations) using (annotation_id) "
        f"where manifest_id = {literal(manifest_id)} order by train_domain, fraction, fold, "
        "role desc, annotation_id",
    )
    if not len(table):
        raise _none_such(con, manifest_id)
    return table


def _none_such(con: Any, manifest_id: str) -> EmbedstoreError:
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
        raise _none_such(con, manifest_id)
    row = splits[0].row
    if row.dataset != dataset:
        raise EmbedstoreError(
            f"manifest {manifest_id} is of dataset '{row.dataset}', not of '{dataset}'"
        )
    if row.scheme == IMPORTED:
        manifest = candidates(store, ManifestSpec(dataset))
        now_id = _digest_of_stored(manifest, splits)
    else:
        manifest = candidates(store, ManifestSpec.of(row))
        now_id = manifest.manifest_id
    if now_id != manifest_id:
        raise EmbedstoreError(
            f"the annotations of '{dataset}' have changed since manifest {manifest_id} was made "
            f"(digest now {now_id}); make it anew with `probes split`"
        )
    return replace(manifest, manifest_id=manifest_id), splits


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
    return _digest(manifest, splits)


def import_manifest(store: Store, dataset: str, path: Path) -> tuple[list[SplitRow], str]:
    """Store the splits that a CSV or Parquet file says, and return their rows and manifest id.

    Needed columns: annotation_id, role (train, val, test), and fold, fraction and train_domain
    where there are several splits. All is checked before any is written: ids must be usable
    annotations of the dataset, in one role each; train must hold two of every label it is to learn
    and test more than one label. The manifest id is a digest of all of it.
    """
    check_dataset(store, connect(store), dataset)
    manifest = candidates(store, ManifestSpec(dataset))
    rows = _read(path)
    place = {i: n for n, i in enumerate(manifest.pool.ids)}
    problems = _unknown(rows, place, dataset)
    splits, more = _splits(rows, place)
    for key, split in splits.items():
        more += _faults(manifest, key, split)
    if problems := [*problems, *more]:
        shown = "".join(f"\n- {p}" for p in problems[:10])
        rest = f"\n- and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise EmbedstoreError(f"{path} was not imported, nothing is written:{shown}{rest}")
    manifest_id = _digest(manifest, splits)
    made = [_row(manifest, manifest_id, key, split) for key, split in splits.items()]
    store.merge("splits", made, replace=False)
    return [as_stored(row).row for row in made], manifest_id


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise EmbedstoreError(f"no manifest file at {path}")
    try:
        rows = table_rows(path)
    except MALFORMED as e:
        raise EmbedstoreError(f"{path} does not read as CSV or Parquet ({e})") from e
    lost = [c for c in ("annotation_id", "role") if not rows or c not in rows[0]]
    if lost:
        raise EmbedstoreError(
            f"{path} lacks {', '.join(lost)}; a manifest has annotation_id, role, and fold, "
            "fraction, train_domain where there are several splits"
        )
    return rows


def _unknown(rows: Sequence[dict[str, Any]], place: dict[str, int], dataset: str) -> list[str]:
    problems = []
    strange = sorted({r["annotation_id"] for r in rows if r["annotation_id"] not in place})
    if strange:
        problems.append(
            f"{len(strange)} ids are no usable annotations of '{dataset}': {', '.join(strange[:3])}"
            f"; here an id looks like {next(iter(place))}"
        )
    if of := sorted({r["dataset"] for r in rows if r.get("dataset") and r["dataset"] != dataset}):
        problems.append(f"it is a manifest of dataset {', '.join(map(repr, of))}, not '{dataset}'")
    return problems


def _splits(
    rows: Sequence[dict[str, Any]], place: dict[str, int]
) -> tuple[dict[Key, Split], list[str]]:
    parts: dict[Key, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    problems = []
    for n, r in enumerate(rows, start=1):
        try:
            key = (
                int(r.get("fold") or 0),
                check_fraction(float(r.get("fraction") or 1)),
                r.get("train_domain") or None,
            )
        except ValueError:
            problems.append(
                f"row {n}: fold '{r.get('fold')}' or fraction '{r.get('fraction')}' is no number"
            )
            continue
        if r["role"] not in ROLES:
            problems.append(f"row {n}: role '{r['role']}' (allowed: train, val, test)")
        elif r["annotation_id"] in place:
            parts[key][r["role"]].append(place[r["annotation_id"]])
    splits = {
        key: Split(val_by="given", **{r: np.array(of[r], dtype=np.int64) for r in ROLES})
        for key, of in parts.items()
    }
    return splits, problems


def _faults(manifest: Candidates, key: Key, split: Split) -> list[str]:
    said = f"fold {key[0]}, fraction {key[1]:g}" + (f", {key[2]}" if key[2] else "")
    every = np.concatenate((split.train, split.val, split.test)).tolist()
    if twice := [manifest.pool.ids[i] for i, n in Counter(every).items() if n > 1]:
        return [f"{said}: {len(twice)} annotations come more than once, for example {twice[0]}"]
    if (label := lacking(manifest.pool, split.train)) is not None:
        return [f"{said}: train holds fewer than two of '{label}'"]
    if len({manifest.pool.labels[i] for i in split.test}) < 2:
        return [f"{said}: test holds fewer than two labels"]
    return []


def _digest(manifest: Candidates, splits: dict[Key, Split]) -> str:
    digest = hashlib.sha256(b"imported\n")
    for key in sorted(splits, key=repr):
        digest.update(f"{key!r}\n".encode())
        for role in ROLES:
            for i in getattr(splits[key], role):
                pool = manifest.pool
                row = (role, pool.ids[i], pool.labels[i], pool.domains[i], manifest.places[i])
                digest.update("\t".join(row).encode() + b"\n")
    return digest.hexdigest()[:16]


def _row(manifest: Candidates, manifest_id: str, key: Key, split: Split) -> dict[str, Any]:
    row = split_row(manifest, key, split)
    return row | {
        "split_id": split_id(manifest_id, *key),
        "manifest_id": manifest_id,
        "scheme": IMPORTED,
        "group_by": "annotation",
        "created_at": now(),
    }
