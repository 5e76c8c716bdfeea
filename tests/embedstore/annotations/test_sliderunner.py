"""SlideRunner databases in the forms that public files have, built here column by column."""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.readers import read_annotations
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


def database(path: Path, *, new: bool) -> Path:
    """Write a SlideRunner database of the older or the newer form, columns in another order."""
    with sqlite3.connect(path) as db:
        extra = ", guid text, deleted integer default 0" if new else ""
        db.execute(
            "create table Slides (filename text, uid integer primary key, width integer, "
            "height integer)"
        )
        db.execute(
            f"create table Annotations (agreedClass integer, uid integer primary key, "
            f"slide integer, type integer{extra})"
        )
        db.execute(
            "create table Annotations_coordinates (annoId integer, coordinateY integer, "
            "coordinateX integer, slide integer, orderIdx integer)"
        )
        db.execute("create table Classes (name text, uid integer primary key)")
        db.executemany(
            "insert into Classes values (?, ?)",
            [("Mitose", 2), ("Hard negative", 7), ("granulocyte", 1)],
        )
        db.executemany(
            "insert into Slides values (?, ?, ?, ?)",
            [("C:\\slides\\one.svs", 1, None, None), ("two.svs", 2, 900, 700)],
        )
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
        points = {
            1: [(10, 20)],
            2: [(0, 0), (40, 60)],
            3: [(1, 1), (3, 1), (2, 4)],
            4: [(5, 5)],
            5: [(6, 6)],
        }
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
def test_older_and_newer_form(tmp_path: Path, new: bool) -> None:
    content = read_annotations(database(tmp_path / "x#1?.sqlite", new=new))
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


# What CCMCT's three databases differ in: the columns, their order, and what the classes are called.
CLASSES = {
    "MEL": {
        1: "Eosinophilic granulocyte",
        2: "Mitotic figure",
        3: "Tumor cells",
        7: "Mitotic-like",
    },
    "HEAEL": {1: "granulocyte", 2: "Mitose", 3: "Tumor cells", 7: "Hard negative"},
    "ODAEL": {
        1: "granulocyte",
        2: "mitotic figure",
        3: "Tumor cells",
        7: "Mitotic figure look-alike",
    },
}
COLUMNS = {
    "MEL": "uid integer primary key, slide integer, type integer, agreedClass integer",
    "HEAEL": "agreedClass integer, type integer, slide integer, uid integer primary key, "
    "deleted integer default 0",
    "ODAEL": "uid integer primary key, guid text, deleted integer default 0, slide integer, type "
    "integer, agreedClass integer, lastModified real, description text, clickable integer",
}
ROWS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3, 7, None]),
        st.booleans(),
        st.lists(
            st.tuples(st.integers(0, 90_000), st.integers(0, 90_000)), min_size=0, max_size=40
        ),
    ),
    min_size=1,
    max_size=25,
)


def ccmct(path: Path, variant: str, rows: list[Any]) -> Path:
    """Write annotations (class, deleted, coordinates): one is a spot, two a box, more a polygon."""
    with sqlite3.connect(path) as db:
        db.execute(
            "create table Slides (uid integer primary key, filename text, width integer, height "
            "integer, directory text)"
        )
        db.execute("insert into Slides values (3, 'a.svs', null, null, 'lowgrade')")
        db.execute(f"create table Annotations ({COLUMNS[variant]})")
        db.execute(
            "create table Annotations_coordinates (uid integer primary key, coordinateX integer, "
            "coordinateY integer, slide integer, annoId integer, orderIdx integer)"
        )
        db.execute("create table Classes (uid integer primary key, name text, color text)")
        db.executemany("insert into Classes values (?, ?, '#ff0000')", CLASSES[variant].items())
        for uid, (agreed, deleted, points) in enumerate(rows, start=10):
            kind = {0: 1, 1: 1, 2: 2}.get(len(points), 3)
            db.execute(
                "insert into Annotations (uid, slide, type, agreedClass) values (?, 3, ?, ?)",
                (uid, kind, agreed),
            )
            if deleted and "deleted" in COLUMNS[variant]:
                db.execute("update Annotations set deleted = 1 where uid = ?", (uid,))
            db.executemany(
                "insert into Annotations_coordinates (coordinateX, coordinateY, slide, annoId, orderIdx) "
                "values (?, ?, 3, ?, ?)",
                [(x, y, uid, k) for k, (x, y) in enumerate(points)],
            )
    db.close()
    return path


@pytest.mark.parametrize("variant", CLASSES)
@settings(max_examples=15, deadline=None)
@given(rows=ROWS)
def test_centres_are_means_whatever_the_shape(
    tmp_path_factory: pytest.TempPathFactory, variant: Any, rows: Any
) -> None:
    rows = [*rows, (2, False, [(7, 9)])]
    path = ccmct(tmp_path_factory.mktemp("db") / "a.sqlite", variant, rows)
    expected = {
        str(uid): (
            sum(x for x, _ in points) / len(points),
            sum(y for _, y in points) / len(points),
            CLASSES[variant][agreed],
        )
        for uid, (agreed, deleted, points) in enumerate(rows, start=10)
        if agreed and points and not (deleted and variant != "MEL")
    }
    found = {a.source_id: (a.x_l0, a.y_l0, a.category) for a in read_annotations(path).annotations}
    assert found.keys() == expected.keys()
    for uid, (x, y, category) in expected.items():
        assert found[uid][:2] == pytest.approx((x, y))
        assert found[uid][2] == category


@pytest.mark.parametrize("variant", CLASSES)
def test_classes_outside_the_task_are_left_out_and_counted(tmp_path: Path, variant: Any) -> None:
    rows = [
        (agreed, False, [(k, 5)] * (1 + k % 4))
        for k, agreed in enumerate([1] * 6 + [2] * 5 + [3] * 4 + [7] * 3, start=1)
    ]
    path, uri = ccmct(tmp_path / "a.sqlite", variant, rows), str(tmp_path / "s")
    report = add(uri, "ccmct", path, AddOptions(domain_from="directory"))
    assert report.n_annotations == 8
    assert f"6 annotations of class '{CLASSES[variant][1]}' were left out" in report.notes
    assert "4 annotations of class 'Tumor cells' were left out" in report.notes
    found = fetch_rows(connect(Store.open(uri)), "select label, domain from annotations")
    assert Counter((r["label"], r["domain"]) for r in found) == {
        ("mitotic figure", "lowgrade"): 5,
        ("non-mitotic figure", "lowgrade"): 3,
    }
