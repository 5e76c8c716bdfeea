"""`--views jitter`: seeded shifts of up to 4 um from the same region; a placement bias shows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.errors import UsageError
from embedstore.ingest import IngestOptions, ingest
from embedstore.slides.patches import PatchGeometry, view_of
from embedstore.slides.placement import JITTER, JITTER_UM, shift_um
from embedstore.slides.regions import read_patch
from embedstore.slides.slide import Slide
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.splits.spec import Asked, ManifestSpec
from tests.making.ingests import VIT
from tests.making.models import embedder
from tests.making.slides import TinyDataset, write_csv, write_slide
from tests.making.stores import query


def test_shifts_fill_a_disc_and_differ_from_view_to_view() -> None:
    shifts = np.array([[shift_um(f"d/s/{n}", v) for v in JITTER] for n in range(2000)])
    far = np.hypot(shifts[..., 0], shifts[..., 1])
    assert far.max() <= JITTER_UM
    # Uniform in a disc: a quarter lies within half of the radius, and there is no direction.
    assert (far < JITTER_UM / 2).mean() == pytest.approx(0.25, abs=0.02)
    assert np.abs(shifts.mean((0, 1))).max() < 0.1
    flat = shifts.reshape(2000, -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(8)).max() < 0.08


@given(st.text(min_size=1), st.sampled_from(JITTER))
def test_a_shift_is_the_annotations_own(annotation_id: str, view: str) -> None:
    assert shift_um(annotation_id, view) == shift_um(annotation_id, view)
    assert shift_um(annotation_id, view) != shift_um(annotation_id + "x", view)


@pytest.mark.parametrize("patch_cache", [True, False])
def test_vectors_are_those_of_patches_read_beside_the_centre(
    store: Store, tiny: TinyDataset, *, patch_cache: bool
) -> None:
    options = IngestOptions(
        weights={VIT: "random"},
        dtype="float32",
        pools=("cls", "centre2"),
        mpp_out=(0.25, 0.125),
        views="jitter",
        patch_cache=patch_cache,
    )
    for _ in range(2):  # the second time nothing lacks
        reports = ingest(store, "tiny", [VIT], options).models
    assert [(r.n_before, r.n_embedded, r.n_views) for r in reports] == [(48, 0, 0)] * 4
    model = embedder(VIT)
    rows = query(
        store, "select * from embedding_views join annotations using (annotation_id, slide)"
    )
    assert len(rows) == 4 * 4 * 48
    for row in rows[::37]:
        _, mpp, pool = row["model"].replace("@", "/").rsplit("/", 2)
        dx, dy = (
            round(um / float(mpp)) * float(mpp)
            for um in shift_um(row["annotation_id"], row["view"])
        )
        x, y = row["x_l0"] + dx / 0.25, row["y_l0"] + dy / 0.25
        with Slide(tiny.slides / row["slide"]) as slide:
            patch = read_patch(slide, x, y, 0.25, PatchGeometry(224, float(mpp)))
        (alone,) = model.embed_pools(patch[None], [pool], float(mpp))
        np.testing.assert_allclose(row["vector"], alone[0], atol=1e-4)


def test_views_of_two_sets_stand_side_by_side(store: Store) -> None:
    for views in ("d4", "jitter"):
        options = IngestOptions(weights={VIT: "random"}, dtype="float32", views=views)
        ingest(store, "tiny", [VIT], options)
    for views in ("d4", "jitter"):
        splits = Asked(folds=[0])
        report = run(store, ManifestSpec("tiny"), RunOptions(splits=splits, views=views))
        assert report.n_new == 1


def test_a_crop_too_narrow_for_a_shift_is_refused(store: Store) -> None:
    narrow = IngestOptions(weights={VIT: "random"}, patch_px=48, views="jitter")
    with pytest.raises(UsageError, match=r"of 48 px at 0.25 um/px only 2\.75 um are read"):
        ingest(store, "tiny", [VIT], narrow)
    assert store.models() == []


def test_patches_cropped_before_have_nothing_beside_them(tmp_path: Path) -> None:
    from PIL import Image

    for n in range(4):
        to = tmp_path / "p" / ("mitotic figure", "non-mitotic figure")[n % 2] / f"{n}.png"
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), (n * 20, 90, 90)).save(to)
    add(str(tmp_path / "s"), "cut", tmp_path / "p", AddOptions())
    options = IngestOptions(weights={VIT: "random"}, views="jitter")
    with pytest.raises(UsageError, match="nothing beside them that a shifted view could show"):
        ingest(Store.open(str(tmp_path / "s")), "cut", [VIT], options)


@given(st.text(min_size=1), st.sampled_from(JITTER), st.sampled_from([0.0834, 0.125, 0.25, 1.0]))
def test_a_shifted_view_lies_within_its_crop(annotation_id: str, view: str, mpp: float) -> None:
    geometry = PatchGeometry(224, mpp)
    side = geometry.wide().size_px
    crop = np.zeros((side, side, 3), np.uint8)
    crop[..., 0], crop[..., 1] = np.arange(side)[:, None] % 256, np.arange(side) % 256
    patch = view_of(crop, view, annotation_id, geometry)
    assert patch.shape == (224, 224, 3)
    dx, dy = (round(um / mpp) for um in shift_um(annotation_id, view))
    margin = (side - 224) // 2
    assert tuple(patch[0, 0, :2]) == ((margin + dy) % 256, (margin + dx) % 256)


@pytest.mark.parametrize("kind", ["placed", "coloured"])
def test_a_planted_placement_bias_shows_and_a_real_difference_stays(
    tmp_path: Path, kind: str
) -> None:
    """Cells alike, but one class marked 2 um off; or all marked alike, one class darker."""
    rng = np.random.default_rng(0)
    pixels = np.full((2200, 2200, 3), 235, np.uint8) - rng.integers(0, 8, (2200, 2200, 3), np.uint8)
    rows = []
    for n, (gx, gy) in enumerate((x, y) for x in range(15) for y in range(15)):
        x, y, label = 150 + 130 * gx, 150 + 130 * gy, n % 2
        ink = 90 + 50 * label * (kind == "coloured")
        yy, xx = np.mgrid[y - 12 : y + 12, x - 12 : x + 12]
        pixels[yy, xx] = np.where(
            ((xx - x) ** 2 + (yy - y) ** 2 <= 100)[..., None], ink, pixels[yy, xx]
        )
        off = 8 * label * (kind == "placed")
        angle = rng.uniform(0, 2 * np.pi)
        rows.append(
            {
                "slide": "a.tiff",
                "x": x + off * np.cos(angle),
                "y": y + off * np.sin(angle),
                "label": ("imposter", "mitosis")[label],
                "domain": "d",
            }
        )
    (tmp_path / "slides").mkdir()
    write_slide(tmp_path / "slides" / "a.tiff", pixels)
    add(
        str(tmp_path / "s"),
        "d",
        write_csv(tmp_path / "a.csv", rows),
        AddOptions(slides=tmp_path / "slides"),
    )
    store = Store.open(str(tmp_path / "s"))
    options: dict[str, Any] = {"weights": {VIT: "random"}, "dtype": "float32", "patch_px": 112}
    ingest(store, "d", [VIT], IngestOptions(**options, pools=("centre2",), views="jitter"))
    for views in (None, "jitter"):
        run(store, ManifestSpec("d"), RunOptions(methods=("logreg",), views=views))
    values = {
        bool(r["views"]): r["v"]
        for r in query(
            store,
            "select json_extract_string(params, '$.views') as views, avg(value) as v from results "
            "where metric = 'auroc' group by 1",
        )
    }
    assert values[False] > 0.95
    if kind == "placed":
        assert values[True] < 0.75
    else:
        assert values[True] > 0.95
