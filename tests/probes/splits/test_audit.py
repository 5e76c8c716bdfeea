"""The audit of pre-cropped patches: what they share is unknown, not zero."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.store import Store
from probes.scores.results import from_null
from probes.splits.audit import audit
from probes.splits.candidates import candidates
from probes.splits.draw import Way
from probes.splits.manifests import ensure_splits
from probes.splits.recorded import SplitRow
from probes.splits.schemes import monte_carlo
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.splits import PLAIN
from tests.making.stores import plant_two, put_embeddings, query


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
        assert {k: getattr(split.row, k) for k in PLACES} == dict.fromkeys(PLACES)
        assert split.row.shared_cases == cases
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
    assert "slide is not named count as slides of their own" in by_slide.err


def test_a_mixed_dataset_is_audited_over_what_is_known(patches: Store) -> None:
    found = candidates(patches, ManifestSpec("mixed"))
    assert Counter(s is None for s in found.slides) == {True: 80, False: 60}
    split = monte_carlo(found.pool, 1, 0.5, None, Way(**PLAIN))
    known = [t for t in split.test if found.slides[t] is not None]
    n: Counter[str] = Counter()
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
    )
    assert {k: shares[k] for k in PLACES} == {k: n[k] / len(known) for k in PLACES}
    overlapping = shares["overlapping_patches"]
    assert overlapping is not None
    assert 0 < overlapping < 1


def test_a_patch_that_is_not_there_yet_changes_no_manifest(tmp_path: Path) -> None:
    rows = [{"path": f"{k}.png", "label": ("mitosis", "imposter")[k % 2]} for k in range(40)]
    file, ids = write_csv(tmp_path / "a.csv", rows), []
    for there in (False, True):
        for k in range(40 * there):
            Image.new("RGB", (8 + k, 8)).save(tmp_path / f"{k}.png")
        add(str(tmp_path / "s"), "d", file, AddOptions())
        ids.append(candidates(Store.open(str(tmp_path / "s")), ManifestSpec("d")).manifest_id)
    assert ids[0] == ids[1]


def test_the_audit_is_of_the_field_that_models_were_given(tmp_path: Path) -> None:
    """A model of a wider field comes: the same split is audited anew, and says how wide it is."""
    store = plant_two(str(tmp_path / "s"), 200, 20)
    spec = ManifestSpec("d", group_by="annotation")

    def shares() -> SplitRow:
        (split,), _ = ensure_splits(store, candidates(store, spec), folds=[0], fractions=[1.0])
        return split.row

    usual = shares()
    assert usual.patch_um == 56
    ids = [r["annotation_id"] for r in query(store, "from annotations")]
    put_embeddings(store, "m", ids, np.ones((len(ids), 2), np.float32))
    record = query(store, "from _models")[0] | {"patch_px": 100, "mpp_out": 0.02}
    store.merge("models", [record])
    wide = shares()
    assert wide.split_id == usual.split_id
    assert wide.patch_um == pytest.approx(2)
    found = candidates(store, spec)
    (split,), _ = ensure_splits(store, found, folds=[0], fractions=[1.0])
    place = {i: n for n, i in enumerate(found.pool.ids)}
    n = 0
    for i in split.test:
        near = [
            np.abs(found.centres_um[place[i]] - found.centres_um[place[j]]).max()
            for j in split.train
            if found.slides[place[j]] == found.slides[place[i]]
        ]
        n += any(d < 2 for d in near)
    assert wide.overlapping_patches == pytest.approx(n / len(split.test))
    assert from_null(wide.overlapping_patches) < from_null(usual.overlapping_patches)
    stored = query(store, "select patch_um, overlapping_patches as o from splits")
    assert stored == [{"patch_um": wide.patch_um, "o": wide.overlapping_patches}]
