"""Batches: every annotation once a pass, none alone, patches in order whoever reads them."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from e2e.data import StoredPatches, n_batches, read_batches, rows_of_step
from embedstore.add import AddOptions, add
from embedstore.embeddings.crops import Placed, fill, located
from embedstore.errors import SlideError
from embedstore.slides.patches import PatchGeometry, centre
from embedstore.store import Store
from embedstore.store.patch_cache import PatchCache
from tests.making.slides import TinyDataset

GEOMETRY = PatchGeometry(32)


@given(n=st.integers(2, 300), batch_size=st.integers(2, 64), seed=st.integers(0, 2**62))
def test_a_pass_takes_each_annotation_once_and_no_batch_is_alone(
    n: Any, batch_size: Any, seed: Any
) -> None:
    n_each = n_batches(n, batch_size)
    for which in (0, 3):
        steps = range(which * n_each, (which + 1) * n_each)
        batches = [rows_of_step(n, batch_size, seed, s) for s in steps]
        sizes = [len(b) for b in batches]
        assert sorted(np.concatenate(batches).tolist()) == list(range(n))
        assert min(sizes) >= 2
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= max(batch_size, 3)  # three of a batch size of two are one batch


def test_passes_differ_and_a_step_depends_on_nothing_before_it() -> None:
    first = [rows_of_step(12, 32, 5, s).tolist() for s in range(4)]
    assert len({tuple(f) for f in first}) == 4
    assert rows_of_step(12, 32, 5, 3).tolist() == first[3]
    assert rows_of_step(12, 32, 6, 3).tolist() != first[3]


def test_batches_arrive_in_order_however_long_each_takes_and_not_too_far_ahead() -> None:
    n_read, lock = 0, threading.Lock()

    class Slow:
        def read(self, ids: Any) -> Any:
            nonlocal n_read
            time.sleep(0.02 if int(ids[0]) % 2 else 0)
            with lock:
                n_read += 1
            return np.array([int(i) for i in ids])

    ids = [str(k) for k in range(40)]
    batches = [np.arange(k, k + 2) for k in range(0, 40, 2)]
    for n, (rows, crops) in enumerate(read_batches(Slow(), ids, batches, workers=3)):
        assert rows.tolist() == crops.tolist() == batches[n].tolist()
        assert n_read <= n + 6
    assert n == 19


def test_a_patch_is_the_same_from_the_slide_and_from_the_cache(
    tiny: TinyDataset, tmp_path: Path
) -> None:
    uri = str(tmp_path / "S")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    rows = located(store, "tiny")
    ids = list(rows)[::-1]
    cache = PatchCache(store, "tiny", GEOMETRY)
    fill(cache, list(rows.values())[:20], GEOMETRY, workers=2)
    direct = StoredPatches(rows, GEOMETRY, None).read(ids)
    assert direct.shape == (len(ids), GEOMETRY.wide().size_px, GEOMETRY.wide().size_px, 3)
    assert (StoredPatches(rows, GEOMETRY, cache).read(ids) == direct).all()  # some of them cached
    with pytest.raises(SlideError):
        StoredPatches({"x": replace(rows[ids[0]], path="gone.tiff")}, GEOMETRY, None).read(["x"])


def test_a_pre_cropped_patch_is_whole_and_goes_on_as_its_mirror_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    own = Placed(
        "p",
        16.0,
        16.0,
        dataset="d",
        slide="p.png",
        case_id="p.png",
        domain="a",
        label="mitosis",
        status="ok",
        kind="patch",
        path=str(tmp_path / "p.png"),
        mpp=None,
        width=32,
        height=32,
        slide_status="ok",
    )
    placed = {"p": own}
    (crop,) = StoredPatches(placed, GEOMETRY, None).read(["p"])
    assert (centre(crop, 32) == pixels).all()
    margin = (len(crop) - 32) // 2
    assert (crop[margin - 1, margin:-margin] == pixels[1]).all()
