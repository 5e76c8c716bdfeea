"""`ingest --views d4`: the eight symmetries of each patch, each once, beside the plain embedding."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.reading.status import status
from embedstore.slides.patches import D4, PLAIN, PatchGeometry, turn
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from embedstore.store.layout import views_table
from tests.making.commands import call_command
from tests.making.held import FLUSH, MERGE, Hold, start_held
from tests.making.slides import TinyDataset, write_csv
from tests.making.stores import query

RESNET = "timm:test_resnet"
D4_OPTIONS = IngestOptions(weights={RESNET: "random"}, dtype="float32", views="d4")


@pytest.fixture
def store(tiny: TinyDataset, tmp_path: Path) -> Store:
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    return Store.open(uri)


@given(arrays(np.uint8, (5, 5, 3)))
def test_views_are_pillows_transpositions_and_a_group(patch: Any) -> None:
    """Oracle: Pillow's own flips and turns; eight different maps, closed under composition."""
    T = Image.Transpose
    image = Image.fromarray(patch)
    mirrored = image.transpose(T.FLIP_LEFT_RIGHT)
    oracle = {
        "r0": image,
        "r90": image.transpose(T.ROTATE_90),
        "r180": image.transpose(T.ROTATE_180),
        "r270": image.transpose(T.ROTATE_270),
        "m0": mirrored,
        "m90": mirrored.transpose(T.ROTATE_90),
        "m180": mirrored.transpose(T.ROTATE_180),
        "m270": mirrored.transpose(T.ROTATE_270),
    }
    assert set(oracle) == set(D4)
    for view, expected in oracle.items():
        np.testing.assert_array_equal(turn(patch, view), np.asarray(expected))
    np.testing.assert_array_equal(turn(patch, PLAIN), patch)


def test_the_eight_views_are_different_and_closed() -> None:
    patch = np.arange(75, dtype=np.uint8).reshape(5, 5, 3)
    seen = {turn(patch, v).tobytes() for v in D4}
    assert len(seen) == 8
    assert {turn(turn(patch, a), b).tobytes() for a in D4 for b in D4} == seen


def test_each_view_is_the_embedding_of_the_turned_patch(store: Store, tiny: TinyDataset) -> None:
    (report,) = ingest(store, "tiny", [RESNET], D4_OPTIONS).models
    assert (report.n_embedded, report.n_views, report.n_left) == (48, 384, 0)
    (counts,) = query(
        store,
        "select count(*) as n, count(distinct view_id) as d, "
        "count(distinct annotation_id) as a, count(distinct view) as v "
        "from embedding_views",
    )
    assert counts == {"n": 384, "d": 384, "a": 48, "v": 8}
    model = load_embedder(
        RESNET,
        resolve(RESNET),
        find_weights(RESNET, "random", ""),
        dtype="float32",
        device=choose_device("cpu"),
    )
    row = tiny.rows[5]
    with Slide(tiny.slides / row["slide"]) as slide:
        patch = read_patch(slide, float(row["x"]), float(row["y"]), 0.25, PatchGeometry())
    stored = {
        r["view"]: r
        for r in query(
            store,
            "select v.*, a.x_l0 from embedding_views v join annotations a using (annotation_id, slide) "
            f"where a.slide = '{row['slide']}' and a.x_l0 = {row['x']} and a.y_l0 = {row['y']}",
        )
    }
    assert set(stored) == set(D4)
    for view, found in stored.items():
        assert found["view_id"] == f"{found['annotation_id']}#{view}"
        expected = model.embed(np.ascontiguousarray(turn(patch, view))[None])[0]
        np.testing.assert_allclose(found["vector"], expected, atol=1e-4)
    # The patch itself is embedded once for both tables.
    same = "select count(*) as n from embedding_views v join embeddings e using (annotation_id) where v.view = 'r0' and v.vector = e.vector"
    assert query(store, same) == [{"n": 48}]
    own = query(store, f'select view, count(*) as n from "{RESNET}#views" group by 1')
    assert {r["view"]: r["n"] for r in own} == dict.fromkeys(D4, 48)


