"""Columns that are declared, boxes, and what is suggested for a table of other names."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.annotations.columns import Declared, UnknownColumnsError
from embedstore.annotations.readers import read_annotations
from embedstore.annotations.suggest import case_pattern, suggestion
from embedstore.errors import EmbedstoreError, UsageError


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def centres(path: Path, declared: Declared) -> list[tuple[float | None, float | None]]:
    return [(a.x_l0, a.y_l0) for a in read_annotations(path, declared=declared).annotations]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("xmin,ymin,xmax,ymax", "10,20,30,50"),
        ("Left,Top,Right,Bottom", "10,20,30,50"),
        ("x1,y1,x2,y2", "10,20,30,50"),
        ("left,top,width,height", "10,20,20,30"),
    ],
)
def test_names_of_corners_make_boxes(tmp_path: Path, header: str, row: str) -> None:
    path = table(tmp_path / "a.csv", f"slide,label,{header}", f"a.tiff,mitosis,{row}")
    content = read_annotations(path)
    assert [(a.x_l0, a.y_l0) for a in content.annotations] == [(20, 35)]
    assert content.slides["a.tiff"].width is None
    assert "middles of boxes" in content.notes[0]


def test_sizes_of_slides_stay_what_they_are(tmp_path: Path) -> None:
    rows = [f"a,{x},5,100,80,m" for x in (0, 50, 99, 120)]
    path = table(tmp_path / "a.csv", "slide,x,y,width,height,label", *rows)
    content = read_annotations(path)
    assert (content.slides["a"].width, content.slides["a"].height) == (100, 80)
    assert [a.x_l0 for a in content.annotations] == [0, 50, 99, 120]


def test_one_size_that_holds_no_place_is_of_boxes(tmp_path: Path) -> None:
    rows = [f"a,{x},500,40,40,m" for x in (100, 200, 300)]
    path = table(tmp_path / "a.csv", "slide,x,y,width,height,label", *rows)
    with pytest.raises(EmbedstoreError, match="say --box corner or --box centre"):
        read_annotations(path)
    assert centres(path, Declared(box="corner")) == [(120, 520), (220, 520), (320, 520)]
    assert centres(path, Declared(box="centre")) == [(100, 500), (200, 500), (300, 500)]
    assert read_annotations(path, declared=Declared(box="slide")).slides["a"].width == 40


def test_a_box_that_would_begin_before_the_slide_tells_that_places_are_corners(
    tmp_path: Path,
) -> None:
    rows = ["a,5,500,40,40,m", "a,300,300,60,20,m"]
    path = table(tmp_path / "a.csv", "slide,x,y,width,height,label", *rows)
    assert centres(path, Declared()) == [(25, 520), (330, 310)]


def test_a_box_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "slide,label,x1,y1,x2,y2", "a,m,30,20,10,50")
    with pytest.raises(EmbedstoreError, match="ends before it begins"):
        read_annotations(path)


def test_what_is_declared_comes_before_names(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        "slide,x,y,label,who,R1,R2,part",
        "a.tiff,1,2,old,new,p,q,dev",
    )
    columns = {"label": "who", "vote": "R*", "split": "part", "scanner": "R1"}
    content = read_annotations(path, declared=Declared(columns))
    (a,) = content.annotations
    assert (a.category, a.votes, a.split) == ("new", ("p", "q"), "val")
    assert content.slides["a.tiff"].attributes["scanner"] == "p"


def test_a_declared_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "slide,x,y,label", "a,1,2,m")
    with pytest.raises(EmbedstoreError, match=r"no column 'z\*', 'w' .*it has: slide, x, y, label"):
        read_annotations(path, declared=Declared({"vote": "z*", "case": "w"}))
    with pytest.raises(UsageError, match="names x alone"):
        read_annotations(path, declared=Declared({"x": "x"}))


def test_columns_in_order_may_be_passed_over(tmp_path: Path) -> None:
    path = table(tmp_path / "s1.csv", "7,1,2,9,m", "8,3,4,9,n")
    content = read_annotations(path, declared=Declared(header=("-", "x", "y", "-", "label")))
    assert [(a.slide, a.x_l0, a.category) for a in content.annotations] == [
        ("s1", 1, "m"),
        ("s1", 3, "n"),
    ]
    with pytest.raises(EmbedstoreError, match="line 1 has 5 fields"):
        read_annotations(path, declared=Declared(header=("x", "y", "label")))


def test_packed_tables_and_folders_of_them_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.csv.gz").write_bytes(gzip.compress(b"x,y,label\n1,2,m\n"))
    table(folder / "b.tsv", "x\ty\tlabel", "3\t4\tn")
    table(folder / "notes.txt", "nothing of this kind")
    content = read_annotations(folder)
    assert [(a.slide, a.x_l0) for a in content.annotations] == [("a", 1), ("b", 3)]
    assert "notes.txt" in " ".join(content.notes)


def test_json_takes_a_class_and_votes_from_its_keys(tmp_path: Path) -> None:
    properties = {"classification": {"name": "cell"}, "grade": "high", "r1": "p", "r2": "q"}
    geometry = {"type": "Point", "coordinates": [5, 6]}
    feature = {"type": "Feature", "properties": properties, "geometry": geometry}
    (tmp_path / "a.geojson").write_text(json.dumps(feature))
    declared = Declared({"label": "grade", "vote": "r?"})
    (a,) = read_annotations(tmp_path / "a.geojson", declared=declared).annotations
    assert (a.category, a.votes) == ("high", ("p", "q"))
    with pytest.raises(EmbedstoreError, match="has no 'none'"):
        read_annotations(tmp_path / "a.geojson", declared=Declared({"label": "none"}))
    with pytest.raises(UsageError, match="--columns is for tables"):
        read_annotations(tmp_path / "a.geojson", declared=Declared(header=("x",)))


def test_the_case_in_a_name(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "path,label", "s/P1_a.png,m", "s/P2_a.png,n")
    content = read_annotations(path, declared=Declared(case_from_name="^([^_]+)_"))
    assert [s.attributes["case"] for s in content.slides.values()] == ["P1", "P2"]
    assert content.case_key == "case"
    whole = read_annotations(path, declared=Declared(case_from_name="^(.)/"))
    assert {s.attributes["case"] for s in whole.slides.values()} == {"s"}
    with pytest.raises(UsageError, match="matches 1 of 2 names not, for example s/P2_a.png"):
        read_annotations(path, declared=Declared(case_from_name="(P1)"))
    with pytest.raises(UsageError, match="no regular expression"):
        read_annotations(path, declared=Declared(case_from_name="("))


def test_points_of_other_names_are_suggested(tmp_path: Path) -> None:
    rows = ["s.svs,3,4,tumour", "s.svs,5,6,stroma"]
    path = table(tmp_path / "a.csv", "image,centroid_x,centroid_y,cell type", *rows)
    with pytest.raises(UnknownColumnsError) as e:
        read_annotations(path)
    options = suggestion(e.value)
    assert options[:8:2] == ["--column"] * 4
    assert options[1:8:2] == [
        "path=image",
        "x=centroid_x",
        "y=centroid_y",
        "label=cell type",
    ]


@given(st.lists(st.from_regex(r"[A-Z]{1,2}[-_][0-9]{1,3}[-_][a-z]", fullmatch=True), min_size=1))
def test_a_pattern_of_cases_fits_all_names_and_tells_some_apart(names: list[str]) -> None:
    import re

    if pattern := case_pattern(f"{n}.png" for n in names):
        cases = [re.search(pattern, f"{n}.png") for n in names]
        assert all(cases)
        assert len({m[1] for m in cases if m}) > 1
    else:
        assert len({tuple(re.split("[-_]", n)[:2]) for n in names}) == 1
