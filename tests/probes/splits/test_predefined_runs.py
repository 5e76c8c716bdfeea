"""The dataset's own split, from its file to the scores."""

from pathlib import Path
from typing import Any

import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.splits.candidates import candidates
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import TinyDataset, write_csv
from tests.making.stores import query


def with_splits(rows: Any, roles: Any) -> Any:
    return [{**r, "split": roles[k % len(roles)]} for k, r in enumerate(rows)]


def test_from_a_csv_to_the_scores(tiny: TinyDataset, tmp_path: Path) -> None:
    """48 annotations: 24 in train, 8 in val, 8 in test, 8 in none, by the commands."""
    uri = str(tmp_path / "s")
    train = ["Train", "train", "training", "train", "train", "train"]
    roles = [*train, "dev", "valid", "TEST", "test", "", ""]
    rows = with_splits(tiny.rows, roles)
    add(uri, "tiny", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=tiny.slides))
    ingest(
        Store.open(uri),
        "tiny",
        ["timm:test_resnet"],
        IngestOptions(weights={"timm:test_resnet": "random"}),
    )
    ran = call_command(
        *(
            f"probes run tiny --scheme predefined --fraction 1 --fraction 0.5 --json --store {uri}"
        ).split()
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
        *(f"probes run tiny --scheme predefined --fraction 1 --fold 3 --store {uri}").split()
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
    assert {(s.row.n_train, s.row.n_val, s.row.n_test, s.row.val_by) for s in splits} == {
        (25, 7, 16, "annotation")
    }
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


def test_a_run_by_its_function_agrees(tiny: TinyDataset, tmp_path: Path) -> None:
    """The scores of the given test rows only, at whatever fraction."""
    uri = str(tmp_path / "s")
    rows = with_splits(tiny.rows, ["train", "train", "train", "train", "test", "test"])
    add(uri, "d", write_csv(tmp_path / "a.csv", rows), AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    ingest(store, "d", ["timm:test_resnet"], IngestOptions(weights={"timm:test_resnet": "random"}))
    report = run(
        store,
        ManifestSpec("d", scheme="predefined"),
        RunOptions(splits=Asked(fractions=[0.5, 1.0])),
    )
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
