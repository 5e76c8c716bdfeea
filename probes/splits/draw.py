"""Split protocol as pure functions: which annotation is in train, val or test.

Order comes from keyed hashes of the annotation ids, not from a random generator: it is the same on
every machine and numpy version, does not depend on the order of the input, and each fold and
fraction is reproducible alone. Sizes follow Ganz et al. 2025 exactly (see `sizes`).
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError

Indices = NDArray[np.int64]
GroupBy = Literal["annotation", "slide", "case"]
GROUPINGS: tuple[GroupBy, ...] = ("annotation", "slide", "case")
STRATA = ("none", "label")
ROLES = ("train", "val", "test")
DEFAULT_FRACTIONS = (0.001, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Pool:
    """The annotations a manifest is cut from, sorted by id; all lists have one length.

    splits holds the dataset's own train, val and test (None: in none), for scheme predefined.
    """

    ids: Sequence[str]
    labels: Sequence[str]
    domains: Sequence[str]
    groups: Sequence[str]
    splits: Sequence[str | None] | None = None

    def __post_init__(self) -> None:
        """Refuse an unsorted or repeating list of ids, which would make digests ambiguous."""
        if any(a >= b for a, b in zip(self.ids, self.ids[1:], strict=False)):
            raise ValueError("ids must be sorted and unique")


@dataclass(frozen=True)
class Split:
    """Positions in the pool per role, in order of drawing; val_by says how val was drawn."""

    train: Indices
    val: Indices
    test: Indices
    val_by: Literal["annotation", "group", "given"]


class InfeasibleError(EmbedstoreError):
    """Raised where a pool is too small for a fraction; the message says what is short."""


def sizes(n: int, fraction: float) -> tuple[int, int, int]:
    """Return (n_train, n_val, n_test) of n annotations: the paper's arithmetic.

    test = floor(0.2 n); subset = floor(fraction * (n - test)); train = floor(0.8 * subset). In
    exact decimals: floor(0.29 * 100) is 29, not the 28 that binary floats give.
    """
    n_test = test_size(n)
    n_subset = subset_size(n - n_test, fraction)
    n_train = train_size(n_subset)
    return n_train, n_subset - n_train, n_test


def test_size(n: int) -> int:
    """Return floor(0.2 * n)."""
    return n // 5


def train_size(n_subset: int) -> int:
    """Return floor(0.8 * n_subset); the rest is validation."""
    return n_subset * 4 // 5


def subset_size(n_pool: int, fraction: float) -> int:
    """Return floor(fraction * n_pool), in exact decimals."""
    return int(Fraction(repr(float(fraction))) * n_pool)


def check_fraction(fraction: float) -> float:
    """Return fraction if it lies in (0, 1]; EmbedstoreError otherwise."""
    if not 0 < fraction <= 1:
        hint = f" (percent? give {fraction / 100:g})" if 1 < fraction <= 100 else ""
        raise UsageError(f"fraction {fraction:g} is not in (0, 1]{hint}")
    return float(fraction)


def keyed_order(names: Sequence[str], *key: object) -> Indices:
    """Return the permutation of positions that sorts names by a hash keyed with `key`."""
    prefix = "|".join(map(str, key)).encode()
    hashes = [hashlib.blake2b(prefix + b"|" + n.encode(), digest_size=16).digest() for n in names]
    return np.array(sorted(range(len(names)), key=hashes.__getitem__), dtype=np.int64)


def draw_order(pool: Pool, members: Indices, stratify: str, *key: object) -> Indices:
    """Return `members` in random order; stratified, every prefix keeps the labels' proportions."""
    order = members[keyed_order([pool.ids[i] for i in members], *key)]
    if stratify == "none":
        return order
    n_of = {label: sum(pool.labels[i] == label for i in order) for label in set(pool.labels)}
    seen = dict.fromkeys(n_of, 0)
    place = np.empty(len(order))
    for k, i in enumerate(order):
        label = pool.labels[i]
        place[k] = (seen[label] + 0.5) / n_of[label]
        seen[label] += 1
    return order[np.argsort(place, kind="stable")]


