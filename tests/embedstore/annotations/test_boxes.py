"""Tables of boxes by the names of their columns, with decimal commas and other encodings."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from embedstore.add.reading import read_or_suggest
from embedstore.annotations.columns import NOTHING
from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError

MIDDLES = [(210.0, 160.0), (820.0, 140.0), (500.0, 390.0)]


def _table(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], between: str = ","
) -> Path:
    lines = [between.join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _boxes(tmp_path: Path, names: str, box: Sequence[float]) -> Path:
    """Write rows whose places are MIDDLES plus box, under the names."""
    header = ["slide", *names.split(), "label"]
    plus = [0, 1] * (len(box) // 2)
    rows = [["a", *(m[k] + b for k, b in zip(plus, box, strict=True)), "m"] for m in MIDDLES]
    return _table(tmp_path / "boxes.csv", header, rows)


def _places(path: Path) -> list[tuple[float | None, float | None]]:
    return [(a.x_l0, a.y_l0) for a in read_annotations(path).annotations]


@pytest.mark.parametrize(
    "names",
    ["xmin ymin xmax ymax", "x1 y1 x2 y2", "left top right bottom", "x y x2 y2", "x y xmax ymax"],
)
def test_two_corners_by_any_of_their_names(tmp_path: Path, names: str) -> None:
    path = _boxes(tmp_path, names, (-20, -15, 20, 15))
    assert _places(path) == MIDDLES
    assert "middles of boxes" in " ".join(read_annotations(path).notes)


def test_a_corner_given_twice_is_no_centre(tmp_path: Path) -> None:
    twice = _boxes(tmp_path, "x y x1 y1 x2 y2", (-20, -15, -20, -15, 20, 15))
    assert _places(twice) == MIDDLES


def test_a_centre_beside_its_box_is_the_place_and_told_where_it_is_not_the_middle(
    tmp_path: Path,
) -> None:
    names = "x y x1 y1 x2 y2"
    assert not read_annotations(_boxes(tmp_path, names, (0, 0, -20, -15, 20, 15))).notes
    off = read_annotations(_boxes(tmp_path, names, (0, 0, -20, -15, 40, 15)))
    assert [(a.x_l0, a.y_l0) for a in off.annotations] == MIDDLES
    assert any("3 of 3 are not the middle of their box" in n for n in off.notes)


@pytest.mark.parametrize("size", ["w h", "width height", "bbox_w bbox_h", "box_width box_height"])
def test_sizes_by_any_of_their_names_ask_what_x_and_y_are(tmp_path: Path, size: str) -> None:
    header = ["slide", "x", "y", *size.split(), "label"]
    path = _table(tmp_path / "b.csv", header, [["a", 190, 145, 40, 30, "m"]])
    with pytest.raises(EmbedstoreError, match="--box corner or --box centre"):
        read_annotations(path)


def test_a_decimal_comma_is_read_where_it_parts_no_columns(tmp_path: Path) -> None:
    rows = [["a", "210,5", "160", "m"], ["a", "1200,25", "-3,5", "m"]]
    path = _table(tmp_path / "c.csv", ["slide", "x", "y", "label"], rows, between=";")
    assert _places(path) == [(210.5, 160.0), (1200.25, -3.5)]
    assert read_annotations(path).notes[0] == "c.csv: decimal commas were read as such (210,5)"


def test_a_comma_that_may_part_thousands_is_asked(tmp_path: Path) -> None:
    rows = [["a", "1,210", "160", "m"]]
    path = _table(tmp_path / "c.csv", ["slide", "x", "y", "label"], rows, between="\t")
    with pytest.raises(EmbedstoreError, match=r"1,210 may be 1\.210 as well as 1210"):
        read_annotations(path)


def test_utf_16_is_read_and_old_encodings_are_named(tmp_path: Path) -> None:
    path = _table(tmp_path / "c.csv", ["slide", "x", "y", "label"], [["a", 1, 2, "Zellkörper"]])
    text = path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-16")
    assert [a.category for a in read_annotations(path).annotations] == ["Zellkörper"]
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EmbedstoreError, match=r"line 2 is not in UTF-8 \(byte 0xf6\)"):
        read_annotations(path)


@pytest.mark.parametrize(
    ("header", "row", "told"),
    [
        (
            ["Image", "Classification", "Centroid X µm", "Centroid Y µm"],
            ["a.svs", "m", 52.5, 40],
            "--column 'x=Centroid X µm' --column 'y=Centroid Y µm'",
        ),
        (
            ["slide", "bbox_x", "bbox_y", "bbox_w", "bbox_h", "label"],
            ["a", 190, 145, 40, 30, "m"],
            "--column x=bbox_x --column y=bbox_y --column width=bbox_w --column height=bbox_h",
        ),
        (
            ["slide", "geometry", "label"],
            ["a", "POINT (210 160)", "m"],
            "column geometry holds outlines as text",
        ),
    ],
)
def test_places_under_other_names_get_the_command(
    tmp_path: Path, header: list[str], row: list[object], told: str
) -> None:
    other = [*row[:-1], "n"] if header[-1] == "label" else [row[0], "n", *row[2:]]
    path = _table(tmp_path / "c.tsv", header, [row, other], between="\t")
    with pytest.raises(EmbedstoreError) as error:
        read_or_suggest("d", path, "auto", NOTHING, None)
    assert told in str(error.value)
