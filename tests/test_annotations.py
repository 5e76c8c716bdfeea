"""Readers against independent readings of the same files."""

import csv
import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.annotations import READERS, read_annotations
from embedstore.errors import EmbedstoreError
from embedstore.tables import read_slide_table


def test_midog_centres_agree_with_the_json(data):
    raw = json.loads((data / "midogpp/MIDOG++.json").read_text())
    content = read_annotations(data / "midogpp/MIDOG++.json")
    assert content.format == "midog"
    assert len(content.annotations) == 26_286
    assert len(content.slides) == 503
    by_id = {a.source_id: a for a in content.annotations}
    files = {i["id"]: i["file_name"] for i in raw["images"]}
    for box in raw["annotations"]:
        mine = by_id[str(box["id"])]
        assert mine.slide == files[box["image_id"]]
        # Every box is 50 x 50, so the centre is 25 from its corner.
        assert mine.x_l0 == pytest.approx(box["bbox"][0] + 25)
        assert mine.y_l0 == pytest.approx(box["bbox"][1] + 25)
    votes = [a.votes for a in content.annotations]
    assert {len(v) for v in votes} <= {2, 3}
    assert "50 of 553 slides carry no annotation and were left out" in content.notes


def test_sliderunner_and_json_hold_the_same_midog_2021(data):
    database = read_annotations(data / "midog21/MIDOG.sqlite")
    assert Counter(a.category for a in database.annotations) == {
        "mitotic figure": 1721, "not mitotic figure": 2714,
    }  # fmt: skip
    both = read_annotations(data / "midogpp/MIDOG++.json")
    first = Counter((a.slide, round(a.x_l0), round(a.y_l0)) for a in database.annotations)
    second = Counter((a.slide, round(a.x_l0), round(a.y_l0)) for a in both.annotations
                     if a.attributes["tumor_type"] == "human breast cancer")  # fmt: skip
    assert sum((first & second).values()) > 0.98 * 4435


def _database(path: Path, *, new: bool) -> Path:
    """Write a SlideRunner database of the older or the newer form, columns in another order."""
    with sqlite3.connect(path) as db:
        extra = ", guid text, deleted integer default 0" if new else ""
        db.execute("create table Slides (filename text, uid integer primary key, width integer, "
                   "height integer)")  # fmt: skip
        db.execute(f"create table Annotations (agreedClass integer, uid integer primary key, "
                   f"slide integer, type integer{extra})")  # fmt: skip
        db.execute("create table Annotations_coordinates (annoId integer, coordinateY integer, "
                   "coordinateX integer, slide integer, orderIdx integer)")  # fmt: skip
        db.execute("create table Classes (name text, uid integer primary key)")
        db.executemany("insert into Classes values (?, ?)",
                       [("Mitose", 2), ("Hard negative", 7), ("granulocyte", 1)])  # fmt: skip
        db.executemany("insert into Slides values (?, ?, ?, ?)",
                       [("C:\\slides\\one.svs", 1, None, None), ("two.svs", 2, 900, 700)])  # fmt: skip
        rows = [
            (2, 1, 1, 1),
            (7, 2, 1, 2),
            (1, 3, 2, 3),
            (2, 4, 2, 1),
            (None, 5, 2, 1),
            (2, 6, 1, 1),
        ]
        for row in rows:
            db.execute(
                "insert into Annotations (agreedClass, uid, slide, type) values (?,?,?,?)", row
            )
        points = {1: [(10, 20)], 2: [(0, 0), (40, 60)], 3: [(1, 1), (3, 1), (2, 4)], 4: [(5, 5)],
                  5: [(6, 6)]}  # fmt: skip
        for uid, corners in points.items():
            for n, (x, y) in enumerate(corners):
                db.execute(
                    "insert into Annotations_coordinates values (?,?,?,?,?)", (uid, y, x, 1, n)
                )
        if new:
            db.execute("update Annotations set deleted = 1 where uid = 4")
    db.close()
    return path


@pytest.mark.parametrize("new", [False, True])
def test_sliderunner_forms(tmp_path, new):
    content = read_annotations(_database(tmp_path / "x#1?.sqlite", new=new))
    found = {a.source_id: (a.slide, a.x_l0, a.y_l0, a.category) for a in content.annotations}
    expected = {
        "1": ("one.svs", 10, 20, "Mitose"),
        "2": ("one.svs", 20, 30, "Hard negative"),  # a box: the mean of its corners
        "3": ("two.svs", 2, 2, "granulocyte"),
        "4": ("two.svs", 5, 5, "Mitose"),
    }
    if new:
        del expected["4"]
        assert "1 annotations marked deleted were left out" in content.notes
    assert found == expected
    assert "1 annotations without an agreed class were left out" in content.notes
    assert "1 annotations without coordinates were left out" in content.notes
    assert content.slides["one.svs"].width is None
    assert content.slides["two.svs"].width == 900


