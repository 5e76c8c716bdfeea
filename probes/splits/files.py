"""Manifests as files: out to other tools, and back in once every row of them holds."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.files.tables import MALFORMED, table_rows
from embedstore.store import Store, now
from embedstore.store.sql import check_dataset, connect, fetch, literal
from probes.splits.candidates import Candidates, candidates
from probes.splits.draw import GROUPINGS, ROLES, Split, check_fraction, lacking
from probes.splits.imported import IMPORTED, Key, imported_digest, none_such
from probes.splits.manifests import as_stored, cut_split, split_id, split_row
from probes.splits.recorded import SplitRow
from probes.splits.schemes import SCHEMES
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
        raise none_such(con, manifest_id)
    return table


def import_manifest(store: Store, dataset: str, path: Path) -> tuple[list[SplitRow], str]:
    """Store the splits that a CSV or Parquet file says, and return their rows and manifest id.

    Needed columns: annotation_id, role (train, val, test), and fold, fraction and train_domain
    where there are several splits. All is checked before any is written: ids must be usable
    annotations of the dataset, in one role each; train must hold two of every label it is to learn
    and test more than one label. The manifest id is a digest of all of it. A file that was exported
    and not changed is the manifest that it was.
    """
    check_dataset(store, connect(store), dataset)
    rows = _read(path)
    if (known := _as_it_was(store, dataset, rows)) is not None:
        return known
    return import_rows(store, dataset, rows, str(path))


def import_rows(
    store: Store, dataset: str, rows: Sequence[dict[str, Any]], source: str
) -> tuple[list[SplitRow], str]:
    """Store the splits that rows of `COLUMNS` say: see `import_manifest`; source is for errors."""
    group_by = _group_by(rows)
    manifest = candidates(store, ManifestSpec(dataset, group_by=group_by))
    place = {i: n for n, i in enumerate(manifest.pool.ids)}
    problems = _unknown(rows, place, dataset)
    splits, more = _splits(rows, place)
    used = sorted({i for s in splits.values() for r in ROLES for i in getattr(s, r).tolist()})
    labels = {manifest.pool.labels[i] for i in used}
    for key, split in splits.items():
        more += _faults(manifest, key, split, labels)
    if problems := [*problems, *more]:
        shown = "".join(f"\n- {p}" for p in problems[:10])
        rest = f"\n- and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise EmbedstoreError(f"{source} was not imported, nothing is written:{shown}{rest}")
    manifest_id = imported_digest(manifest, splits)
    made = [_row(manifest, manifest_id, key, split) for key, split in splits.items()]
    store.merge("splits", made, replace=False)
    return [as_stored(row).row for row in made], manifest_id


def _as_it_was(
    store: Store, dataset: str, rows: Sequence[dict[str, Any]]
) -> tuple[list[SplitRow], str] | None:
    """Return and store an exported manifest that this dataset still gives; None for any other."""
    stated = {c: {r.get(c) for r in rows} for c in (*_SPEC_COLUMNS, "manifest_id")}
    if any(len(values) != 1 for values in stated.values()):
        return None
    of = {c: str(values.pop() or "") for c, values in stated.items()}
    if of["dataset"] != dataset or of["scheme"] not in SCHEMES:
        return None
    try:
        spec = ManifestSpec(
            dataset,
            of["scheme"],
            of["group_by"],
            of["stratify"],
            of["where_sql"] or None,
            int(of["seed"]),
        )
        manifest = candidates(store, spec)
    except (EmbedstoreError, TypeError, ValueError):
        return None
    if manifest.manifest_id != of["manifest_id"]:
        return None
    splits, problems = _splits(rows, {i: n for n, i in enumerate(manifest.pool.ids)})
    n_placed = sum(len(getattr(s, r)) for s in splits.values() for r in ROLES)
    if problems or n_placed != len(rows):
        return None
    made = []
    for key, split in splits.items():
        try:
            drawn = cut_split(manifest, *key)
        except (EmbedstoreError, KeyError, ValueError):
            return None
        if any(sorted(getattr(drawn, r)) != sorted(getattr(split, r)) for r in ROLES):
            return None
        made.append(split_row(manifest, key, drawn))
    store.merge("splits", made, replace=False)
    return [as_stored(row).row for row in made], manifest.manifest_id


_SPEC_COLUMNS = ("dataset", "scheme", "group_by", "stratify", "where_sql", "seed")


def _group_by(rows: Sequence[dict[str, Any]]) -> str:
    """Return what a file says stays on one side of a split; where it does not, the annotation."""
    stated = {r.get("group_by") or ManifestSpec.group_by for r in rows}
    (group_by,) = stated if len(stated) == 1 else (ManifestSpec.group_by,)
    if group_by not in GROUPINGS:
        raise EmbedstoreError(
            f"group_by is '{group_by}' in the file; allowed: {', '.join(GROUPINGS)}"
        )
    return group_by


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


def _faults(manifest: Candidates, key: Key, split: Split, labels: set[str]) -> list[str]:
    said = f"fold {key[0]}, fraction {key[1]:g}" + (f", {key[2]}" if key[2] else "")
    every = np.concatenate((split.train, split.val, split.test)).tolist()
    if twice := [manifest.pool.ids[i] for i, n in Counter(every).items() if n > 1]:
        return [f"{said}: {len(twice)} annotations come more than once, for example {twice[0]}"]
    if (label := lacking(manifest.pool, split.train, labels)) is not None:
        return [f"{said}: train holds fewer than two of '{label}'"]
    if len({manifest.pool.labels[i] for i in split.test}) < 2:
        return [f"{said}: test holds fewer than two labels"]
    return []


def _row(manifest: Candidates, manifest_id: str, key: Key, split: Split) -> dict[str, Any]:
    row = split_row(manifest, key, split)
    return row | {
        "split_id": split_id(manifest_id, *key),
        "manifest_id": manifest_id,
        "scheme": IMPORTED,
        "created_at": now(),
    }
