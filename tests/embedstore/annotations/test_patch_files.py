"""Pre-cropped patches through `ingest`: each file is one patch, resized where it must be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.reading.status import status
from embedstore.slides.images import read_image
from embedstore.slides.patches import fit_patch
from embedstore.store import Store
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import query, query_of

RESNET = "timm:test_resnet"
RANDOM = IngestOptions(weights={RESNET: "random"}, dtype="float32")
SIZES = ((224, 224), (96, 96), (300, 224), (224, 224))


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    """ROOT/{train,test}/{mitosis,imposter}/nested/*.png of several sizes, the same names in each."""
    rng = np.random.default_rng(7)
    for split, n in (("train", 12), ("test", 8)):
        for label in ("mitosis", "imposter"):
            home = tmp_path / "patches" / split / label / "h1"
            home.mkdir(parents=True)
            for k in range(n):
                w, h = SIZES[k % 4]
                pixels = rng.integers(0, 255, (h, w, 3), dtype=np.uint8)
                pixels[h // 3 : h // 2] = 20 if label == "mitosis" else 220
                Image.fromarray(pixels).save(home / f"{k}.png")
    return tmp_path / "patches"


def test_fit_patch_keeps_resizes_and_cuts_the_middle() -> None:
    rng = np.random.default_rng(0)
    same = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fit_patch(Image.fromarray(same), 32), same)
    # Every pixel doubled and halved again by an area filter's own size: flat tiles stay flat.
    tiles = np.kron(rng.integers(0, 255, (8, 8, 1)), np.ones((16, 16, 3))).astype(np.uint8)
    small = fit_patch(Image.fromarray(tiles), 64)
    np.testing.assert_allclose(small[4::8, 4::8], tiles[8::16, 8::16], atol=3)
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 20:60] = same[0, 0]  # the centred square, the only part that is seen
    assert (fit_patch(Image.fromarray(wide), 40) == same[0, 0]).all()
    halves = np.zeros((40, 81, 3), np.uint8)
    assert fit_patch(Image.fromarray(halves), 20).shape == (20, 20, 3)


def test_patch_files_are_embedded_whole_and_say_when_they_were_resized(
    folder: Any, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    report = add(uri, "crops", folder, AddOptions())
    assert (report.n_annotations, report.kind) == (40, "patch")
    store = Store.open(uri)
    done = ingest(store, "crops", [RESNET], IngestOptions(**{**vars(RANDOM), "views": "d4"}))
    assert (done.models[0].n_embedded, done.models[0].n_views, done.set_aside) == (40, 320, {})
    model = load_embedder(
        RESNET,
        resolve(RESNET),
        find_weights(RESNET, "random", ""),
        dtype="float32",
        device=choose_device("cpu"),
    )
    rows = query(
        store, f'select e.*, s.width, s.height from "{RESNET}" e join slides s using (slide)'
    )
    assert len(rows) == 40
    for r in rows:
        assert r["resized"] == ((r["width"], r["height"]) != (224, 224))
        patch = fit_patch(read_image(folder / r["slide"]), 224)
        np.testing.assert_allclose(r["vector"], model.embed(patch[None])[0], atol=1e-4)
    assert query(store, f'select count(*) filter (resized) as n from "{RESNET}"') == [{"n": 20}]
    assert query(store, "select distinct mpp from slides") == [{"mpp": None}]
    ran = call_command("probes", "run", "crops", "--scheme", "predefined", "--json", "--store", uri)
    results = {r["metric"]: r for r in ran.json()}
    assert results["auroc"]["n_test"] == 16
    assert "an unknown share overlap" in ran.err


def test_a_broken_patch_is_set_aside_and_tried_again(folder: Any, tmp_path: Path) -> None:
    broken = folder / "train" / "mitosis" / "h1" / "3.png"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    uri = str(tmp_path / "s")
    add(uri, "crops", folder, AddOptions())
    store = Store.open(uri)
    report = ingest(store, "crops", [RESNET], RANDOM)
    assert (report.models[0].n_embedded, list(report.set_aside)) == (39, ["train/mitosis/h1/3.png"])
    assert [(r["done"], r["missing"], r["set_aside"]) for r in status(store)] == [(39, 0, 1)]
    broken.write_bytes(good)
    report = ingest(store, "crops", [RESNET], RANDOM)
    assert (report.models[0].n_embedded, report.set_aside) == (1, {})


def test_a_patch_named_without_a_folder_is_found_in_any_if_one_has_its_name(
    tmp_path: Path,
) -> None:
    """What a table of another tool says of `images/1.png` is often 1.png."""
    for place in ("images/1.png", "images/2.png", "more/deep/3.png", "images/4.png", "more/4.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), "white").save(tmp_path / place)
    rows = [{"path": f"{k}.png", "label": ("a", "b")[k % 2]} for k in range(1, 5)]
    rows.append({"path": "images/2.png", "label": "a"})
    table = write_csv(tmp_path / "labels.csv", rows)
    uri = str(tmp_path / "s")
    add(uri, "d", table, AddOptions(slides=tmp_path, labels={"a": "a", "b": "b"}, positive="a"))
    found = query_of(uri, "select slide, status, path from slides order by slide")
    places = {
        r["slide"]: r["path"] and Path(r["path"]).relative_to(tmp_path).as_posix() for r in found
    }
    assert places == {
        "1.png": "images/1.png",
        "2.png": "images/2.png",
        "3.png": "more/deep/3.png",
        "4.png": None,  # two files have the name
        "images/2.png": "images/2.png",
    }