NAMES = st.text("abcXYZ0123_- é.", min_size=1, max_size=8).map(lambda s: f"{s.strip() or 'x'}.tiff")
ROWS = st.lists(
    st.tuples(NAMES, st.floats(0, 1e5), st.floats(0, 1e5), st.sampled_from("AB")),
    min_size=1, max_size=20, unique_by=lambda r: r[:3],
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, delimiter=st.sampled_from(",;\t"))
def test_csv_round_trip_in_any_order(tmp_path_factory, rows, delimiter):
    def read(order: list) -> dict:
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        with path.open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f, delimiter=delimiter)
            writer.writerow(["label", "slide", "y", "x"])
            writer.writerows([label, slide, repr(y), repr(x)] for slide, x, y, label in order)
        return {(a.slide, a.source_id): (a.x_l0, a.y_l0, a.category)
                for a in read_annotations(path).annotations}  # fmt: skip

    found = read(rows)
    assert sorted((s, *v) for (s, _), v in found.items()) == sorted(rows)
    assert read(rows[::-1]) == found  # the id does not come from the row's number


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "slide,x,y\na.tiff,1,2\n", "needed: slide (or path), x, y, label"),
        ("a.csv", "slide,x,y,label\na.tiff,1,two,A\n", "line 2"),
        ("a.csv", "slide,x,y,label\na.tiff,1,2,A\na.tiff,1,2,B\n", "as 'B' and at (1, 2) as 'A'"),
        ("a.csv", "slide,x,y,label\n", "needed: slide"),
        ("a.csv", "slide,x,y,label,id\na,1,2,A,7\na,3,4,A,7\n", "has 7 twice"),
        ("a.csv", "slide,x,x,y,label\na,1,2,3,A\n", "column x more than once"),
        ("a.json", '{"images": []}', "does not read as midog"),
        ("a.json", '{"images": [', "does not read as midog"),
        ("a.json", '{"images": [], "categories": [], "annotations": []}', "holds no annotations"),
        ("a.json", '{"images": [{"id": 1, "file_name": "a"}], "categories": [{"id": 1, "name": "m"}],'
         '"annotations": [{"id": 9, "image_id": 1, "category_id": 1, "bbox": [400, 400, 50, 50]}]}',
         "not COCO's"),
        ("a.sqlite", "SQLite format 3 but nothing else", "does not read as sliderunner"),
        ("a.bin", "\x00\x01", "--format"),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path, name, text, said):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(EmbedstoreError) as e:
        read_annotations(path)
    assert said in str(e.value)
    assert str(path) in str(e.value)


def test_missing_file_and_unknown_format(tmp_path):
    with pytest.raises(EmbedstoreError, match="no annotation file"):
        read_annotations(tmp_path / "none.json")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(EmbedstoreError, match=", ".join(READERS)):
        read_annotations(tmp_path / "a.csv", "coco")


def test_same_file_name_twice_is_refused(tmp_path):
    image = {"id": 1, "file_name": "a/x.tiff"}
    content = {
        "images": [image, {"id": 2, "file_name": "b/x.tiff"}],
        "categories": [],
        "annotations": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(EmbedstoreError, match=r"x\.tiff"):
        read_annotations(tmp_path / "a.json")


def test_slide_table_by_name_with_or_without_suffix(tmp_path):
    (tmp_path / "t.csv").write_text("Slide;MPP;Scanner\n001.tiff;0.23;XR\n7;0.25;\n")
    table = read_slide_table(tmp_path / "t.csv")
    assert table["001.tiff"] == {"slide": "001.tiff", "mpp": "0.23", "scanner": "XR"}
    assert table["7"]["mpp"] == "0.25"


def test_repeated_rows_are_counted_once_and_spaces_around_names_do_not_matter(tmp_path):
    (tmp_path / "a.csv").write_text(" slide , x,y , label\na,1,2,A\n" + "a,1,2,A\n" * 30)
    content = read_annotations(tmp_path / "a.csv")
    assert len(content.annotations) == 1
    assert content.notes == ["30 rows repeat earlier ones and were left out (line 3)"]