def _whole_groups(
    pool: Pool, members: Indices, order: Sequence[str], n_wanted: int
) -> tuple[Indices, Indices]:
    """Return (chosen, rest): whole groups in `order` until n_wanted members and every label."""
    members_of: dict[str, list[int]] = {}
    for i in members:
        members_of.setdefault(pool.groups[i], []).append(int(i))
    labels, seen, chosen, n = {pool.labels[i] for i in members}, set[str](), set[str](), 0
    for group in order:
        if n >= n_wanted and seen == labels:
            break
        if group in members_of:
            chosen.add(group)
            n += len(members_of[group])
            seen |= {pool.labels[i] for i in members_of[group]}
    in_chosen = np.array([pool.groups[i] in chosen for i in members], dtype=bool)
    return members[in_chosen], members[~in_chosen]


@dataclass(frozen=True)
class Way:
    """How annotations are drawn, whatever the scheme: what stays on one side, strata, seed."""

    group_by: str
    stratify: str
    seed: int


def cut(
    pool: Pool,
    members: Indices,
    fold: int,
    fraction: float,
    way: Way,
    *,
    key: str,
    n_pool: int | None = None,
) -> tuple[Split, Indices]:
    """Return the split of `members`, and the fold's whole pool that its fractions draw from.

    n_pool caps how much of the pool a fraction is of.
    """
    order = draw_order(pool, members, way.stratify, way.seed, fold, key)
    if way.group_by == "annotation":
        n_test = test_size(len(order))
        test, rest = order[:n_test], order[n_test:]
    else:
        names = sorted({pool.groups[i] for i in members})
        groups = [names[k] for k in keyed_order(names, way.seed, fold, key, "groups")]
        n_wanted = -(-len(order) // 5)  # at least 20%
        test, rest = _whole_groups(pool, order, groups, n_wanted)
    subset = rest[: subset_size(min(len(rest), n_pool or len(rest)), fraction)]
    return with_val(
        pool, subset, test, None if way.group_by == "annotation" else groups[::-1]
    ), rest


def with_val(pool: Pool, subset: Indices, test: Indices, groups: Sequence[str] | None) -> Split:
    """Return the split whose val is cut from `subset`: whole groups in order, or annotations."""
    n_train = train_size(len(subset))
    if groups is not None:
        val_groups, left = _whole_groups(pool, subset, groups, len(subset) - n_train)
        # Enough groups: train keeps every label and at least half of the subset.
        if 2 * len(left) >= len(subset) and lacking(pool, left) is None:
            return Split(left, val_groups, test, "group")
    return Split(subset[:n_train], subset[n_train:], test, "annotation")


def lacking(pool: Pool, train: Indices, labels: Collection[str] | None = None) -> str | None:
    """Return the first label (None: of the pool's) that `train` has under two rows of, or None."""
    for label in sorted(set(pool.labels) if labels is None else labels):
        if sum(pool.labels[i] == label for i in train) < 2:
            return label
    return None


def manifest_digest(pool: Pool, centres: Sequence[str], **parameters: object) -> str:
    """Return the manifest id: 16 hex digits over the annotations and the parameters by name.

    centres holds each annotation's place as text: a moved annotation is another one, to the audit
    and to every score. The dataset's own split counts where the pool has one.
    """
    digest = hashlib.sha256()
    for name in sorted(parameters):
        digest.update(f"{name}={parameters[name]!r}\n".encode())
    columns: list[Sequence[str]] = [pool.ids, pool.labels, pool.domains, pool.groups, centres]
    if pool.splits is not None:
        columns.append([s or "" for s in pool.splits])
    for row in zip(*columns, strict=True):
        digest.update("\t".join(row).encode() + b"\n")
    return digest.hexdigest()[:16]
