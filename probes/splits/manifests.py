"""Split manifests in the store: made once, addressed by digest, with a leakage audit each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import Store, now
from embedstore.store.sql import (
    check_dataset,
    connect,
    connect_to,
    fetch,
    fetch_rows,
    literal,
    where_clause,
)
from probes.splits.audit import audit
from probes.splits.draw import (
    DEFAULT_FRACTIONS,
    ROLES,
    InfeasibleError,
    Pool,
    Split,
    Way,
    check_fraction,
    manifest_digest,
)
from probes.splits.recorded import SplitRow
from probes.splits.schemes import SCHEMES, distinct_folds, train_domains
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Candidates:
    """The annotations of a manifest and what the audit needs of each, in order of the pool.

    images: the file that each lies on; slides and cases: those it comes from, None where a patch's
    are not named; centres_um (n, 2), NaN for patches.
    """

    manifest_id: str
    spec: ManifestSpec
    pool: Pool
    images: list[str]
    slides: list[str | None]
    cases: list[str | None]
    centres_um: NDArray[np.float64]
    places: list[str]
    n_left_out: int
    notes: list[str]


@dataclass(frozen=True)
class StoredSplit:
    """One split as recorded, and its ids per role as Arrow strings."""

    row: SplitRow
    roles: Mapping[str, pa.Array]

    @property
    def split_id(self) -> str:
        """Return the key of the split: manifest, fold, fraction and train domain."""
        return self.row.split_id

    def ids(self, role: str) -> pa.Array:
        """Return the annotation ids of train, val or test, in order of drawing."""
        return self.roles[role]

    @property
    def train(self) -> list[str]:
        """Return the ids that are trained on."""
        return list(self.roles["train"].to_pylist())

    @property
    def val(self) -> list[str]:
        """Return the ids that choices are made on."""
        return list(self.roles["val"].to_pylist())

    @property
    def test(self) -> list[str]:
        """Return the ids that are scored."""
        return list(self.roles["test"].to_pylist())


def candidates(store: Store, spec: ManifestSpec) -> Candidates:
    """Return what `spec` selects; EmbedstoreError where that is nothing or the dataset unknown."""
    spec.check()
    spec = replace(spec, where=spec.where.strip() or None if spec.where else None)
    con = connect(store)
    check_dataset(store, con, spec.dataset)
    column = _selected(con, spec)
    notes = []
    if SCHEMES[spec.scheme].is_given:
        kept = [i for i, split in enumerate(column["split"]) if split is not None]
        if not kept:
            raise EmbedstoreError(
                f"no annotation of '{spec.dataset}'{_cut_by(spec)} is in a split: add a file with "
                "a column split (train, val or test), or use --scheme monte-carlo"
            )
        if n_unsplit := len(column["split"]) - len(kept):
            notes.append(f"{n_unsplit} annotations that the dataset puts in no split are left out")
        column = {k: [v[i] for i in kept] for k, v in column.items()}
    ids, images, cases = column["annotation_id"], column["slide"], column["case_id"]
    slides: list[str | None] = column["source_slide"]
    # What is not named is alone: a patch counts as a slide, and as a case, of its own.
    alone = [s or image for s, image in zip(slides, images, strict=True)]
    groups = {"annotation": ids, "slide": alone, "case": cases}[spec.group_by]
    # Only where it decides the roles is the dataset's split a part of what the digest covers.
    splits = column["split"] if SCHEMES[spec.scheme].is_given else None
    pool = Pool(ids, column["label"], column["domain"], groups, splits)
    is_patch = np.array([k == "patch" for k in column["kind"]], dtype=bool)
    counts = fetch_rows(
        con,
        "select count(*) filter (status != 'ok') as aside, count(*) as n, "
        "count(*) filter (case_id = coalesce(source_slide, slide)) as alone "
        f"from annotations where dataset = {literal(spec.dataset)}",
    )[0]
    if spec.group_by == "case" and counts["alone"] == counts["n"]:
        notes.append("no case is recorded, so every slide counts as its own case")
    if n_alone := slides.count(None) * (spec.group_by == "slide"):
        notes.append(
            f"{n_alone} patches whose slide is not named count as slides of their own; what they "
            "share, a column slide or a case can tell"
        )
    x, y = (np.array(column[k], dtype=np.float64) for k in ("x_l0", "y_l0"))
    centres = np.column_stack((x, y)) * np.array(column["mpp"])[:, None]
    centres[is_patch] = np.nan
    # A patch has no place but its file's middle, known or not yet.
    places = [
        "patch" if of_patch else f"{at_x!r},{at_y!r}"
        for of_patch, at_x, at_y in zip(is_patch, column["x_l0"], column["y_l0"], strict=True)
    ]
    known = [
        None if s is None and case == image else case
        for s, case, image in zip(slides, cases, images, strict=True)
    ]
    parameters = {k: v for k, v in vars(spec).items() if k != "dataset"}
    digest = manifest_digest(pool, places, **parameters)
    return Candidates(
        digest, spec, pool, images, slides, known, centres, places, counts["aside"], notes
    )


def _selected(con: Any, spec: ManifestSpec) -> dict[str, list[Any]]:
    """Return the columns of the usable annotations that a spec selects, sorted by id."""
    # A sub-select, so that no condition can reach beyond this dataset's usable annotations.
    selected = (
        f"from (select * from annotations where dataset = {literal(spec.dataset)} and "
        f"status = 'ok') where {where_clause(spec.where)} order by annotation_id"
    )
    columns = (
        "annotation_id, label, domain, slide, source_slide, case_id, x_l0, y_l0, "
        "coalesce(mpp, 0.25) as mpp, kind, split"
    )
    rows = fetch(con, f"select {columns} {selected}").to_pydict()
    again = fetch(con, f"select annotation_id {selected}")["annotation_id"].to_pylist()
    if sorted(again) != sorted(rows["annotation_id"]):
        raise EmbedstoreError(
            f"--where {spec.where} selects other annotations each time it is asked; use a "
            "condition on what is stored"
        )
    if not again:
        raise EmbedstoreError(f"dataset '{spec.dataset}' has no usable annotations{_cut_by(spec)}")
    # DuckDB and Python must agree on what "sorted" means, so sort here, by code point.
    order = sorted(range(len(again)), key=rows["annotation_id"].__getitem__)
    return {k: [v[i] for i in order] for k, v in rows.items()}


def _cut_by(spec: ManifestSpec) -> str:
    return f" that meet --where {spec.where}" if spec.where else ""


def split_id(manifest_id: str, fold: int, fraction: float, train_domain: str | None) -> str:
    """Return the key of one split, readable and unique in a store."""
    domain = "" if train_domain is None else f"/{train_domain}"
    return f"{manifest_id}/{fold}/{fraction!r}{domain}"


def ensure_splits(
    store: Store,
    manifest: Candidates,
    *,
    folds: Sequence[int],
    fractions: Sequence[float] | None,
    domains: Sequence[str] | None = None,
) -> tuple[list[StoredSplit], list[str]]:
    """Return the splits for all folds, fractions and train domains, made where missing, and notes.

    fractions None means the default ones, of which those too small for the dataset are skipped and
    named in the notes; one asked for that cannot be is an EmbedstoreError. A domain that cannot
    train is left out by name, or, if asked for, an error. All is checked before any is written.
    """
    if fractions is not None and not fractions:
        raise EmbedstoreError("no fraction is named; give some in (0, 1], for example 0.1,1")
    asked = None if fractions is None else [check_fraction(f) for f in dict.fromkeys(fractions)]
    scheme, notes = manifest.spec.scheme, list(manifest.notes)
    every = train_domains(scheme, manifest.pool)
    if domains and (unknown := [d for d in domains if d not in every]):
        raise EmbedstoreError(
            f"no train domain {', '.join(unknown)}; there: "
            f"{', '.join(map(str, every)) if every != [None] else f'none in {scheme}'}"
        )
    have = load_splits(store, manifest.manifest_id)
    wanted: list[tuple[int, float, str | None]] = []
    made: dict[tuple[int, float, str | None], Split] = {}
    for domain in domains or every:
        for fraction in asked if asked is not None else DEFAULT_FRACTIONS:
            distinct = distinct_folds(scheme, manifest.pool, fraction, folds)
            if distinct != list(dict.fromkeys(folds)):
                notes.append(
                    f"fraction {fraction:g}: train and val are given, so all folds are fold 0"
                )
            keys = [(fold, fraction, domain) for fold in distinct]
            try:
                made |= {
                    k: _cut(manifest, *k)
                    for k in keys
                    if split_id(manifest.manifest_id, *k) not in have
                }
            except InfeasibleError as e:
                where = f"train domain {domain}, " if domain is not None else ""
                message = f"{where}fraction {fraction:g}: {e}"
                if (asked is not None and every == [None]) or domains:
                    raise EmbedstoreError(message) from e
                notes.append(f"left out {message}")
                continue
            wanted += keys
    if not wanted:
        raise EmbedstoreError(f"'{manifest.spec.dataset}' cannot be split: " + "; ".join(notes))
    rows = [split_row(manifest, k, made[k]) for k in wanted if k in made]
    store.merge("splits", rows, replace=False)
    have |= {r["split_id"]: as_stored(r) for r in rows}
    return [have[split_id(manifest.manifest_id, *k)] for k in wanted], notes


def load_splits(store: Store, manifest_id: str) -> dict[str, StoredSplit]:
    """Return the recorded splits of a manifest by split id."""
    sql = f"select * from _splits where manifest_id = {literal(manifest_id)}"
    table = fetch(connect_to(store, "splits"), sql)
    rows = table.drop_columns([*ROLES]).to_pylist()
    return {
        row["split_id"]: StoredSplit(SplitRow(**row), {r: table[r][n].values for r in ROLES})
        for n, row in enumerate(rows)
    }


def as_stored(row: dict[str, Any]) -> StoredSplit:
    """Return a split by its row of the table."""
    roles = {role: pa.array(row[role], pa.string()) for role in ROLES}
    return StoredSplit(SplitRow(**{k: v for k, v in row.items() if k not in roles}), roles)


def _cut(manifest: Candidates, fold: int, fraction: float, domain: str | None) -> Split:
    spec = manifest.spec
    way = Way(spec.group_by, spec.stratify, spec.seed)
    return SCHEMES[spec.scheme].cut(manifest.pool, fold, fraction, domain, way)


def split_row(
    manifest: Candidates, key: tuple[int, float, str | None], split: Split
) -> dict[str, Any]:
    """Return the row of the splits table for fold, fraction and train domain, with its audit."""
    spec, (fold, fraction, domain) = manifest.spec, key
    roles = {r: [manifest.pool.ids[i] for i in getattr(split, r)] for r in ROLES}
    return {
        "split_id": split_id(manifest.manifest_id, *key),
        "manifest_id": manifest.manifest_id,
        **spec.row(),
        "fold": fold,
        "fraction": fraction,
        "train_domain": domain,
        "val_by": split.val_by,
        **{f"n_{r}": len(ids) for r, ids in roles.items()},
        **audit(
            split,
            slides=manifest.slides,
            cases=manifest.cases,
            centres_um=manifest.centres_um,
        ),
        "created_at": now(),
        **roles,
    }
