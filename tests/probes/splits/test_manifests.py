"""Manifests in the store: identity, what is skipped or refused, the audit by brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.splits.audit import PATCH_UM, audit
from probes.splits.candidates import candidates
from probes.splits.draw import Split, Way
from probes.splits.manifests import ensure_splits, load_splits
from probes.splits.schemes import monte_carlo
from probes.splits.spec import ManifestSpec
from tests.making.slides import TinyDataset, write_csv
from tests.making.stores import query

MIDOG22 = (
    "domain in ('human breast cancer', 'canine lung cancer', 'canine lymphosarcoma', "
    "'canine cutaneous mast cell tumor', 'human neuroendocrine tumor')"
)


@pytest.fixture(scope="module")
def real(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    uri = str(tmp_path_factory.mktemp("m") / "s")
    add(uri, "atypia", data / "atypia/atypia.json", AddOptions(slides=data / "atypia/images"))
    add(uri, "midogpp", data / "midogpp/MIDOG++.json", AddOptions())
    return Store.open(uri)


def test_default_fractions_too_small_are_skipped_and_named(real: Store) -> None:
    found = candidates(real, ManifestSpec("atypia"))
    splits, notes = ensure_splits(real, found, folds=range(5), fractions=None)
    assert sorted({s.row.fraction for s in splits}) == [0.1, 1.0]
    assert len(splits) == 10
    assert [n[:30] for n in notes] == [
        "left out fraction 0.001: too s",
        "left out fraction 0.01: too sm",
    ]
    # 1,214 annotations: floor(0.2 n), floor(0.1 * 972), floor(0.8 * 97)
    assert {(s.row.n_train, s.row.n_val, s.row.n_test) for s in splits} == {
        (77, 20, 242),
        (777, 195, 242),
    }
    with pytest.raises(EmbedstoreError, match=r"fraction 0\.001: too small"):
        ensure_splits(real, found, folds=range(5), fractions=[1.0, 0.001])


def test_more_fractions_extend_the_same_manifest(real: Store) -> None:
    found = candidates(real, ManifestSpec("atypia", seed=7))
    ensure_splits(real, found, folds=range(2), fractions=[1.0])
    before = load_splits(real, found.manifest_id)
    ensure_splits(real, found, folds=range(3), fractions=[0.5, 1.0])
    after = load_splits(real, found.manifest_id)
    assert (len(before), len(after)) == (2, 6)
    assert all(after[k] == before[k] for k in before)
    ensure_splits(real, found, folds=range(3), fractions=[0.5, 1.0])
    sql = f"select count(*) as n, count(distinct split_id) as d from splits where manifest_id = '{found.manifest_id}'"
    assert query(real, sql) == [{"n": 6, "d": 6}]


def test_the_view_holds_each_role_once(real: Store) -> None:
    found = candidates(real, ManifestSpec("atypia", seed=8))
    (split,), _ = ensure_splits(real, found, folds=[3], fractions=[0.3])
    rows = query(
        real,
        f"select annotation_id, role, fold, fraction from manifests "
        f"where manifest_id = '{found.manifest_id}'",
    )
    for role in ("train", "val", "test"):
        assert {r["annotation_id"] for r in rows if r["role"] == role} == set(getattr(split, role))
    assert (
        len(rows)
        == len({r["annotation_id"] for r in rows})
        == len(split.train) + len(split.val) + len(split.test)
    )
    assert {(r["fold"], r["fraction"]) for r in rows} == {(3, 0.3)}


def test_where_cuts_before_the_split_and_is_part_of_the_identity(real: Store) -> None:
    found = candidates(real, ManifestSpec("midogpp", where=MIDOG22))
    assert len(found.pool.ids) == 20_550 - 2  # two centres lie off their slide
    labels = list(found.pool.labels)
    assert (labels.count("mitotic figure"), labels.count("non-mitotic figure")) == (9_500, 11_048)
    h03 = candidates(real, ManifestSpec("atypia", where="slide like 'H03%'"))
    assert {s[:3] for s in h03.images} == {"H03"}
    same = candidates(real, ManifestSpec("atypia", where="  slide like 'H03%' "))
    assert same.manifest_id == h03.manifest_id
    ids = {
        candidates(real, s).manifest_id
        for s in (
            ManifestSpec("atypia"),
            ManifestSpec("atypia", where="true"),
            ManifestSpec("atypia", seed=1),
            ManifestSpec("atypia", group_by="case"),
            ManifestSpec("atypia", stratify="label"),
            ManifestSpec("atypia", scheme="cross-domain"),
        )
    }
    assert len(ids) == 6


def test_where_cannot_reach_beyond_the_dataset(real: Store) -> None:
    with pytest.raises(EmbedstoreError, match="no SQL condition"):
        candidates(real, ManifestSpec("atypia", where="false) or (true"))
    found = candidates(real, ManifestSpec("atypia", where="false or true"))
    assert {i.split("/")[0] for i in found.pool.ids} == {"atypia"}


def test_where_must_select_the_same_each_time(real: Store) -> None:
    with pytest.raises(EmbedstoreError, match="other annotations each time"):
        candidates(real, ManifestSpec("atypia", where="random() < 0.5"))


def test_where_takes_no_union(real: Store) -> None:
    where = "1 = 1) union all (select annotation_id, label, domain, slide, case_id, x_l0, y_l0, mpp from annotations"
    with pytest.raises(EmbedstoreError, match="no SQL condition"):
        candidates(real, ManifestSpec("atypia", where=where))


def test_a_moved_annotation_makes_another_manifest(tiny: TinyDataset, tmp_path: Path) -> None:
    uri, ids = str(tmp_path / "s"), []
    for shift in (0, 40):
        rows = [
            {**r, "id": str(k), "x": str(float(r["x"]) + shift)} for k, r in enumerate(tiny.rows)
        ]
        add(uri, "d", write_csv(tmp_path / "a.csv", rows), AddOptions())
        found = candidates(Store.open(uri), ManifestSpec("d"))
        ids.append((found.manifest_id, found.pool.ids))
    assert ids[0][1] == ids[1][1]
    assert ids[0][0] != ids[1][0]


def test_midog_leaks_as_the_protocol_says(real: Store) -> None:
    """Public facts of the paper's splits: all images shared, 38.7% overlap, 11.8% centres."""
    found = candidates(real, ManifestSpec("midogpp", where=MIDOG22))
    splits, _ = ensure_splits(real, found, folds=range(5), fractions=[1.0])
    mean = {
        k: np.mean([getattr(s.row, k) for s in splits])
        for k in ("shared_slides", "overlapping_patches", "shared_centres")
    }
    assert mean["shared_slides"] > 0.99
    assert mean["overlapping_patches"] == pytest.approx(0.387, abs=0.01)
    assert mean["shared_centres"] == pytest.approx(0.118, abs=0.01)


