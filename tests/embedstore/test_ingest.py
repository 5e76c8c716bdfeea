"""`ingest`: only what is missing, once, whatever interrupts it; one bad slide stops nothing."""

import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.embed import Embedded, Look, SlideFailed, embed_slides
from embedstore.ingest import IngestOptions, ingest
from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve
from embedstore.models.pools import OWN
from embedstore.slides.patches import PLAIN, PatchGeometry
from embedstore.slides.reading import Point, SlideJob
from embedstore.slides.regions import read_each, read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from tests.making.commands import BIN, call_command
from tests.making.ingests import RANDOM, RESNET, VIT
from tests.making.slides import TinyDataset, write_slide
from tests.making.stores import query


def test_vectors_are_those_of_patches_read_one_by_one(store: Store, tiny: TinyDataset) -> None:
    (report,) = ingest(store, "tiny", [RESNET], RANDOM).models
    assert (report.n_before, report.n_embedded, report.n_left) == (0, 48, 0)
    entry = resolve(RESNET)
    model = load_embedder(
        RESNET,
        entry,
        find_weights(RESNET, "random", ""),
        dtype="float32",
        device=choose_device("cpu"),
    )
    stored = {
        (r["slide"], r["x_l0"], r["y_l0"]): r
        for r in query(
            store, "select * from embeddings join annotations using (annotation_id, slide)"
        )
    }
    assert len(stored) == len(tiny.rows)
    for row in tiny.rows[::7]:
        with Slide(tiny.slides / row["slide"]) as slide:
            patch = read_patch(slide, float(row["x"]), float(row["y"]), 0.25, PatchGeometry())
        mine = stored[row["slide"], float(row["x"]), float(row["y"])]
        np.testing.assert_allclose(mine["vector"], model.embed(patch[None])[0], atol=1e-4)
        assert (mine["label"], mine["domain"]) == (row["label"], row["domain"])


