"""Patches kept in the store: without loss, the very pixels a slide gives, gone when they change."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from embedstore.add import AddOptions, add
from embedstore.embeddings.crops import fill, located
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.slides.patches import PatchGeometry, centre
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache, decode, encode
from embedstore.store.sql import connect, fetch, fetch_rows
from tests.making.slides import make_tiny

RESNET = "timm:test_resnet"


@pytest.fixture
def mine(tmp_path: Path) -> Any:
    """A dataset of one's own to change: its files and its store."""
    tiny = make_tiny(tmp_path / "data", per_label=4)
    uri = str(tmp_path / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    return tiny, Store.open(uri)


def cached(store: Store) -> list[dict[str, Any]]:
    return fetch_rows(connect(store), "from patches order by annotation_id, size_px")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A checkpoint, since random weights follow from a model's name."""
    path = tmp_path_factory.mktemp("weights") / "test_resnet.pt"
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    return str(path)


def embed(store: Store, name: str, weights: str, **options: Any) -> dict[str, list[float]]:
    ingest(store, "tiny", [RESNET], IngestOptions(weights={RESNET: weights}, name=name, **options))
    table = fetch(connect(store), f'select annotation_id, vector from "{name}"')
    return dict(zip(*table.to_pydict().values(), strict=True))


@given(arrays.arrays(np.uint8, st.integers(1, 40).map(lambda n: (n, n, 3))))
def test_crops_come_back_as_they_were(crop: Any) -> None:
    assert (decode(encode(crop), crop.shape[0]) == crop).all()


@given(
    mpp=st.floats(0.1, 0.6), size=st.integers(16, 80), x=st.floats(150, 250), y=st.floats(150, 250)
)
def test_the_middle_of_the_wider_crop_is_the_patch(mpp: Any, size: Any, x: Any, y: Any) -> None:
    """To the last bit, at any scale and place: else embeddings would depend on the cache."""
    pixels = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)

    class InMemory:
        downsamples: tuple[float, ...] = (1.0, 2.0)

        def read_region(self, x_l0: Any, y_l0: Any, level: Any, width: Any, height: Any) -> Any:
            step = 2**level
            image = Image.fromarray(pixels[::step, ::step])
            left, top = x_l0 // step, y_l0 // step
            return image.crop((left, top, left + width, top + height))

    geometry = PatchGeometry(size, 0.25)
    wide = read_patch(InMemory(), x, y, mpp, geometry.wide())
    assert (centre(wide, size) == read_patch(InMemory(), x, y, mpp, geometry)).all()


@given(st.integers(1, 2048))
def test_a_wider_crop_holds_the_patch_turned_by_any_angle(size: Any) -> None:
    wide = PatchGeometry(size).wide().size_px
    assert (wide - size) % 2 == 0
    assert wide >= size * np.sqrt(2) + 1  # and a pixel for the interpolation
    assert wide <= size * 1.42 + 4


def test_embeddings_do_not_depend_on_the_cache(mine: Any, file: Any) -> None:
    tiny, store = mine
    without = embed(store, "without", file, patch_cache=False)
    assert cached(store) == []
    first = embed(store, "first", file)
    assert {r["annotation_id"] for r in cached(store)} == set(first)
    shutil.rmtree(tiny.slides)
    again = embed(store, "again", file)  # no slide is opened any more
    assert first == again == without
    assert len(first) == 32


def test_what_is_kept_is_what_the_slide_shows(mine: Any) -> None:
    tiny, store = mine
    geometry = PatchGeometry(64, 0.5)
    placed = list(located(store, "tiny").values())
    cache = PatchCache(store, "tiny", geometry)
    seen = []
    fill(
        cache,
        placed,
        geometry,
        workers=2,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[0] == (0, 32)
    assert seen[-1] == (32, 32)
    crops = cache.read([p.annotation_id for p in placed])
    for p in placed:
        with Slide(tiny.slides / p.slide) as slide:
            wide = read_patch(slide, p.x_l0, p.y_l0, 0.25, geometry.wide())
        assert (crops[p.annotation_id] == wide).all()
    fill(cache, placed, geometry, workers=2)
    assert len(cached(store)) == 32
    assert all(r["size_px"] == 94 and 0 < r["n_bytes"] < 94 * 94 * 3 * 1.1 for r in cached(store))


def test_a_wider_field_replaces_a_narrow_one_and_serves_it(mine: Any) -> None:
    _, store = mine
    placed = list(located(store, "tiny").values())
    caches = {}
    for size in (32, 64):
        geometry = PatchGeometry(size)
        caches[size] = PatchCache(store, "tiny", geometry)
        fill(caches[size], placed, geometry, workers=2)
    assert {r["size_px"] for r in cached(store)} == {PatchGeometry(64).wide().size_px}
    assert len(cached(store)) == 32
    ids = [p.annotation_id for p in placed]
    before = caches[32].read(ids)  # still of the version it was opened with
    after = PatchCache(store, "tiny", PatchGeometry(32)).read(ids)
    assert all((before[i] == after[i]).all() for i in ids)
    other = PatchCache(store, "tiny", PatchGeometry(32, 0.5))  # another scale is another patch
    assert other.read(ids) == {}


def test_patches_go_with_what_they_showed(mine: Any) -> None:
    tiny, store = mine
    embed(store, "m", "random")
    rows = tiny.rows
    rows[0]["x"] = str(float(rows[0]["x"]) + 40)
    with tiny.csv.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    before = {r["annotation_id"] for r in cached(store)}
    add(store.uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    # Without an id of its own an annotation is known by its content: the moved one is new.
    now_there = {r["annotation_id"] for r in fetch_rows(connect(store), "from annotations")}
    embed(store, "m", "random")
    assert {r["annotation_id"] for r in cached(store)} - before <= now_there
    with Image.open(tiny.slides / rows[0]["slide"]) as image:
        shape = image.size
    from tests.making.slides import write_slide

    fresh = np.full((shape[1], shape[0], 3), 99, dtype=np.uint8)
    write_slide(tiny.slides / rows[0]["slide"], fresh)
    add(store.uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    assert rows[0]["slide"] not in {r["slide"] for r in cached(store)}


def test_slides_that_cannot_be_read_are_named_and_the_rest_is_kept(mine: Any) -> None:
    tiny, store = mine
    broken = tiny.slides / "a0.tiff"
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) // 3])
    geometry = PatchGeometry(64)
    cache = PatchCache(store, "tiny", geometry)
    with pytest.raises(EmbedstoreError, match=r"1 slides cannot be read .*a0\.tiff"):
        fill(cache, list(located(store, "tiny").values()), geometry, workers=2)
    assert len({r["slide"] for r in cached(store)} - {"a0.tiff"}) == 3
