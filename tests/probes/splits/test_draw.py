"""Splits: the paper's arithmetic, stored digests, and properties for any pool."""

import hashlib
from collections import Counter
from math import floor
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError
from probes.splits.draw import (
    InfeasibleError,
    Pool,
    Way,
    check_fraction,
    draw_order,
    keyed_order,
    manifest_digest,
    sizes,
    subset_size,
)
from probes.splits.schemes import cross_domain, monte_carlo
from tests.making.splits import PLAIN


def make_pool(n: int, n_slides: int = 7, positives: float = 0.4, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    rows = sorted(
        (f"d/{s:02d}.tiff/{i}", ("neg", "pos")[int(p)], f"dom{s % 3}", f"{s:02d}")
        for i, (s, p) in enumerate(
            zip(rng.integers(0, n_slides, n), rng.random(n) < positives, strict=True)
        )
    )
    return Pool(*(list(c) for c in zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (20_552, {0.001: 12, 0.01: 131, 0.1: 1_315, 1: 13_153}),
        (72_845, {0.001: 46, 0.01: 465, 0.1: 4_661, 1: 46_620}),
    ],
)
def test_sizes_are_the_papers(n: int, expected: Any) -> None:
    for fraction, n_train in expected.items():
        assert sizes(n, fraction)[0] == n_train
        assert sizes(n, fraction)[2] == floor(n * 0.2)
    pool = make_pool(n, n_slides=40)
    split = monte_carlo(pool, 0, 0.01, None, Way(**PLAIN))
    assert (len(split.train), len(split.val), len(split.test)) == sizes(n, 0.01)


def test_sizes_are_exact_where_binary_floats_are_not() -> None:
    assert floor(0.29 * 100) == 28  # the trap
    assert subset_size(100, 0.29) == 29
    assert subset_size(1000, 0.001) == 1


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, 10, float("nan"), float("inf")])
def test_fractions_outside_are_refused(fraction: Any) -> None:
    with pytest.raises(EmbedstoreError, match=r"not in \(0, 1\]"):
        check_fraction(fraction)


def test_percent_gets_a_hint() -> None:
    with pytest.raises(EmbedstoreError, match=r"percent\? give 0.1"):
        check_fraction(10)


POOLS = st.builds(
    make_pool,
    n=st.integers(60, 300),
    n_slides=st.integers(6, 30),
    positives=st.floats(0.3, 0.7),
    seed=st.integers(0, 99),
)
WAYS = st.fixed_dictionaries(
    {
        "group_by": st.sampled_from(["annotation", "slide"]),
        "stratify": st.sampled_from(["none", "label"]),
        "seed": st.integers(0, 5),
    }
)


def cut(scheme: Any, pool: Any, fold: Any, fraction: Any, domain: Any, way: Any) -> Any:
    try:
        return scheme(pool, fold, fraction, domain, Way(**way))
    except InfeasibleError:
        assume(False)


@settings(max_examples=60, deadline=None)
@given(pool=POOLS, way=WAYS, fold=st.integers(0, 4), small=st.floats(0.2, 0.9))
def test_monte_carlo_properties(pool: Any, way: Any, fold: Any, small: Any) -> None:
    whole = cut(monte_carlo, pool, fold, 1.0, None, way)
    part = cut(monte_carlo, pool, fold, small, None, way)
    n = len(pool.ids)
    everything = np.concatenate((whole.train, whole.val, whole.test))
    assert sorted(everything) == list(range(n))  # disjoint and complete
    assert len(set(np.concatenate((part.train, part.val, part.test)))) == len(part.train) + len(
        part.val
    ) + len(part.test)
    np.testing.assert_array_equal(whole.test, part.test)  # one test set for all fractions
    assert {*part.train, *part.val} <= {*whole.train, *whole.val}  # fractions nest
    again = monte_carlo(pool, fold, small, None, Way(**way))
    np.testing.assert_array_equal(part.train, again.train)
    if way["group_by"] == "annotation":
        assert (len(part.train), len(part.val), len(part.test)) == sizes(n, small)
        assert set(part.train) <= set(whole.train)
    else:
        groups = [{pool.groups[i] for i in r} for r in (whole.train, whole.val, whole.test)]
        assert not groups[2] & (groups[0] | groups[1])
        assert len(whole.test) >= 0.2 * n
        assert {pool.labels[i] for i in whole.test} == {"pos", "neg"}
        if whole.val_by == "group":
            assert not groups[0] & groups[1]


@settings(max_examples=40, deadline=None)
@given(pool=POOLS, way=WAYS, fold=st.integers(0, 4))
def test_cross_domain_properties(pool: Any, way: Any, fold: Any) -> None:
    split = cut(cross_domain, pool, fold, 1.0, "dom1", way)
    domains = np.array(pool.domains)
    seen = np.concatenate((split.train, split.val))
    assert set(domains[seen]) == {"dom1"}
    outside = split.test[domains[split.test] != "dom1"]
    assert len(outside) == (domains != "dom1").sum()  # slides lie in one domain here
    inside = split.test[domains[split.test] == "dom1"]
    assert sorted([*seen, *inside]) == list(np.flatnonzero(domains == "dom1"))
    if way["group_by"] == "annotation":
        assert len(inside) == (domains == "dom1").sum() // 5


