"""`--scheme predefined`: the dataset's own split, from its file to the scores."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from probes.run import RunOptions, run
from probes.splits.audit import audit
from probes.splits.draw import InfeasibleError, Pool, manifest_digest, subset_size, train_size
from probes.splits.manifests import candidates, ensure_splits
from probes.splits.schemes import distinct_folds, monte_carlo, predefined
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import TinyDataset, write_csv
from tests.making.stores import query

PLAIN = {"group_by": "annotation", "stratify": "none", "seed": 42}


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
    return {i for i, s in enumerate(pool.splits) if s == role}


@settings(max_examples=100, deadline=None)
@given(pool=POOLS, way=WAYS, fold=st.integers(0, 4), small=st.floats(0.3, 0.95))
def test_the_given_roles_hold_at_every_fraction(pool: Any, way: Any, fold: Any, small: Any) -> None:
    try:
        whole = predefined(pool, fold, 1.0, None, **way)
        part = predefined(pool, fold, small, None, **way)
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
    np.testing.assert_array_equal(part.train, predefined(pool, fold, small, None, **way).train)


@settings(max_examples=40, deadline=None)
@given(pool=POOLS, fold=st.integers(1, 4))
def test_folds_differ_unless_train_and_val_are_given_whole(pool: Any, fold: Any) -> None:
    for fraction in (0.5, 1.0):
        try:
            first, other = (predefined(pool, f, fraction, None, **PLAIN) for f in (0, fold))
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
    split = predefined(pool, 2, fraction, None, seed=42, **way)
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
        predefined(pool_of(*rows), 0, 1.0, None, group_by=group_by, stratify="none", seed=1)
    assert not isinstance(e.value, InfeasibleError)  # no fraction would help


def with_splits(rows: Any, roles: Any) -> Any:
    return [{**r, "split": roles[k % len(roles)]} for k, r in enumerate(rows)]


def test_from_a_csv_to_the_scores(tiny: TinyDataset, tmp_path: Path) -> None:
    """48 annotations: 24 in train, 8 in val, 8 in test, 8 in none, by the commands."""
    uri = str(tmp_path / "s")
    roles = [
        "Train",
        "train",
        "training",
        "train",
        "train",
        "train",
        "dev",
        "valid",
        "TEST",
        "test",
        "",
        "",
    ]
    rows = with_splits(tiny.rows, roles)
    add(uri, "tiny", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=tiny.slides))
    ingest(
        Store.open(uri),
        "tiny",
        ["timm:test_resnet"],
        IngestOptions(weights={"timm:test_resnet": "random"}),
    )
    ran = call_command(
        "probes",
        "run",
        "tiny",
        "--scheme",
        "predefined",
        "--fraction",
        "1",
        "--fraction",
        "0.5",
        "--json",
        "--store",
        uri,
    )
    found = ran.json()
    assert "6 fits done" in ran.err  # five folds at 0.5, one at 1
    assert "fraction 1: train and val are given, so all folds are fold 0" in ran.err
    assert "8 annotations that the dataset puts in no split are left out" in ran.err
    assert {(r["fraction"], r["fold"], r["n_train"], r["n_val"], r["n_test"]) for r in found} == {
        (1.0, 0, 24, 8, 8),
        *((0.5, k, 12, 8, 8) for k in range(5)),
    }
    again = call_command(
        "probes",
        "run",
        "tiny",
        "--scheme",
        "predefined",
        "--fraction",
        "1",
        "--fold",
        "3",
        "--store",
        uri,
    )
    assert "0 fits done, 1 recorded before" in again.err
    expected = {
        (r["slide"], float(r["x"]), float(r["y"])): r["split"].strip().lower()[:2] for r in rows
    }
    in_role = query(
        Store.open(uri),
        "select role, slide, x_l0, y_l0 from manifests join annotations using "
        "(annotation_id) where scheme = 'predefined' and fraction = 1",
    )
    for row in in_role:
        of = expected[row["slide"], row["x_l0"], row["y_l0"]]
        assert row["role"] == {"tr": "train", "va": "val", "de": "val", "te": "test"}[of]
    assert len(in_role) == 40


def test_val_is_cut_from_train_where_none_is_given(tiny: TinyDataset, tmp_path: Path) -> None:
    rows = with_splits(tiny.rows, ["train", "train", "train", "train", "test", "test"])
    add(str(tmp_path / "s"), "d", write_csv(tmp_path / "a.csv", rows), AddOptions())
    store = Store.open(str(tmp_path / "s"))
    found = candidates(store, ManifestSpec("d", scheme="predefined"))
    splits, notes = ensure_splits(store, found, folds=range(5), fractions=[1.0])
    assert notes == []
    assert {
        (s.row["n_train"], s.row["n_val"], s.row["n_test"], s.row["val_by"]) for s in splits
    } == {(25, 7, 16, "annotation")}
    assert len({tuple(sorted(s.train)) for s in splits}) == 5
    with pytest.raises(EmbedstoreError, match="fraction 0.01: too small"):
        ensure_splits(store, found, folds=[0], fractions=[0.01])


def test_another_split_of_the_same_annotations_is_another_manifest(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    ids = []
    for n, roles in enumerate(
        (["train", "train", "test", "test"], ["test", "test", "train", "train"])
    ):
        uri = str(tmp_path / f"s{n}")
        add(uri, "d", write_csv(tmp_path / "a.csv", with_splits(tiny.rows, roles)), AddOptions())
        ids.append(
            [
                candidates(Store.open(uri), ManifestSpec("d", scheme=s)).manifest_id
                for s in ("predefined", "monte-carlo")
            ]
        )
    assert ids[0][0] != ids[1][0]
    assert ids[0][1] == ids[1][1]


def test_a_dataset_without_a_split_or_a_slide_on_both_sides(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "none", tiny.csv, AddOptions())
    rows = with_splits(tiny.rows, ["train", "train", "test", "test"])
    add(uri, "both", write_csv(tmp_path / "a.csv", rows), AddOptions())
    for words, said in (
        (["none"], "no annotation of 'none' is in a split: add a file with a column split"),
        (
            ["both", "--where", "split is null"],
            "no usable annotations that meet --where split is null",
        ),
        (
            ["both", "--group-by", "slide"],
            "4 slides have annotations in train or val and in test: a0.tiff",
        ),
    ):
        done = call_command("probes", "split", *words, "--scheme", "predefined", "--store", uri)
        assert done.code == 1
        assert said in done.err
    assert query(Store.open(uri), "select count(*) as n from splits") == [{"n": 0}]


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A dataset of patches (with cases for half of them) and one with slides beside patches."""
    folder = tmp_path_factory.mktemp("patches")
    rows = []
    for k in range(80):
        Image.new("RGB", (32, 32), (k, 0, 0)).save(folder / f"{k}.png")
        rows.append(
            {"path": f"{k}.png", "label": ("mitosis", "imposter")[k % 2], "case": f"c{k % 7}"}
        )
    uri = str(folder / "s")
    add(uri, "cased", write_csv(folder / "cased.csv", rows), AddOptions())
    bare = [{k: v for k, v in r.items() if k != "case"} for r in rows]
    add(uri, "bare", write_csv(folder / "bare.csv", bare), AddOptions())
    add(uri, "mixed", folder / "bare.csv", AddOptions())
    points = [
        {
            "slide": f"s{k % 3}.tiff",
            "x": 37 * k * k % 5000,
            "y": 50,
            "label": ("mitosis", "imposter")[k % 2],
        }
        for k in range(60)
    ]
    add(uri, "mixed", write_csv(folder / "points.csv", points), AddOptions())
    return Store.open(uri)


