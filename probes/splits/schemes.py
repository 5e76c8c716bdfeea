"""Split schemes: what each fold trains and tests on; a new one is a function and a row."""

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedstore.errors import EmbedstoreError
from probes.splits.draw import (
    ROLES,
    Indices,
    InfeasibleError,
    Pool,
    Split,
    Way,
    cut,
    draw_order,
    keyed_order,
    lacking,
    subset_size,
    with_val,
)


def _checked(pool: Pool, split: Split, members: Indices, way: Way) -> Split:
    if len({pool.labels[i] for i in members}) < 2:
        raise InfeasibleError(f"all {len(members)} annotations have one label")
    if (label := lacking(pool, split.train)) is not None:
        raise InfeasibleError(
            f"too small, its {len(split.train)} training annotations hold fewer than two of "
            f"'{label}'"
        )
    if len({pool.labels[i] for i in split.test}) < 2:
        way_out = "; --stratify label gives every part each label's share"
        raise InfeasibleError(
            f"too small, its {len(split.test)} test annotations have one label"
            f"{way_out if way.stratify == 'none' else ''}"
        )
    return split


def monte_carlo(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, way: Way
) -> Split:
    """Return one fold of Monte Carlo cross-validation; train_domain is not used (None)."""
    members = np.arange(len(pool.ids), dtype=np.int64)
    split, _ = cut(
        pool,
        members,
        fold,
        fraction,
        way,
        key="monte-carlo",
    )
    return _checked(pool, split, members, way)


def cross_domain(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, way: Way
) -> Split:
    """Return one fold trained on train_domain; test is 20% of it and all other domains."""
    return _in_domain(pool, fold, fraction, str(train_domain), way, None)


def size_matched(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, way: Way
) -> Split:
    """Return a cross-domain fold trained on as many rows as that of the smallest domain.

    Of the domains that can train: so that a domain's size does not pass for its nature. Fractions
    are of the smallest training pool; the test sets are those of cross-domain.
    """
    able = [d for d in sorted(set(pool.domains)) if _trained(pool, fold, 1.0, d, way, None)]
    # Whole groups go to test and val: what they leave is counted, not reckoned.
    pools = [_pool_size(pool, fold, d, way) for d in able]
    n_pool = min(pools, default=None)
    split = _in_domain(pool, fold, fraction, str(train_domain), way, n_pool)
    trained = [
        len(s.train)
        for d in able
        if (s := _trained(pool, fold, fraction, d, way, n_pool)) is not None
    ]
    n_train = min(trained, default=len(split.train))
    members = np.arange(len(pool.ids), dtype=np.int64)
    return _checked(pool, replace(split, train=split.train[:n_train]), members, way)


def _pool_size(pool: Pool, fold: int, domain: str, way: Way) -> int:
    members = np.flatnonzero([d == domain for d in pool.domains]).astype(np.int64)
    return len(cut(pool, members, fold, 1.0, way, key=f"cross-domain|{domain}")[1])


def _in_domain(
    pool: Pool, fold: int, fraction: float, domain: str, way: Way, n_pool: int | None
) -> Split:
    inside = [d == domain for d in pool.domains]
    key = f"cross-domain|{domain}"
    return _by_domain(pool, fold, fraction, inside, way, key=key, n_pool=n_pool)


def _trained(
    pool: Pool, fold: int, fraction: float, domain: str, way: Way, n_pool: int | None
) -> Split | None:
    """Return the split trained on a domain, None where it is too small."""
    try:
        return _in_domain(pool, fold, fraction, domain, way, n_pool)
    except InfeasibleError:
        return None


NOT = "not "
"""How the train domain of leave-one-domain-out begins: what follows is left out."""


def leave_one_domain_out(
    pool: Pool, fold: int, fraction: float, train_domain: str | None, way: Way
) -> Split:
    """Return one fold trained on all domains but one ("not DOMAIN").

    Tested on 20% of the others, each by itself, and on all of the one left out.
    """
    out = str(train_domain).removeprefix(NOT)
    return _by_domain(
        pool,
        fold,
        fraction,
        [d != out for d in pool.domains],
        way,
        key=f"leave-one-domain-out|{out}",
    )


