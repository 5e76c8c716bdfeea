"""Slides and patches: pixel values against formulas, sizes and mpp against the files themselves."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.errors import SlideError
from embedstore.slides.patches import PatchGeometry
from embedstore.slides.regions import pick_level, read_patch
from embedstore.slides.slide import Slide, probe
from tests.making.slides import write_slide


class Ramp:
    """A slide without end whose red grows with x and green with y, linearly, at every level."""

    def __init__(self, downsamples: tuple[float, ...] = (1.0,), slope: float = 0.05) -> None:
        self.downsamples, self.slope = downsamples, slope

    def value(self, l0: np.ndarray) -> np.ndarray:
        return 128 + self.slope * (l0 - 1000)

    def read_region(self, x_l0: Any, y_l0: Any, level: Any, width: Any, height: Any) -> Any:
        d = self.downsamples[level]
        # The centre of pixel i of a level lies at level-0 coordinate x_l0 + (i + 0.5) * d.
        r = self.value(x_l0 + (np.arange(width) + 0.5) * d)
        g = self.value(y_l0 + (np.arange(height) + 0.5) * d)
        planes = np.stack(
            np.broadcast_arrays(r[None, :], g[:, None], np.zeros((height, width))), axis=-1
        )
        return Image.fromarray(np.clip(planes + 0.5, 0, 255).astype(np.uint8), "RGB")


@settings(max_examples=40, deadline=None)
@given(
    x=st.floats(800, 1200),
    y=st.floats(800, 1200),
    mpp=st.floats(0.12, 0.9),
    px=st.sampled_from([96, 224]),
)
def test_patch_samples_the_right_places_at_the_right_scale(
    x: Any, y: Any, mpp: Any, px: Any
) -> None:
    slide = Ramp((1.0, 2.0, 4.0))
    patch = read_patch(slide, x, y, mpp, PatchGeometry(px, 0.25)).astype(float)
    assert patch.shape == (px, px, 3)
    scale = 0.25 / mpp  # level-0 pixels per patch pixel
    at = (np.arange(px) + 0.5 - px / 2) * scale
    # One grey level of rounding twice, and half a pixel where pixels are taken as they are.
    slack = 1.6 + slide.slope * scale
    assert np.abs(patch[..., 0] - slide.value(x + at)[None, :]).max() < slack
    assert np.abs(patch[..., 1] - slide.value(y + at)[:, None]).max() < slack


def test_pixels_are_taken_as_they_are_at_the_slides_own_scale(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (600, 700, 3), dtype=np.uint8)
    with Slide(write_slide(tmp_path / "a.tiff", pixels, mpp=0.25)) as slide:
        assert slide.mpp is not None
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)
        patch = read_patch(slide, 350, 300, slide.mpp, PatchGeometry(224, 0.25))
    np.testing.assert_array_equal(patch, pixels[188:412, 238:462])


def test_beyond_the_edge_is_white(tmp_path: Path) -> None:
    pixels = np.full((400, 400, 3), 10, dtype=np.uint8)
    with Slide(write_slide(tmp_path / "a.tiff", pixels, mpp=0.25)) as slide:
        patch = read_patch(slide, 0, 390, 0.25, PatchGeometry(224, 0.25))
    inside = np.zeros((224, 224), dtype=bool)
    inside[: 112 + 10, 112:] = True
    assert (patch[inside] == 10).all()
    assert (patch[~inside] == 255).all()


def test_level_is_the_coarsest_that_is_fine_enough() -> None:
    levels = (1.0, 2.0005, 4.0, 16.0)
    assert [pick_level(levels, s) for s in (0.5, 1, 1.9, 2, 3.9, 4, 40)] == [0, 0, 0, 1, 1, 2, 3]


def test_a_pyramid_is_used(tmp_path: Path) -> None:
    y, x = np.mgrid[0:1024, 0:1024]
    pixels = np.stack([x // 4, y // 4, 0 * x], axis=-1).astype(np.uint8)
    with Slide(write_slide(tmp_path / "a.tiff", pixels, mpp=0.125, levels=2)) as slide:
        assert len(slide.downsamples) == 2
        assert slide.mpp is not None
        patch = read_patch(slide, 512, 512, slide.mpp, PatchGeometry(128, 0.25)).astype(int)
    expected = (512 + (np.arange(128) - 63.5) * 2) / 4
    assert np.abs(patch[:, :, 0] - expected[None, :]).max() <= 1.5


def test_real_slides_upsampled_and_without_mpp(data: Path) -> None:
    with Slide(data / "wsi/cmu-1-small-region.svs") as slide:
        assert slide.mpp == 0.499
        region = np.asarray(slide.read_region(1000, 1000, 0, 112, 112))
        patch = read_patch(slide, 1056, 1056, 0.5, PatchGeometry(224, 0.25))
    # Twice the size: the mean over 2 x 2 patch pixels is close to the source pixel.
    back = patch.reshape(112, 2, 112, 2, 3).mean(axis=(1, 3))
    assert np.abs(back - region).mean() < 3
    with Slide(data / "wsi/tcga-cr-7395-01a-01-ts1.svs") as slide:
        assert slide.mpp is None
        assert len(slide.downsamples) == 2


def test_real_frames_state_their_mpp(data: Path) -> None:
    with Slide(data / "atypia/images/H03_00Aa.tiff") as slide:
        assert (slide.width, slide.height) == (1663, 1485)
        assert slide.mpp == pytest.approx(0.2273, rel=1e-4)


def test_unreadable_files_are_slide_errors(data: Path, tmp_path: Path) -> None:
    for path in (data / "wsi/broken.svs", tmp_path / "none.svs"):
        with pytest.raises(SlideError, match=path.name):
            Slide(path)


@pytest.mark.parametrize(
    ("stated", "given", "status", "source"),
    [
        (0.23, (None, None), "ok", "slide"),
        (0.23, (0.5, "option"), "ok", "slide"),
        (0.00499, (None, None), "no-mpp", None),
        (0.00499, (0.499, "option"), "ok", "option"),
        (None, (None, None), "no-mpp", None),
        (None, (0.4, "slide table"), "ok", "slide table"),
    ],
)
def test_probe_never_takes_an_implausible_mpp(
    tmp_path: Path, stated: float | None, given: Any, status: str, source: str | None
) -> None:
    path = write_slide(tmp_path / "a.tiff", np.zeros((300, 300, 3), np.uint8), mpp=stated)
    row = probe(path, given)
    assert (row["status"], row["mpp_source"]) == (status, source)
    if status == "no-mpp":
        assert "--mpp" in row["problem"]
    else:
        assert row["mpp"] == pytest.approx(stated if source == "slide" else given[0], rel=1e-4)


def test_probe_of_what_is_not_there_or_broken(data: Path, tmp_path: Path) -> None:
    assert probe(None, (None, None))["status"] == "missing"
    assert probe(tmp_path / "x.svs", (None, None))["status"] == "missing"
    assert probe(data / "wsi/broken.svs", (0.25, "option"))["status"] == "unreadable"


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff"])
def test_plain_images_are_read_alike_by_many_threads(tmp_path: Path, suffix: str) -> None:
    """Pillow decodes at the first read; threads that share that get each other's pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (900, 900, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    decoded = np.asarray(Image.open(path).convert("RGB"))
    places = [(int(x), int(y)) for x in range(0, 800, 90) for y in range(0, 800, 270)]
    for _ in range(6):
        with Slide(path) as slide, ThreadPoolExecutor(8) as pool:
            regions = list(pool.map(lambda p, s=slide: s.read_region(*p, 0, 80, 80), places))
        for (x, y), region in zip(places, regions, strict=True):
            np.testing.assert_array_equal(np.asarray(region), decoded[y : y + 80, x : x + 80])


def test_images_that_would_be_read_wrongly_or_not_at_all_are_slide_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.full((50, 50), 60000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SlideError, match="not 8-bit|16 bits a channel"):
        Slide(tmp_path / "deep.png")
    Image.fromarray(np.zeros((300, 300, 3), np.uint8)).save(tmp_path / "big.png")
    content = bytearray((tmp_path / "big.png").read_bytes())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(SlideError, match=r"big\.png"):
        Slide(tmp_path / "big.png")
    assert probe(tmp_path / "big.png", (0.25, "option"))["status"] == "unreadable"
    monkeypatch.undo()
    content[40:60] = b"x" * 20
    (tmp_path / "hurt.png").write_bytes(content)
    with pytest.raises(SlideError, match=r"hurt\.png"):
        Slide(tmp_path / "hurt.png")
