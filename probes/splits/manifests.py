"""Split manifests in the store: made once, addressed by digest, with a leakage audit each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.errors import EmbedstoreError
from embedstore.store import Store, now
from embedstore.store.layout import TABLES
from embedstore.store.sql import (
    connect_to,
    fetch,
    literal,
)
from probes.splits.audit import audit
from probes.splits.candidates import Candidates, cut_by
from probes.splits.draw import (
    DEFAULT_FRACTIONS,
    ROLES,
    InfeasibleError,
    Split,
    Way,
    check_fraction,
)
from probes.splits.recorded import SplitRow
from probes.splits.schemes import SCHEMES, distinct_folds, train_domains


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
    _check_domains(manifest, every, domains or ())
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
                    k: cut_split(manifest, *k)
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
    splits = [have[split_id(manifest.manifest_id, *k)] for k in wanted]
    return audited(store, manifest, splits), notes


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


def cut_split(manifest: Candidates, fold: int, fraction: float, domain: str | None) -> Split:
    """Return a fold's split at a fraction, trained on a domain or, None, on all."""
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
        **_audit(manifest, split),
        "created_at": now(),
        **roles,
    }


def _audit(manifest: Candidates, split: Split) -> dict[str, float | None]:
    """Return the columns of the splits table that say what a split gives away."""
    shares = audit(
        split,
        slides=manifest.slides,
        cases=manifest.cases,
        centres_um=manifest.centres_um,
        patch_um=manifest.patch_um,
    )
    return {**shares, "patch_um": manifest.patch_um}


def audited(store: Store, manifest: Candidates, splits: Sequence[StoredSplit]) -> list[StoredSplit]:
    """Return splits whose audit is of patches as wide as are embedded by now, made anew if not."""
    place = {i: n for n, i in enumerate(manifest.pool.ids)}
    anew: dict[str, dict[str, Any]] = {}
    for s in splits:
        if s.row.patch_um != manifest.patch_um:
            of = {r: [place[i] for i in s.ids(r).to_pylist()] for r in ROLES}
            roles = {r: np.array(numbers, dtype=np.int64) for r, numbers in of.items()}
            anew[s.split_id] = _audit(manifest, Split(val_by="given", **roles))
    if anew:
        rows = [{"split_id": i, **shares} for i, shares in anew.items()]
        schema = pa.schema([TABLES["splits"].field(c) for c in rows[0]])
        store.update_columns("splits", pa.Table.from_pylist(rows, schema=schema))
    return [replace(s, row=replace(s.row, **anew.get(s.split_id, {}))) for s in splits]


def _check_domains(manifest: Candidates, every: Sequence[str | None], asked: Sequence[str]) -> None:
    """Raise EmbedstoreError where the scheme lacks domains, or one asked for is not there."""
    spec, is_by_domain = manifest.spec, list(every) != [None]
    if is_by_domain and len(there := sorted(set(manifest.pool.domains))) < 2:
        raise EmbedstoreError(
            f"--scheme {spec.scheme} needs two domains, and '{spec.dataset}'"
            f"{cut_by(spec)} has one, '{there[0]}': use --scheme monte-carlo, or add the "
            "file again with --domain-from"
        )
    if unknown := [d for d in asked if d not in every]:
        known = ", ".join(map(str, every)) if is_by_domain else f"none in {spec.scheme}"
        raise EmbedstoreError(f"no train domain {', '.join(unknown)}; there: {known}")