def test_a_group_across_domains_is_never_on_both_sides() -> None:
    pool = make_pool(200, n_slides=9)
    mixed = Pool(
        pool.ids, pool.labels, pool.domains, [f"g{sum(i.encode()) % 11}" for i in pool.ids]
    )
    split = cross_domain(mixed, 0, 1.0, "dom0", Way("case", "none", 1))
    train = {mixed.groups[i] for i in (*split.train, *split.val)}
    assert not train & {mixed.groups[i] for i in split.test}


@settings(max_examples=40, deadline=None)
@given(pool=POOLS, seed=st.integers(0, 9))
def test_stratified_prefixes_keep_proportions(pool: Any, seed: Any) -> None:
    order = draw_order(pool, np.arange(len(pool.ids)), "label", seed)
    share = Counter(pool.labels)["pos"] / len(order)
    found = np.cumsum([pool.labels[i] == "pos" for i in order])
    assert np.abs(found - share * np.arange(1, len(order) + 1)).max() <= 1
    assert sorted(order) == list(range(len(order)))


def test_order_is_that_of_hashes_computed_by_hand() -> None:
    names = [f"x{i}" for i in range(50)]

    def h(name: str) -> bytes:
        return hashlib.blake2b(f"42|3|k|{name}".encode(), digest_size=16).digest()

    assert [names[i] for i in keyed_order(names, 42, 3, "k")] == sorted(names, key=h)


def test_folds_and_seeds_differ_and_test_sets_overlap_by_chance() -> None:
    pool = make_pool(1000)
    tests = [set(monte_carlo(pool, f, 1.0, None, Way(**PLAIN)).test) for f in range(5)]
    shared = [len(a & b) / 200 for i, a in enumerate(tests) for b in tests[:i]]
    assert 0.12 < np.mean(shared) < 0.28
    assert set(monte_carlo(pool, 0, 1.0, None, Way(**{**PLAIN, "seed": 1})).test) != tests[0]


def test_a_new_annotation_leaves_the_others_in_place() -> None:
    pool = make_pool(500)
    fewer = Pool(*(list(c[:-1]) for c in (pool.ids, pool.labels, pool.domains, pool.groups)))
    first = [pool.ids[i] for i in draw_order(pool, np.arange(500), "none", 1)]
    second = [fewer.ids[i] for i in draw_order(fewer, np.arange(499), "none", 1)]
    assert [i for i in first if i != pool.ids[-1]] == second


@pytest.mark.parametrize(
    ("way", "digest"),
    [
        ({"group_by": "annotation", "stratify": "none"}, "9e80284145ab6227"),
        ({"group_by": "annotation", "stratify": "label"}, "ba8a805947e63109"),
        ({"group_by": "slide", "stratify": "none"}, "5ca856f99522a32e"),
    ],
)
def test_stored_digests(way: Any, digest: str) -> None:
    """Made once and kept: any machine, Python and numpy must draw these same annotations."""
    pool = Pool(
        [f"s/{i:04d}" for i in range(400)],
        ["ab"[i % 3 == 0] for i in range(400)],
        ["d"] * 400,
        [f"g{i // 17:02d}" for i in range(400)],
    )
    split = monte_carlo(pool, 2, 0.1, None, Way(**way, seed=42))
    drawn = [[pool.ids[i] for i in r] for r in (split.train, split.val, split.test)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == digest


def test_manifest_digest_sees_everything_but_order() -> None:
    pool = make_pool(50)
    AT = [f"{k},0" for k in range(50)]
    base = manifest_digest(pool, AT, seed=1, scheme="x")
    assert base == manifest_digest(pool, AT, scheme="x", seed=1)
    assert base != manifest_digest(pool, AT, seed=2, scheme="x")
    for column in ("labels", "domains", "groups"):
        changed = {c: list(getattr(pool, c)) for c in ("ids", "labels", "domains", "groups")}
        changed[column][7] = "other"
        assert manifest_digest(Pool(**changed), AT, seed=1, scheme="x") != base
    assert manifest_digest(pool, [*AT[:-1], "9,9"], seed=1, scheme="x") != base
    with pytest.raises(ValueError, match="sorted"):
        Pool(["b", "a"], ["x"] * 2, ["x"] * 2, ["x"] * 2)
    assert (
        manifest_digest(Pool(["a"], ["x"], ["d"], ["g"]), ["1.0,2.0"], seed=42, where=None)
        == "d4afaa62058853d9"
    )


@pytest.mark.parametrize(
    ("labels", "fraction", "said"),
    [
        (["a"] * 100, 1.0, "have one label"),
        (["a", "b"] * 50, 0.01, "fewer than two of 'a'"),
        (["a"] * 97 + ["b"] * 3, 1.0, "fewer than two of 'b'|one label"),
    ],
)
def test_too_small_says_what_is_short(labels: Any, fraction: float, said: str) -> None:
    pool = Pool([f"{i:03d}" for i in range(100)], labels, ["d"] * 100, ["g"] * 100)
    with pytest.raises(InfeasibleError, match=said):
        for fold in range(5):
            monte_carlo(pool, fold, fraction, None, Way(**PLAIN))