PLACES = ("shared_slides", "overlapping_patches", "shared_centres")


def test_of_patches_what_they_share_is_unknown_not_zero(patches: Store) -> None:
    for dataset, cases in (("bare", None), ("cased", 1.0)):
        found = candidates(patches, ManifestSpec(dataset))
        (split,), _ = ensure_splits(patches, found, folds=[0], fractions=[1.0])
        assert {k: split.row[k] for k in PLACES} == dict.fromkeys(PLACES)
        assert split.row["shared_cases"] == cases
    said = call_command("probes", "split", "bare", "--fractions", "1", "--store", patches.uri).err
    assert said.count("an unknown share") == 4
    rows = call_command(
        "probes", "split", "cased", "--fractions", "1", "--json", "--store", patches.uri
    ).json()
    assert {rows[0][k] for k in PLACES} == {None}
    by_slide = call_command(
        "probes",
        "split",
        "cased",
        "--group-by",
        "slide",
        "--fractions",
        "1",
        "--store",
        patches.uri,
    )
    assert "every patch counts as a slide of its own" in by_slide.err


def test_a_mixed_dataset_is_audited_over_what_is_known(patches: Store) -> None:
    found = candidates(patches, ManifestSpec("mixed"))
    assert Counter(found.is_patch.tolist()) == {True: 80, False: 60}
    split = monte_carlo(found.pool, 1, 0.5, None, **PLAIN)
    known = [t for t in split.test if "tiff" in found.slides[t]]
    n = Counter()
    for t in known:
        near = [
            np.abs(found.centres_um[t] - found.centres_um[i]).max()
            for i in split.train
            if found.slides[i] == found.slides[t]
        ]
        n["shared_slides"] += bool(near)
        n["overlapping_patches"] += any(d < 56 for d in near)
        n["shared_centres"] += any(d < 28 for d in near)
    shares = audit(
        split,
        slides=found.slides,
        cases=found.cases,
        centres_um=found.centres_um,
        is_patch=found.is_patch,
    )
    assert {k: shares[k] for k in PLACES} == {k: n[k] / len(known) for k in PLACES}
    assert 0 < shares["overlapping_patches"] < 1


def test_a_patch_that_is_not_there_yet_changes_no_manifest(tmp_path: Path) -> None:
    rows = [{"path": f"{k}.png", "label": ("mitosis", "imposter")[k % 2]} for k in range(40)]
    file, ids = write_csv(tmp_path / "a.csv", rows), []
    for there in (False, True):
        for k in range(40 * there):
            Image.new("RGB", (8 + k, 8)).save(tmp_path / f"{k}.png")
        add(str(tmp_path / "s"), "d", file, AddOptions())
        ids.append(candidates(Store.open(str(tmp_path / "s")), ManifestSpec("d")).manifest_id)
    assert ids[0] == ids[1]


def test_a_run_by_its_function_agrees(tiny: TinyDataset, tmp_path: Path) -> None:
    """The scores of the given test rows only, at whatever fraction."""
    uri = str(tmp_path / "s")
    rows = with_splits(tiny.rows, ["train", "train", "train", "train", "test", "test"])
    add(uri, "d", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    ingest(store, "d", ["timm:test_resnet"], IngestOptions(weights={"timm:test_resnet": "random"}))
    report = run(store, ManifestSpec("d", scheme="predefined"), RunOptions(fractions=[0.5, 1.0]))
    assert report.n_new == 10
    given = {
        r["annotation_id"]
        for r in query(store, "select annotation_id from annotations where split = 'test'")
    }
    scored = query(
        store,
        "select run_id, list(annotation_id) as ids from predictions where role = 'test' group by 1",
    )
    assert len(scored) == 10
    assert all(set(r["ids"]) == given and len(r["ids"]) == 16 for r in scored)
