"""`--scheme predefined`: the dataset's own split, from its file to the scores."""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError
from probes.splits.draw import InfeasibleError, Pool, Way, manifest_digest, subset_size, train_size
from probes.splits.schemes import distinct_folds, predefined
from tests.making.splits import PLAIN


def make_pool(n: int, n_groups: int, seed: int, *, with_val: bool, by_group: bool) -> Pool:
    """A pool with all four kinds of rows; by_group puts every group into one of them."""
    rng = np.random.default_rng(seed)
    groups = [f"g{k:02d}" for k in rng.integers(0, n_groups, n)]
    roles = ["train", "train", "train", "test", None, "val" if with_val else "train"]
    draw = {g: roles[k % 6] for k, g in enumerate(sorted(set(groups)))}
    splits = [
        draw[g] if by_group else roles[k]
        for g, k in zip(groups, rng.integers(0, 6, n), strict=True)
    ]
    labels = [("neg", "pos")[int(p)] for p in rng.random(n) < 0.4]
    return Pool([f"a{k:04d}" for k in range(n)], labels, ["d"] * n, groups, splits)


POOLS = st.builds(
    make_pool,
    n=st.integers(80, 300),
    n_groups=st.integers(6, 40),
    seed=st.integers(0, 99),
    with_val=st.booleans(),
    by_group=st.booleans(),
)


WAYS = st.fixed_dictionaries(
    {
        "group_by": st.sampled_from(["annotation", "slide"]),
        "stratify": st.sampled_from(["none", "label"]),
        "seed": st.integers(0, 5),
    }
)


def members(pool: Pool, role: str | None) -> set[int]:
    assert pool.splits is not None
    return {i for i, s in enumerate(pool.splits) if s == role}


@settings(max_examples=100, deadline=None)
@given(pool=POOLS, way=WAYS, fold=st.integers(0, 4), small=st.floats(0.3, 0.95))
def test_the_given_roles_hold_at_every_fraction(pool: Any, way: Any, fold: Any, small: Any) -> None:
    try:
        whole = predefined(pool, fold, 1.0, None, Way(**way))
        part = predefined(pool, fold, small, None, Way(**way))
    except EmbedstoreError:
        assume(False)
    train, val, test = (members(pool, r) for r in ("train", "val", "test"))
    for split in (whole, part):
        assert sorted(split.test) == sorted(test)
        drawn = [*split.train, *split.val, *split.test]
        assert len(set(drawn)) == len(drawn)
        assert not set(drawn) & members(pool, None)
        assert set(split.train) <= train
    n = subset_size(len(train), small)
    if val:
        assert set(whole.train) == train
        assert set(whole.val) == set(part.val) == val
        assert {whole.val_by, part.val_by} == {"given"}
        assert len(part.train) == n
        assert list(part.train) == list(whole.train)[:n]  # fractions nest
    else:
        assert {*whole.train, *whole.val} == train
        assert {*part.train, *part.val} <= train
        assert len(part.train) + len(part.val) == n
        if way["group_by"] == "annotation":
            assert len(part.train) == train_size(n)
            assert set(part.train) <= set(whole.train)
    if way["group_by"] == "slide":
        seen = {pool.groups[i] for i in (*part.train, *part.val)}
        assert not seen & {pool.groups[i] for i in part.test}
    np.testing.assert_array_equal(part.train, predefined(pool, fold, small, None, Way(**way)).train)


@settings(max_examples=40, deadline=None)
@given(pool=POOLS, fold=st.integers(1, 4))
def test_folds_differ_unless_train_and_val_are_given_whole(pool: Any, fold: Any) -> None:
    for fraction in (0.5, 1.0):
        try:
            first, other = (predefined(pool, f, fraction, None, Way(**PLAIN)) for f in (0, fold))
        except EmbedstoreError:
            assume(False)
        same = all(
            set(getattr(first, r)) == set(getattr(other, r)) for r in ("train", "val", "test")
        )
        assert same == (distinct_folds("predefined", pool, fraction, [0, fold]) == [0])
    assert distinct_folds("monte-carlo", pool, 1.0, [3, 1, 3]) == [3, 1]


@pytest.mark.parametrize(
    ("way", "with_val", "fraction", "digest"),
    [
        ({"group_by": "annotation", "stratify": "none"}, True, 0.4, "da1311f15b8a14eb"),
        ({"group_by": "annotation", "stratify": "label"}, False, 0.4, "8b90c9880c956402"),
        ({"group_by": "slide", "stratify": "none"}, False, 1.0, "8ac9268751154100"),
    ],
)
def test_stored_digests(way: Any, with_val: bool, fraction: float, digest: str) -> None:
    """Made once and kept: any machine, Python and numpy must draw these same annotations."""
    roles = {0: "test", 1: "val" if with_val else "train", 2: None}
    pool = Pool(
        [f"s/{i:04d}" for i in range(400)],
        ["ab"[i % 3 == 0] for i in range(400)],
        ["d"] * 400,
        [f"g{i // 17:02d}" for i in range(400)],
        [roles.get(i // 17 % 8, "train") for i in range(400)],
    )
    split = predefined(pool, 2, fraction, None, Way(**way, seed=42))
    drawn = [[pool.ids[i] for i in r] for r in (split.train, split.val, split.test)]
    assert hashlib.sha256(repr(drawn).encode()).hexdigest()[:16] == digest


def test_the_split_is_in_the_digest_only_where_it_decides() -> None:
    pool = Pool(["a", "b"], ["x", "y"], ["d", "d"], ["g", "h"])
    at = ["1.0,2.0", "3.0,4.0"]
    bare = manifest_digest(pool, at, seed=1)
    ids = {
        manifest_digest(replace(pool, splits=s), at, seed=1)
        for s in (["train", "test"], ["test", "train"], ["train", None])
    }
    assert len(ids | {bare}) == 4
    assert (
        manifest_digest(replace(pool, splits=["train", "test"]), at, seed=1) == "57d386350dd24081"
    )


def pool_of(*rows: tuple[str, str | None, str]) -> Pool:
    labels, splits, groups = (list(c) for c in zip(*rows, strict=True))
    return Pool([f"{k:03d}" for k in range(len(rows))], labels, ["d"] * len(rows), groups, splits)


@pytest.mark.parametrize(
    ("rows", "group_by", "said"),
    [
        (
            [("a", "train", "g"), ("b", "train", "g")],
            "annotation",
            "no annotation is in test: mend",
        ),
        ([("a", "test", "g"), ("b", "test", "g")], "annotation", "no annotation is in train: mend"),
        (
            [("a", "train", "g"), ("a", "train", "g"), ("a", "test", "h"), ("b", "test", "h")],
            "annotation",
            "all 2 annotations in train are 'a', and it takes two labels",
        ),
        (
            [("a", "train", "g"), ("b", "train", "g"), ("b", "test", "h")],
            "annotation",
            "all 1 annotations in test are 'b'",
        ),
        (
            [(x, s, "g7") for x in "ab" for s in ("train", "test")] * 2,
            "case",
            "1 cases have annotations in train or val and in test: g7; put each on one side",
        ),
        (
            [(x, s, g) for x in "ab" for s, g in (("train", "g"), ("val", "h"), ("test", "h"))],
            "slide",
            "1 slides have .* in test: h",
        ),
    ],
)
def test_a_split_that_cannot_be_used_says_what_to_do(rows: Any, group_by: str, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said) as e:
        predefined(pool_of(*rows), 0, 1.0, None, Way(group_by, "none", 1))
    assert not isinstance(e.value, InfeasibleError)  # no fraction would help
