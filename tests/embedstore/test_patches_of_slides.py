"""Patches whose table names the slide that each was cut from: it is what splits go by."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.runs import RunOptions, run
from probes.splits.candidates import candidates
from probes.splits.manifests import ensure_splits
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import put_embeddings, query

LABELS = ("mitotic figure", "non-mitotic figure")


def write_patches(folder: Path, **columns: Any) -> Path:
    """Write 60 patches and their table; columns: a function of the number for each."""
    (folder / "p").mkdir()
    for n in range(60):
        Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(folder / "p" / f"{n}.png")
    rows = [
        {"path": f"p/{n}.png", "label": LABELS[n % 2], **{c: of(n) for c, of in columns.items()}}
        for n in range(60)
    ]
    return write_csv(folder / "patches.csv", rows)


def test_03_splits_audit_and_composition_go_by_the_named_slide(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data / "inputs" / "03-patches-of-slides")
    monkeypatch.setenv("EMBEDSTORE_URI", str(tmp_path / "store"))
    added = call_command("embedstore", "add", "d", "--annotations", "patches.csv", "--json")
    assert {r["n_slides"] for r in added.json()} == {6}
    line = ("probes", "split", "d", "--group-by", "slide", "--fractions", "1", "--json")
    rows = call_command(*line).json()
    assert {r["shared_slides"] for r in rows} == {0}
    store = Store.open(str(tmp_path / "store"))
    named = {
        r["annotation_id"]: json.loads(r["attributes"])["slide"]
        for r in query(
            store,
            "select annotation_id, attributes from annotations join slides using (dataset, slide)",
        )
    }
    roles = query(store, "select fold, role, annotation_id from manifests")
    for fold in range(5):
        of = {
            role: {named[r["annotation_id"]] for r in roles if (r["fold"], r["role"]) == key}
            for role in ("train", "val", "test")
            if (key := (fold, role))
        }
        assert not of["test"] & (of["train"] | of["val"])


@pytest.mark.parametrize("column", ["slide", "wsi"])
def test_intervals_resample_the_named_slide(tmp_path: Path, column: str) -> None:
    file = write_patches(tmp_path, **{column: lambda n: f"S{n // 6}"})
    uri = str(tmp_path / "store")
    options = ("--column", f"slide={column}") if column != "slide" else ()
    call_command("embedstore", "add", "d", "--annotations", file, *options, "--store", uri)
    store = Store.open(uri)
    found = candidates(store, ManifestSpec("d", group_by="slide"))
    assert len(set(found.slides)) == 10
    ids = found.pool.ids
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)).astype(np.float32)
    vectors[:, 0] += [2.0 * (label == LABELS[0]) for label in found.pool.labels]
    put_embeddings(store, "m", ids, vectors)
    run(store, found.spec, RunOptions(models=["m"]))
    assert query(store, "select distinct ci_by from results") == [{"ci_by": "slide"}]
    assert all(
        s.row.shared_slides == 0
        for s in ensure_splits(store, found, folds=range(5), fractions=[1.0])[0]
    )


def test_one_slide_name_in_two_cases_is_two_slides(tmp_path: Path) -> None:
    file = write_patches(tmp_path, slide=lambda n: n // 6 % 2 + 1, case=lambda n: f"P{n // 12}")
    report = add(str(tmp_path / "store"), "d", file, AddOptions())
    assert any("taken as a slide in each" in n for n in report.notes)
    store = Store.open(str(tmp_path / "store"))
    rows = fetch_rows(connect(store), "select distinct source_slide from annotations")
    assert {r["source_slide"] for r in rows} == {f"P{k}/{s}" for k in range(5) for s in (1, 2)}


def test_a_patch_without_a_slide_stays_its_own(tmp_path: Path) -> None:
    file = write_patches(tmp_path, slide=lambda n: f"S{n // 10}" if n < 50 else "")
    uri = str(tmp_path / "store")
    refused = call_command("embedstore", "add", "d", "--annotations", file, "--store", uri)
    assert refused.code == 1  # the case is the slide's, which these lack
    add(
        uri,
        "d",
        write_csv(file, [{"path": f"p/{n}.png", "label": LABELS[n % 2]} for n in range(60)]),
        AddOptions(),
    )
    found = candidates(Store.open(uri), ManifestSpec("d", group_by="slide"))
    assert found.slides == [None] * 60
    assert len(set(found.pool.groups)) == 60
    assert "slide is not named" in found.notes[0]
