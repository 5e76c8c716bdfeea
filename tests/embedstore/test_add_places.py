"""Where annotations lie: from the slide's corner or its scanned area's, in pixels, um or parts."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.add import AddOptions
from embedstore.add.changes import Before
from embedstore.add.places import place
from embedstore.annotations.source import AnnotationFile
from embedstore.errors import EmbedstoreError
from tests.making.commands import call_command
from tests.making.slides import write_csv, write_slide
from tests.making.stores import query_of

NOTHING = Before({}, {}, {})
CELLS = [(400, 900), (700, 1000), (550, 760), (360, 1150)]
"""The cells of a.scn in level-0 pixels; its scanned area is 512 x 512 from (300, 700)."""


def placed(
    points: list[tuple[float, float]], format: str, options: AddOptions, **slide: Any
) -> tuple[list[tuple[float, float]], dict[str, Any], list[str]]:
    rows: list[dict[str, Any]] = [{"slide": "a", "x_l0": x, "y_l0": y} for x, y in points]
    row: dict[str, Any] = {
        "slide": "a",
        "bounds": None,
        "width": None,
        "height": None,
        "mpp": None,
        "problem": "?",
    }
    row |= slide
    notes: list[str] = []
    content = AnnotationFile(Path("a.csv"), format, {}, [])
    place(rows, [row], content, options, NOTHING, notes)
    return [(r["x_l0"], r["y_l0"]) for r in rows], row, notes


@given(
    st.sampled_from(["geojson", "csv", "midog"]),
    st.sampled_from(["level0", "bounds"]),
    st.tuples(st.integers(0, 3000), st.integers(1, 3000)),
    st.tuples(st.integers(100, 4000), st.integers(100, 4000)),
    st.lists(st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)), min_size=1, max_size=40),
)
def test_centres_tell_from_where_they_count_or_the_format_does(
    format: str,
    frame: str,
    corner: tuple[int, int],
    size: tuple[int, int],
    parts: list[tuple[float, float]],
) -> None:
    right = [(corner[0] + x * size[0], corner[1] + y * size[1]) for x, y in parts]
    left, top = corner if frame == "bounds" else (0, 0)
    given_ = [(x - left, y - top) for x, y in right]
    got, row, notes = placed(
        given_,
        format,
        AddOptions(unit="px"),
        bounds=[*corner, *size],
        width=corner[0] + size[0] + 50,
        height=corner[1] + size[1] + 50,
    )
    # By hand: in which of the two frames is every centre on the scanned area?
    usual = "bounds" if format == "geojson" else "level0"
    shift = corner if frame == "level0" else (0, 0)
    others = [(x + shift[0], y + shift[1]) for x, y in given_]
    n_other = sum(
        corner[0] <= x < corner[0] + size[0] and corner[1] <= y < corner[1] + size[1]
        for x, y in others
    )
    is_open = n_other >= 0.95 * len(parts)
    expected = usual if is_open else frame
    assert row["frame"] == expected
    assert "--frame" in notes[0]
    if expected == frame:
        assert got == [pytest.approx(p) for p in right]
    else:
        assert row["frame_source"] == "format"
        assert got == [pytest.approx(p) for p in others]


@given(
    st.integers(1000, 90_000),
    st.integers(1000, 90_000),
    st.floats(0.1, 1),
    st.lists(st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)), min_size=1, max_size=20),
)
def test_parts_percents_and_micrometres_are_the_same_places(
    width: int, height: int, mpp: float, parts: list[tuple[float, float]]
) -> None:
    slide = {"width": width, "height": height, "mpp": mpp}
    right = [(x * width, y * height) for x, y in parts]
    forms: dict[Any, list[tuple[float, float]]] = {
        "relative": parts,
        "percent": [(100 * x, 100 * y) for x, y in parts],
        "um": [(x * mpp, y * mpp) for x, y in right],
        "px": right,
    }
    for unit, points in forms.items():
        got, row, _ = placed(points, "csv", AddOptions(unit=unit), **slide)
        assert got == [pytest.approx(p) for p in right]
        assert row["unit"] == unit


def test_parts_of_the_scanned_area() -> None:
    got, _, _ = placed(
        [(0.5, 0.25)],
        "csv",
        AddOptions(unit="relative", frame="bounds"),
        bounds=[300, 700, 512, 400],
        width=1200,
        height=1600,
    )
    assert got == [(556.0, 800.0)]


def test_what_can_be_no_pixels_is_refused_and_what_may_be_none_told() -> None:
    slide = {"width": 40_000, "height": 30_000, "mpp": 0.25}
    parts = [(0.3 + k / 47, 0.25) for k in range(10)]
    for scale, option in ((1, "--unit relative"), (100, "--unit percent")):
        points = [(scale * x, scale * y) for x, y in parts]
        with pytest.raises(EmbedstoreError, match=option):
            placed(points, "csv", AddOptions(), **slide)
        assert placed(points, "csv", AddOptions(unit="px"), **slide)[0] == points
    um = [(9_000 * x, 7_000 * y) for x, y in parts]
    _, _, notes = placed(um, "csv", AddOptions(), **slide)
    assert any("--unit um" in n for n in notes)
    assert not placed([(4 * x, 4 * y) for x, y in um], "csv", AddOptions(), **slide)[2]
    with pytest.raises(EmbedstoreError, match="need the mpp of slide a"):
        placed(um, "csv", AddOptions(unit="um"), width=40_000, height=30_000)


@pytest.fixture
def scn(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(data / "inputs" / "02-slide-bounds", tmp_path / "in")
    monkeypatch.chdir(tmp_path / "in")
    monkeypatch.setenv("EMBEDSTORE_URI", str(tmp_path / "store"))
    return tmp_path


def centres(folder: Path) -> list[tuple[float, float]]:
    rows = query_of(str(folder / "store"), "select x_l0, y_l0 from annotations")
    return sorted((r["x_l0"], r["y_l0"]) for r in rows)


@pytest.mark.parametrize("file", ["a.geojson", "level0.csv"])
def test_02_qupath_counts_from_the_scanned_area_and_tables_from_the_slide(
    scn: Path, file: str
) -> None:
    done = call_command("embedstore", "add", "d", "--annotations", file, "--slides", "slides")
    assert centres(scn) == sorted(CELLS)
    assert "the scanned area of a" in done.err
    assert "--frame" in done.err


def test_what_was_stated_stays_also_while_the_slide_is_away(scn: Path) -> None:
    line = ("embedstore", "add", "d", "--annotations", "a.geojson")
    call_command(*line, "--slides", "slides", "--frame", "level0")
    stated = centres(scn)
    assert (100, 200) in stated
    again = call_command(*line, "--slides", "slides")
    assert centres(scn) == stated
    assert "as stated" in again.err
    (scn / "in" / "slides" / "a.scn").rename(scn / "a.scn")
    assert call_command(*line).code == 0
    assert centres(scn) == stated
    moved = call_command(*line, "--frame", "bounds")
    assert centres(scn) == sorted(CELLS)
    assert "4 annotations moved" in moved.err


def test_a_column_says_its_unit(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    write_slide(tmp_path / "slides" / "a.tiff", np.zeros((800, 1000, 3), np.uint8), mpp=0.5)
    rows = [
        {"slide": "a.tiff", "Centroid X µm": 100, "Centroid Y µm": 50, "label": "mitosis"},
        {"slide": "a.tiff", "Centroid X µm": 300, "Centroid Y µm": 250, "label": "imposter"},
    ]
    file = write_csv(tmp_path / "a.csv", rows)
    columns = ("--column", "x=Centroid X µm", "--column", "y=Centroid Y µm")
    line = ("embedstore", "add", "d", "--annotations", file, "--slides", tmp_path / "slides")
    done = call_command(*line, *columns, "--store", tmp_path / "store")
    assert done.code == 0, done.err
    assert centres(tmp_path) == [(200, 100), (600, 500)]
    assert "places were taken as um" in done.err


def test_patches_have_no_frame(data: Path, tmp_path: Path) -> None:
    file = data / "inputs" / "03-patches-of-slides" / "patches.csv"
    line = ("embedstore", "add", "d", "--annotations", file, "--store", tmp_path / "store")
    refused = call_command(*line, "--frame", "level0")
    assert refused.code == 1
    assert "--frame is for slides" in refused.err
