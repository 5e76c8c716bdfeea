"""A manifest as a file: it goes out, is changed and comes back, or is refused whole."""

from pathlib import Path
from typing import Any

import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.splits.candidates import candidates
from probes.splits.files import import_manifest, manifest_table
from probes.splits.imported import recorded_manifest
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import query


def test_a_manifest_goes_out_is_changed_and_comes_back(planted: Store, tmp_path: Path) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d", seed=77)), folds=[2], fractions=[0.5]
    )
    table = manifest_table(planted, split.row.manifest_id)
    assert len(table) == len(split.train) + len(split.val) + len(split.test)
    file = tmp_path / "m.csv"
    done = call_command(
        "probes", "manifest", "export", split.row.manifest_id, file, "--store", planted.uri
    )
    assert done.code == 0, done.err
    rows, same_id = import_manifest(planted, "d", file)
    assert [(r.fold, r.fraction, r.n_train, r.n_test) for r in rows] == [
        (2, 0.5, len(split.train), len(split.test))
    ]
    assert import_manifest(planted, "d", file)[1] == same_id
    lines = file.read_text().splitlines()
    header = lines[0].split(",")
    role = header.index("role")
    kept = [line for line in lines[1:] if line.split(",")[role] != "val"]
    (tmp_path / "changed.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    done = call_command(
        *(
            f"probes manifest import d {tmp_path / 'changed.csv'} --json --store {planted.uri}"
        ).split()
    )
    (row,) = done.json()
    assert (row["scheme"], row["n_val"]) == ("imported", 0)
    assert row["manifest_id"] != same_id
    assert "leakage" in done.err
    ran = call_command(
        *(
            f"probes run d --model strong --manifest {row['manifest_id']} --json "
            f"--store {planted.uri}"
        ).split()
    )
    (result,) = [r for r in ran.json() if r["metric"] == "auroc"]
    assert (result["manifest_id"], result["n_test"], result["threshold"]) == (
        row["manifest_id"],
        120,
        0.5,
    )
    # A recorded one by its id gives the very runs that its own options give.
    by_id = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(manifest=split.row.manifest_id), models=["weak"]),
    )
    by_spec = run(
        planted,
        ManifestSpec("d", seed=77),
        RunOptions(splits=Asked(folds=[2], fractions=[0.5]), models=["weak"]),
    )
    assert by_spec.n_new == 0
    assert by_spec.rows == by_id.rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: rows[0].update(annotation_id="d/none/1"),
            "1 ids are no usable annotations of 'd'",
        ),
        (lambda rows: rows[0].update(role="tset"), "role 'tset'.*allowed: train, val, test"),
        (lambda rows: rows.append(dict(rows[0])), "come more than once"),
        (lambda rows: [r.update(role="train") for r in rows], "test holds fewer than two labels"),
        (lambda rows: [r.update(role="test") for r in rows], "train holds fewer than two"),
        (lambda rows: [r.update(fraction="half") for r in rows], "no number"),
        (lambda rows: [r.update(dataset="e") for r in rows], "manifest of dataset 'e', not 'd'"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused_whole(
    planted: Store, tmp_path: Path, change: Any, said: str
) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d", seed=78)), folds=[0], fractions=[1.0]
    )
    rows = manifest_table(planted, split.row.manifest_id).to_pylist()
    rows = [{k: "" if v is None else str(v) for k, v in r.items()} for r in rows]
    change(rows)
    before = query(planted, "select count(*) as n from splits")
    with pytest.raises(EmbedstoreError, match=f"(?s)nothing is written.*{said}"):
        import_manifest(planted, "d", write_csv(tmp_path / "m.csv", rows))
    assert query(planted, "select count(*) as n from splits") == before


def test_a_manifest_of_another_dataset_or_of_changed_annotations_is_refused(
    planted: Store, tmp_path: Path
) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d")), folds=[0], fractions=[1.0]
    )
    manifest = split.row.manifest_id
    with pytest.raises(EmbedstoreError, match="of dataset 'd', not of 'e'"):
        recorded_manifest(planted, "e", manifest)
    with pytest.raises(EmbedstoreError, match="no manifest 'abc'; there: "):
        recorded_manifest(planted, "d", "abc")
    uri = str(tmp_path / "s")
    rows = [
        {"slide": f"s{k % 4}", "x": k, "y": 1, "id": k, "label": ("mitosis", "imposter")[k % 2]}
        for k in range(60)
    ]
    add(uri, "f", write_csv(tmp_path / "a.csv", rows), AddOptions())
    store = Store.open(uri)
    (split,), _ = ensure_splits(
        store, candidates(store, ManifestSpec("f")), folds=[0], fractions=[1.0]
    )
    out = tmp_path / "m.csv"
    out.write_text(
        "annotation_id,role\n"
        + "".join(f"{i},{r}\n" for r in ("train", "test") for i in getattr(split, r))
    )
    _, imported = import_manifest(store, "f", out)
    recorded_manifest(store, "f", imported)
    rows[0]["x"] = 9999
    add(uri, "f", write_csv(tmp_path / "a.csv", rows), AddOptions())
    for manifest_id in (split.row.manifest_id, imported):
        with pytest.raises(EmbedstoreError, match="have changed since manifest"):
            recorded_manifest(Store.open(uri), "f", manifest_id)
