"""What a file says of its pixels and levels, against files written with every kind of it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from PIL import Image

from embedstore.errors import SlideError
from embedstore.slides.slide import Slide, probe, true_downsamples
from embedstore.slides.tiff import read_header

tifffile = pytest.importorskip("tifffile", reason="writes the slides (extra demo)")


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("dtype", "channels", "said"),
    [
        (np.uint8, 3, None),
        (np.uint8, 1, None),
        (np.uint16, 3, "16 bits"),
        (np.uint16, 1, "16 bits"),
        (np.float32, 1, "32 bits"),
        (np.uint8, 5, "5 channels"),
        (np.uint8, 2, "2 channels"),
    ],
)
def test_every_kind_of_pixels(
    tmp_path: Path, big: bool, order: str, dtype: type, channels: int, said: str | None
) -> None:
    shape = (256, 256, channels) if channels > 1 else (256, 256)
    pixels: np.ndarray = np.zeros(shape, dtype)
    kind = {"photometric": "rgb" if channels == 3 else "minisblack", "planarconfig": None}
    if channels in (2, 5):
        kind["planarconfig"] = "contig"
    path = tmp_path / "a.tiff"
    with tifffile.TiffWriter(path, bigtiff=big, byteorder=order) as tif:
        tif.write(pixels, tile=(128, 128), metadata=None, **kind)
    header = read_header(path)
    assert header is not None
    assert (header.problem is None) if said is None else said in (header.problem or "")
    row = probe(path, (0.25, "option"))
    assert row["status"] == ("ok" if said is None else "unreadable")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_pictures_are_turned_as_their_tag_says(
    tmp_path: Path, orientation: int, ending: str
) -> None:
    """One corner is dark: Pillow's own turn is the oracle for where it is to lie."""
    pixels = np.full((60, 90, 3), 230, np.uint8)
    pixels[:20, :20] = 20
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path, exif=exif, quality=95)
    turns = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(pixels, 1),
    }
    right = turns[orientation]
    with Slide(path) as slide:
        assert (slide.width, slide.height) == (right.shape[1], right.shape[0])
        read = np.asarray(slide.read_region(0, 0, 0, slide.width, slide.height))
    np.testing.assert_allclose(read.astype(int), right.astype(int), atol=60)
    row = probe(path, (0.25, "option"))
    assert (row["width"], row["height"]) == (right.shape[1], right.shape[0])


def test_a_tiled_tiff_that_is_stored_turned_is_set_aside(tmp_path: Path) -> None:
    path, pixels = tmp_path / "a.tiff", np.zeros((256, 300, 3), np.uint8)
    tifffile.imwrite(
        path, pixels, tile=(128, 128), extratags=[(274, "H", 1, 6, True)], metadata=None
    )
    with pytest.raises(SlideError, match="stored turned"):
        Slide(path)


@given(
    st.integers(3_000, 200_000),
    st.integers(3_000, 200_000),
    st.sampled_from([2, 4, 8, 16]),
    st.sampled_from([None, (240, 240), (256, 256), (512, 512)]),
    st.sampled_from([math.floor, math.ceil, round]),
)
def test_levels_that_are_a_whole_part_keep_what_the_file_says(
    width: int, height: int, down: int, tile: tuple[int, int] | None, rounding: object
) -> None:
    assert callable(rounding)
    size = (rounding(width / down), rounding(height / down))
    stated = (width / size[0] + height / size[1]) / 2
    assert true_downsamples([(width, height), size], [1.0, stated], [tile, tile]) == (1.0, stated)


@example(1021, 1021, 4, 512)
@given(
    st.integers(1_000, 20_000),
    st.integers(1_000, 20_000),
    st.sampled_from([2, 4]),
    st.sampled_from([256, 512]),
)
def test_a_level_filled_up_to_whole_tiles_is_never_used_at_a_wrong_scale(
    width: int, height: int, down: int, tile: int
) -> None:
    size = tuple(math.ceil(math.ceil(v / down) / tile) * tile for v in (width, height))
    stated = (width / size[0] + height / size[1]) / 2
    # A level of one tile may by its size be another whole part of level 0: nothing tells them apart.
    whole = round(width / size[0])
    assume(
        whole == down
        or any(abs(n * whole - of) > whole for n, of in zip(size, (width, height), strict=True))
    )
    sizes = [(width, height), (size[0], size[1])]
    _, used = true_downsamples(sizes, [1.0, stated], [(tile, tile)] * 2)
    # Off by less than two pixels at the far edge, or not used at all.
    assert math.isinf(used) or max(abs(v / down - v / used) for v in (width, height)) < 4