def test_again_embeds_nothing_and_needs_no_torch(store: Store, tiny: TinyDataset) -> None:
    ingest(store, "tiny", [RESNET], RANDOM)
    versions = store.stats("embeddings.timm.3atest_resnet")
    done = call_command(
        "embedstore", "ingest", "tiny", "--model", RESNET, "--json", "--store", store.uri
    )
    assert done.json()[0]["embedded"] == 0
    assert "nothing to embed" in done.err
    assert store.stats("embeddings.timm.3atest_resnet") == versions
    code = (
        "import sys; from embedstore.ingest.missing import *; from embedstore.store.store import Store\n"
        f"ingest(Store.open({store.uri!r}), 'tiny', [{RESNET!r}], IngestOptions())\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([BIN / "python", "-c", code], check=True, timeout=60)


def test_each_patch_is_read_once_for_all_models(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import embedstore.slides.reading as reading

    seen: Counter[Any] = Counter()
    real = read_each
    monkeypatch.setattr(
        reading,
        "read_each",
        lambda s, wanted, mpp: (
            seen.update((s.path, x, y) for x, y, _ in wanted) or real(s, wanted, mpp)
        ),
    )
    weights = {RESNET: "random", VIT: "random"}
    both = IngestOptions(weights=weights, dtype="float32", views="d4")
    reports = ingest(store, "tiny", [RESNET, VIT], both).models
    assert [(r.n_embedded, r.n_views) for r in reports] == [(48, 8 * 48)] * 2
    assert sum(seen.values()) == len(seen) == 48
    # A dtype of less precision is first held against float32, on 16 patches for all models.
    seen.clear()
    low = IngestOptions(weights={RESNET: "random"}, dtype="bfloat16", name="low")
    parity = ingest(store, "tiny", [RESNET], low).models[0].parity
    assert parity is not None
    assert parity > 0.999
    assert sum(seen.values()) == 16  # the rest was kept when it was first read
    seen.clear()
    uncached = IngestOptions(
        weights={VIT: "random"}, dtype="float32", name="again", patch_cache=False
    )
    ingest(store, "tiny", [VIT], uncached)
    assert sum(seen.values()) == 48


def test_a_model_that_is_ahead_is_not_embedded_again(store: Store) -> None:
    ingest(store, "tiny", [RESNET], IngestOptions(weights={RESNET: "random"}, limit=30))
    reports = ingest(store, "tiny", [VIT, RESNET], IngestOptions(weights={VIT: "random"})).models
    assert [(r.n_before, r.n_embedded, r.n_left) for r in reports] == [(0, 48, 0), (30, 18, 0)]


def test_off_slide_annotations_are_kept_and_not_embedded(tmp_path: Path) -> None:
    write_slide(tmp_path / "a.tiff", np.zeros((300, 300, 3), np.uint8))
    (tmp_path / "a.csv").write_text(
        "slide,x,y,label\na.tiff,-1,5,mitosis\na.tiff,5,300,imposter\na.tiff,0,299.9,mitosis\n"
    )
    uri = str(tmp_path / "s")
    add(uri, "d", tmp_path / "a.csv", AddOptions(slides=tmp_path))
    store = Store.open(uri)
    report = ingest(store, "d", [RESNET], RANDOM)
    assert (report.n_annotations, report.n_off_slide, report.models[0].n_embedded) == (3, 2, 1)
    assert report.models[0].n_left == 0
    assert query(store, "select n_annotations from datasets") == [{"n_annotations": 3}]


def test_the_loop_alone_in_order_with_a_failure(tmp_path: Path, data: Path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (400, 400, 3), dtype=np.uint8)
    good = str(write_slide(tmp_path / "g.tiff", pixels))
    entry = resolve(RESNET)
    model = load_embedder(
        "m", entry, find_weights(RESNET, "random", ""), dtype="float32", device=choose_device("cpu")
    )

    def job(name: str, path: str, n: int) -> SlideJob:
        points = [Point(f"{name}{k}", 200 + k, 200, {"m": [PLAIN]}) for k in range(n)]
        return SlideJob(name, path, 0.25, points)

    jobs = [job("a", good, 40), job("b", str(data / "wsi/broken.svs"), 40), job("c", good, 3)]
    events = list(
        embed_slides(
            jobs, [Look(model, PatchGeometry(), {model.name: OWN})], batch_size=16, workers=3
        )
    )
    failed = [e for e in events if isinstance(e, SlideFailed)]
    done = [e for e in events if isinstance(e, Embedded)]
    assert [f.slide for f in failed] == ["b"]
    ids = [p.annotation_id for e in done for p in e.points]
    assert ids == [f"a{k}" for k in range(40)] + [f"c{k}" for k in range(3)]
    assert [len(e.points) for e in done] == [16, 16, 11]
    assert all(e.vectors.shape == (len(e.points), entry.dim) for e in done)


def test_real_frames_with_a_real_checkpoint(data: Path, vits14_file: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    add(uri, "atypia", data / "atypia/atypia.json", AddOptions(slides=data / "atypia/images"))
    store = Store.open(uri)
    options = IngestOptions(weights={"dinov2-vits14": str(vits14_file)}, limit=24)
    assert ingest(store, "atypia", ["dinov2-vits14"], options).models[0].n_embedded == 24
    (row,) = query(store, "select * from models")
    assert (row["dim"], row["n_params"], row["pooling"]) == (384, 22_056_192, "cls")
    assert row["weights"] == "vit_small_patch14_dinov2.safetensors"
    assert Path(vits14_file).name == row["weights"]


def test_plain_images_as_slides_give_the_same_vectors_with_any_number_of_threads(
    tmp_path: Path,
) -> None:
    from PIL import Image

    rng = np.random.default_rng(1)
    rows = ["slide,x,y,label"]
    for n in range(3):
        Image.fromarray(rng.integers(0, 255, (600, 600, 3), dtype=np.uint8)).save(
            tmp_path / f"{n}.png"
        )
        rows += [
            f"{n}.png,{100 + 10 * k},{300 + k},{('mitosis', 'imposter')[k % 2]}" for k in range(40)
        ]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    found = []
    for workers in (1, 6):
        uri = str(tmp_path / f"s{workers}")
        add(uri, "d", tmp_path / "a.csv", AddOptions(slides=tmp_path, mpp=0.25))
        report = ingest(
            Store.open(uri), "d", [RESNET], IngestOptions(**{**vars(RANDOM), "workers": workers})
        )
        assert (report.models[0].n_embedded, report.set_aside) == (120, {})
        found.append(
            {
                r["annotation_id"]: r["vector"]
                for r in query(Store.open(uri), "select * from embeddings")
            }
        )
    assert found[0] == found[1]