def test_views_come_later_and_a_part_is_completed(store: Store) -> None:
    plain = IngestOptions(weights={RESNET: "random"}, dtype="float32")
    ingest(store, "tiny", [RESNET], plain)
    before = query(store, "select annotation_id, vector from embeddings order by 1")
    (report,) = ingest(store, "tiny", [RESNET], D4_OPTIONS).models
    assert (report.n_before, report.n_embedded, report.n_views) == (48, 0, 384)
    assert query(store, "select annotation_id, vector from embeddings order by 1") == before
    lost = query(store, "select view_id from embedding_views order by hash(view_id) limit 10")
    store.delete("views.timm.3atest_resnet", "view_id", [r["view_id"] for r in lost])
    assert status(store)[0]["views"] == 374
    (report,) = ingest(store, "tiny", [RESNET], D4_OPTIONS).models
    n_annotations = len({r["view_id"].rpartition("#")[0] for r in lost})
    assert (report.n_embedded, report.n_views) == (0, 8 * n_annotations)
    (counts,) = query(
        store, "select count(*) as n, count(distinct view_id) as d from embedding_views"
    )
    assert counts == {"n": 384, "d": 384}
    again = ingest(store, "tiny", [RESNET], D4_OPTIONS).models[0]
    assert (again.n_embedded, again.n_views) == (0, 0)
    assert status(store)[0]["views"] == 384


def test_killed_in_the_middle_the_same_command_completes_the_views(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    words = ["embedstore", "ingest", "tiny", "--model", RESNET, "--weights", f"{RESNET}=random"]
    words += ["--views", "d4", "--limit", "30", "--batch-size", "3", "--store", uri]
    hold = Hold(MERGE, n=2, where=views_table(RESNET), settings=FLUSH)
    process = start_held(words, hold, tmp_path / "mark", stderr=subprocess.DEVNULL)
    process.kill()
    process.wait(timeout=60)
    (part,) = query(store, "select count(*) as n from embedding_views")
    assert 0 < part["n"] < 240
    assert call_command(*words).code == 0
    (row,) = query(
        store,
        "select count(*) as n, count(distinct view_id) as d, "
        "count(distinct annotation_id) as a from embedding_views",
    )
    (plain,) = query(store, "select count(*) as n from embeddings")
    # --limit counts annotations that lack something, so what the first run did comes on top.
    assert row["n"] == row["d"] == 8 * row["a"]
    assert row["a"] == plain["n"] >= 30


def test_moved_and_renamed_annotations_reach_the_views(tiny: TinyDataset, tmp_path: Path) -> None:
    uri, file = str(tmp_path / "s"), tmp_path / "a.csv"

    def register(rows: list[dict[str, str]]) -> None:
        add(uri, "tiny", write_csv(file, rows), AddOptions(slides=tiny.slides))

    rows = [{**r, "id": str(k)} for k, r in enumerate(tiny.rows)]
    register(rows)
    store = Store.open(uri)
    ingest(store, "tiny", [RESNET], D4_OPTIONS)
    rows[0]["x"] = str(float(rows[0]["x"]) + 5)
    rows[1]["domain"] = "elsewhere"
    register(rows)
    left = query(
        store, "select annotation_id, domain, count(*) as n from embedding_views group by all"
    )
    assert sum(r["n"] for r in left) == 8 * 47
    assert [(r["annotation_id"], r["n"]) for r in left if r["domain"] == "elsewhere"] == [
        (f"tiny/{rows[1]['slide']}/1", 8)
    ]
    (report,) = ingest(store, "tiny", [RESNET], D4_OPTIONS).models
    assert (report.n_embedded, report.n_views) == (1, 8)


def test_an_unknown_set_of_views_is_refused(store: Store) -> None:
    with pytest.raises(EmbedstoreError, match="unknown --views 'c4'; allowed: d4"):
        ingest(store, "tiny", [RESNET], IngestOptions(views="c4"))
    with pytest.raises(EmbedstoreError, match="--as NAME"):
        ingest(store, "tiny", [RESNET], IngestOptions(name="some#views"))
