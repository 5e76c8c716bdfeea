"""Split protocol as pure functions: which annotation is in train, val or test.

Order comes from keyed hashes of the annotation ids, not from a random generator: it is the same on
every machine and numpy version, does not depend on the order of the input, and each fold and
fraction is reproducible alone. Sizes follow Ganz et al. 2025 exactly (see `sizes`).
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError

Indices = NDArray[np.int64]
GroupBy = Literal["annotation", "slide", "case"]
GROUPINGS: tuple[GroupBy, ...] = ("annotation", "slide", "case")
STRATA = ("none", "label")
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
        raise EmbedstoreError(f"fraction {fraction:g} is not in (0, 1]{hint}")
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
    labels, found, chosen, n = {pool.labels[i] for i in members}, set[str](), set[str](), 0
    for group in order:
        if n >= n_wanted and found == labels:
            break
        if group in members_of:
            chosen.add(group)
            n += len(members_of[group])
            found |= {pool.labels[i] for i in members_of[group]}
    in_chosen = np.array([pool.groups[i] in chosen for i in members], dtype=bool)
    return members[in_chosen], members[~in_chosen]


def _cut(
    pool: Pool, members: Indices, fold: int, fraction: float, *,
    group_by: str, stratify: str, seed: int, key: str,
) -> tuple[Split, Indices]:  # fmt: skip
    """Return the split of `members`, and the fold's whole pool that its fractions draw from."""
    order = draw_order(pool, members, stratify, seed, fold, key)
    if group_by == "annotation":
        n_test = test_size(len(order))
        test, rest = order[:n_test], order[n_test:]
    else:
        names = sorted({pool.groups[i] for i in members})
        groups = [names[k] for k in keyed_order(names, seed, fold, key, "groups")]
        n_wanted = -(-len(order) // 5)  # at least 20%
        test, rest = _whole_groups(pool, order, groups, n_wanted)
    subset = rest[: subset_size(len(rest), fraction)]
    return _with_val(pool, subset, test, None if group_by == "annotation" else groups[::-1]), rest


def _with_val(pool: Pool, subset: Indices, test: Indices, groups: Sequence[str] | None) -> Split:
    """Return the split whose val is cut from `subset`: whole groups in order, or annotations."""
    n_train = train_size(len(subset))
    if groups is not None:
        val_groups, left = _whole_groups(pool, subset, groups, len(subset) - n_train)
        # Enough groups: train keeps every label and at least half of the subset.
        if 2 * len(left) >= len(subset) and lacking(pool, left) is None:
            return Split(left, val_groups, test, "group")
    return Split(subset[:n_train], subset[n_train:], test, "annotation")


def lacking(pool: Pool, train: Indices) -> str | None:
    """Return the first label of the pool that `train` has fewer than two rows of, or None."""
    for label in sorted(set(pool.labels)):
        if sum(pool.labels[i] == label for i in train) < 2:
            return label
    return None


def _checked(pool: Pool, split: Split, members: Indices) -> Split:
    if len({pool.labels[i] for i in members}) < 2:
        raise InfeasibleError(f"all {len(members)} annotations have one label")
    if (label := lacking(pool, split.train)) is not None:
        raise InfeasibleError(
            f"too small, its {len(split.train)} training annotations hold fewer than two of "
            f"'{label}'"
        )
    if len({pool.labels[i] for i in split.test}) < 2:
        raise InfeasibleError(f"too small, its {len(split.test)} test annotations have one label")
    return split


def monte_carlo(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, *,
    group_by: str, stratify: str, seed: int,
) -> Split:  # fmt: skip
    """Return one fold of Monte Carlo cross-validation; train_domain is not used (None)."""
    members = np.arange(len(pool.ids), dtype=np.int64)
    split, _ = _cut(pool, members, fold, fraction, group_by=group_by, stratify=stratify,
                    seed=seed, key="monte-carlo")  # fmt: skip
    return _checked(pool, split, members)


def cross_domain(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, *,
    group_by: str, stratify: str, seed: int,
) -> Split:  # fmt: skip
    """Return one fold trained on train_domain; test is 20% of it and all other domains.

    Grouped, annotations elsewhere that share a group with the fold's training pool are in no role.
    """
    inside = np.array([d == train_domain for d in pool.domains], dtype=bool)
    members = np.flatnonzero(inside).astype(np.int64)
    split, rest = _cut(pool, members, fold, fraction, group_by=group_by, stratify=stratify,
                       seed=seed, key=f"cross-domain|{train_domain}")  # fmt: skip
    _checked(pool, split, members)
    outside = np.flatnonzero(~inside).astype(np.int64)
    if group_by != "annotation":
        taken = {pool.groups[i] for i in rest}
        free = np.array([pool.groups[i] not in taken for i in outside.tolist()], dtype=bool)
        outside = outside[free]
    return Split(split.train, split.val, np.concatenate((split.test, outside)), split.val_by)


def predefined(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, *,
    group_by: str, stratify: str, seed: int,
) -> Split:  # fmt: skip
    """Return the dataset's own split; a fraction is a prefix of its train rows in the fold's order.

    Rows given as val are val at every fraction; where there are none, val is cut from the prefix.
    Rows in no split are in no role; train_domain is not used (None).
    """
    train, val, test = (_in_split(pool, role) for role in ("train", "val", "test"))
    _check_given(pool, train, val, test, group_by)
    order = draw_order(pool, train, stratify, seed, fold, "predefined")
    subset = order[: subset_size(len(order), fraction)]
    if len(val):
        split = Split(subset, val, test, "given")
    else:
        names = sorted({pool.groups[i] for i in train})
        groups = [names[k] for k in keyed_order(names, seed, fold, "predefined", "groups")]
        split = _with_val(pool, subset, test, None if group_by == "annotation" else groups)
    return _checked(pool, split, np.concatenate((train, val, test)))


def _in_split(pool: Pool, role: str) -> Indices:
    splits = pool.splits or [None] * len(pool.ids)
    return np.flatnonzero(np.array([s == role for s in splits], dtype=bool)).astype(np.int64)


def _check_given(pool: Pool, train: Indices, val: Indices, test: Indices, group_by: str) -> None:
    """Raise EmbedstoreError where no fraction of a dataset's own split can be used, and why."""
    way_out = "mend the column split and add the file again, or use another --scheme"
    for role, members in (("train", train), ("test", test)):
        if not len(members):
            raise EmbedstoreError(f"no annotation is in {role}: {way_out}")
        if len(labels := {pool.labels[i] for i in members}) == 1:
            (label,) = labels
            raise EmbedstoreError(
                f"all {len(members)} annotations in {role} are '{label}', and it takes two labels: "
                f"{way_out}"
            )
    if group_by != "annotation":
        seen = {pool.groups[i] for i in (*train, *val)}
        if both := sorted(seen & {pool.groups[i] for i in test}):
            more = f" and {len(both) - 5} more" if len(both) > 5 else ""
            raise EmbedstoreError(
                f"{len(both)} {group_by}s have annotations in train or val and in test: "
                f"{', '.join(both[:5])}{more}; put each on one side and add the file again, or use "
                "--group-by annotation and read the audit"
            )


def distinct_folds(scheme: str, pool: Pool, fraction: float, folds: Iterable[int]) -> list[int]:
    """Return the folds that are worth making: only 0 where all would hold the same annotations."""
    asked = list(dict.fromkeys(folds))
    is_one = scheme == "predefined" and fraction == 1 and len(_in_split(pool, "val"))
    return [0] if is_one and asked else asked


Scheme = Callable[..., Split]
SCHEMES: dict[str, Scheme] = {
    "monte-carlo": monte_carlo, "cross-domain": cross_domain, "predefined": predefined,
}  # fmt: skip


def train_domains(scheme: str, pool: Pool) -> list[str | None]:
    """Return the train domains of a scheme: one None where it does not train by domain."""
    return [*sorted(set(pool.domains))] if scheme == "cross-domain" else [None]


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