def test_grouped_by_case_shares_nothing(real: Store) -> None:
    found = candidates(real, ManifestSpec("atypia", group_by="case"))
    splits, _ = ensure_splits(real, found, folds=range(5), fractions=[0.2, 1.0])
    for s in splits:
        assert s.row.shared_cases == s.row.shared_slides == s.row.overlapping_patches == 0
        assert s.row.n_test >= 0.2 * 1214
    by_fold: dict[int, Any] = {}
    for s in splits:
        assert by_fold.setdefault(s.row.fold, s.test) == s.test


def audit_of(found: Any, split: Any) -> Any:
    return audit(
        split,
        slides=found.slides,
        cases=found.cases,
        centres_um=found.centres_um,
    )


def test_audit_against_brute_force(real: Store) -> None:
    found = candidates(real, ManifestSpec("atypia"))
    split = monte_carlo(found.pool, 1, 0.4, None, Way("annotation", "none", 42))
    seen = [int(i) for i in split.train]
    n = dict.fromkeys(("shared_slides", "shared_cases", "overlapping_patches", "shared_centres"), 0)
    for t in split.test:
        near = [
            np.abs(found.centres_um[t] - found.centres_um[i]).max()
            for i in seen
            if found.slides[i] == found.slides[t]
        ]
        n["shared_slides"] += bool(near)
        n["shared_cases"] += any(found.cases[i] == found.cases[t] for i in seen)
        n["overlapping_patches"] += any(d < PATCH_UM for d in near)
        n["shared_centres"] += any(d < PATCH_UM / 2 for d in near)
    found_shares = audit_of(found, split)
    assert {k: round(v * len(split.test)) for k, v in found_shares.items()} == n
    empty = Split(split.train[:0], split.val, split.test, "annotation")
    assert set(audit_of(found, empty).values()) == {0.0}


def test_cross_domain_leaves_out_what_cannot_train(tmp_path: Path) -> None:
    rows = ["slide,x,y,label,domain"]
    rows += [f"a{k % 4}.tiff,{k},1,{('mitosis', 'imposter')[k % 2]},big" for k in range(60)]
    rows += [f"b.tiff,{k},1,{('mitosis', 'imposter')[k % 2]},small" for k in range(4)]
    rows += [f"c.tiff,{k},1,mitosis,one-label" for k in range(30)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    uri = str(tmp_path / "s")
    add(uri, "d", tmp_path / "a.csv", AddOptions())
    store = Store.open(uri)
    found = candidates(store, ManifestSpec("d", scheme="cross-domain"))
    splits, notes = ensure_splits(store, found, folds=range(5), fractions=[1.0])
    assert {s.row.train_domain for s in splits} == {"big"}
    assert sorted(n.split(",")[0] for n in notes) == [
        "left out train domain one-label",
        "left out train domain small",
    ]
    assert all(s.row.n_test == 12 + 34 for s in splits)
    with pytest.raises(EmbedstoreError, match="train domain small, fraction 1: too small"):
        ensure_splits(store, found, folds=[0], fractions=[1.0], domains=["small"])
    with pytest.raises(EmbedstoreError, match="no train domain lung; there: big, one-label, small"):
        ensure_splits(store, found, folds=[0], fractions=[1.0], domains=["lung"])


def test_no_case_means_every_slide_is_one_and_says_so(real: Store) -> None:
    found = candidates(real, ManifestSpec("midogpp", group_by="case"))
    assert found.notes == ["no case is recorded, so every slide counts as its own case"]
    assert candidates(real, ManifestSpec("atypia", group_by="case")).notes == []


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ManifestSpec("nothing"), "no dataset 'nothing'.*there: atypia, midogpp"),
        (
            ManifestSpec("atypia", scheme="kfold", group_by="patient", stratify="age"),
            "--scheme kfold .*--group-by patient .*--stratify age",
        ),
        (ManifestSpec("atypia", where="slide = 'none'"), "no usable annotations that meet"),
        (ManifestSpec("atypia", where="colour = 'red'"), "colour"),
        (ManifestSpec("atypia", where="label ="), "no SQL condition"),
    ],
)
def test_wrong_specs_are_told(real: Store, spec: Any, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=f"(?s){said}"):
        candidates(real, spec)


def test_stored_manifest_id(tiny: TinyDataset, tmp_path: Path) -> None:
    """The digest of a dataset generated byte for byte; a change here breaks everyone's manifests."""
    add(str(tmp_path / "s"), "tiny", tiny.csv, AddOptions())
    assert (
        candidates(Store.open(str(tmp_path / "s")), ManifestSpec("tiny")).manifest_id
        == "e8505fa1ab6fcebf"
    )