def _by_domain(
    pool: Pool,
    fold: int,
    fraction: float,
    inside: Sequence[bool],
    way: Way,
    *,
    key: str,
    n_pool: int | None = None,
) -> Split:
    """Return a fold trained inside some domains and tested on 20% of them and on all others.

    Grouped, annotations elsewhere that share a group with the fold's training pool are in no role.
    """
    members = np.flatnonzero(inside).astype(np.int64)
    split, rest = cut(
        pool,
        members,
        fold,
        fraction,
        way,
        key=key,
        n_pool=n_pool,
    )
    _checked(pool, split, members, way)
    outside = np.flatnonzero(~np.asarray(inside, dtype=bool)).astype(np.int64)
    if way.group_by != "annotation":
        taken = {pool.groups[i] for i in rest}
        free = np.array([pool.groups[i] not in taken for i in outside.tolist()], dtype=bool)
        outside = outside[free]
    return Split(split.train, split.val, np.concatenate((split.test, outside)), split.val_by)


def predefined(pool: Pool, fold: int, fraction: float, train_domain: str | None, way: Way) -> Split:
    """Return the dataset's own split; a fraction is a prefix of its train rows in the fold's order.

    Rows given as val are val at every fraction; where there are none, val is cut from the prefix.
    Rows in no split are in no role; train_domain is not used (None).
    """
    train, val, test = (_in_split(pool, role) for role in ROLES)
    _check_given(pool, train, val, test, way.group_by)
    order = draw_order(pool, train, way.stratify, way.seed, fold, "predefined")
    subset = order[: subset_size(len(order), fraction)]
    if len(val):
        split = Split(subset, val, test, "given")
    else:
        names = sorted({pool.groups[i] for i in train})
        groups = [names[k] for k in keyed_order(names, way.seed, fold, "predefined", "groups")]
        split = with_val(pool, subset, test, None if way.group_by == "annotation" else groups)
    return _checked(pool, split, np.concatenate((train, val, test)), way)


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


def _is_given_whole(pool: Pool, fraction: float) -> bool:
    """Return whether a dataset's own split leaves nothing to draw, so that all folds are one."""
    return fraction == 1 and len(_in_split(pool, "val")) > 0


def _all_at_once(domains: Sequence[str]) -> list[str | None]:
    return [None]


def _each(domains: Sequence[str]) -> list[str | None]:
    return [*domains]


def _all_but_each(domains: Sequence[str]) -> list[str | None]:
    return [f"{NOT}{d}" for d in domains]


@dataclass(frozen=True)
class Scheme:
    """What a fold trains and tests on; all that anything else asks of a scheme.

    cut: from a pool, fold, fraction, train domain and way to a split. train_domains: from all
    domains, sorted, to those that are trained on, None standing for all at once. is_in_domain:
    whether a train domain covers an eval domain. is_one_fold: whether all folds of a fraction would
    hold the same annotations. is_given: whether the dataset's own split decides the roles.
    """

    cut: Callable[[Pool, int, float, str | None, Way], Split]
    about: str
    train_domains: Callable[[Sequence[str]], list[str | None]] = _all_at_once
    is_in_domain: Callable[[str, str], bool] = operator.eq
    is_one_fold: Callable[[Pool, float], bool] = lambda pool, fraction: False
    is_given: bool = False


SCHEMES: dict[str, Scheme] = {
    "monte-carlo": Scheme(monte_carlo, "all domains at once, five draws"),
    "cross-domain": Scheme(cross_domain, "train on each domain, test on all", _each),
    "cross-domain-size-matched": Scheme(
        size_matched, "cross-domain, every domain at the smallest one's size", _each
    ),
    "leave-one-domain-out": Scheme(
        leave_one_domain_out,
        "train on all domains but one",
        _all_but_each,
        lambda trained, evaluated: evaluated != trained.removeprefix(NOT),
    ),
    "predefined": Scheme(
        predefined, "the dataset's own split", is_one_fold=_is_given_whole, is_given=True
    ),
}


def distinct_folds(scheme: str, pool: Pool, fraction: float, folds: Iterable[int]) -> list[int]:
    """Return the folds that are worth making: only 0 where all would hold the same annotations."""
    asked = list(dict.fromkeys(folds))
    return [0] if asked and SCHEMES[scheme].is_one_fold(pool, fraction) else asked


def train_domains(scheme: str, pool: Pool) -> list[str | None]:
    """Return the train domains of a scheme: one None where it does not train by domain."""
    return SCHEMES[scheme].train_domains(sorted(set(pool.domains)))


def trains_by_domain(scheme: str) -> bool:
    """Return whether the splits of a scheme train on some domains and not on others."""
    return scheme in SCHEMES and SCHEMES[scheme].train_domains is not _all_at_once


def is_in_domain(scheme: str, train_domain: str, eval_domain: str) -> bool:
    """Return whether a by-domain split trains on the domain that is evaluated.

    A manifest that was imported has a scheme of its own: its train domains are taken by name.
    """
    row = SCHEMES.get(scheme)
    return (row.is_in_domain if row else operator.eq)(train_domain, eval_domain)
