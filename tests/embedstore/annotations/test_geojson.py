"""QuPath's GeoJSON: every geometry, every form of class, and centroids against brute force."""

import gzip
import json
import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.outlines import centroid
from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from tests.making.slides import write_slide


def feature(kind: Any, coordinates: Any, classification: Any = "mitosis", **more: Any) -> Any:
    properties = {"objectType": "annotation"}
    if classification is not None:
        properties["classification"] = classification
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": properties,
        **more,
    }


def write(path: Any, features: Any, form: Any = "collection") -> Any:
    whole = {
        "collection": {"type": "FeatureCollection", "features": features},
        "array": features,
        "single": features[0] if features else {},
    }[form]
    path.write_text(json.dumps(whole))
    return path


SQUARE = [[[10, 20], [30, 20], [30, 40], [10, 40], [10, 20]]]


@pytest.mark.parametrize("form", ["collection", "array", "single"])
def test_a_feature_in_each_form_of_file(tmp_path: Path, form: str) -> None:
    content = read_annotations(
        write(tmp_path / "s.svs.geojson", [feature("Point", [5.5, 6, 0], id="q")], form)
    )
    (a,) = content.annotations
    assert (a.slide, a.source_id, a.x_l0, a.y_l0, a.category) == ("s.svs", "q", 5.5, 6, "mitosis")
    assert a.attributes["objectType"] == "annotation"


@pytest.mark.parametrize(
    ("classification", "expected"),
    [
        ({"name": "Mitosis", "color": [200, 0, 0]}, "Mitosis"),
        ({"name": "Mitosis", "colorRGB": -3670016}, "Mitosis"),
        ("Mitosis", "Mitosis"),
        ({"names": ["Tumor", "Mitosis"], "color": [1, 2, 3]}, "Tumor: Mitosis"),
        ({"names": ["Mitosis"]}, "Mitosis"),
        (None, None),
        ({}, None),
        ("", None),
        ({"name": None}, None),
    ],
)
def test_the_class_in_every_form_that_qupath_has_written(
    tmp_path: Path, classification: Any, expected: str | None
) -> None:
    features = [feature("Point", [1, 2], classification), feature("Point", [9, 9], "other")]
    content = read_annotations(write(tmp_path / "s.geojson", features))
    assert [a.category for a in content.annotations] == [c for c in (expected, "other") if c]
    told = "1 objects without a class were left out" in content.notes
    assert told == (expected is None)


def test_every_geometry(tmp_path: Path) -> None:
    far = [[[110, 20], [120, 20], [120, 30], [110, 30], [110, 20]]]
    hole = [*SQUARE, [[11, 21], [15, 21], [15, 25], [11, 25], [11, 21]]]
    features = [
        feature("Point", [1, 2], id="p"),
        feature("MultiPoint", [[3, 4], [5, 6]], id="m"),
        feature(
            "Polygon",
            SQUARE,
            id="sq",
        ),
        feature("Polygon", hole, id="hole"),
        feature("MultiPolygon", [SQUARE, far], id="mp"),
        feature("Polygon", [[[0, 0], [10, 0], [20, 0], [0, 0]]], id="flat"),
        feature("Polygon", [[[7, 8]]], id="dot"),
        feature("LineString", [[0, 0], [1, 1]]),
        feature("MultiPoint", []),
        feature("MultiPolygon", []),
        {"type": "Feature", "geometry": None, "properties": {"classification": "mitosis"}},
        {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [1, 1]},
            "properties": None,
        },
    ]
    content = read_annotations(write(tmp_path / "s.geojson", features))
    assert {a.source_id: (a.x_l0, a.y_l0) for a in content.annotations} == {
        "p": (1, 2),
        "m-0": (3, 4),
        "m-1": (5, 6),
        "sq": (20, 30),
        "hole": (20, 30),
        "mp-0": (20, 30),
        "mp-1": (115, 25),
        "flat": (10, 0),
        "dot": (7, 8),
    }
    assert content.notes == [
        "1 features of several outlines: each is an object",
        "1 objects without a class were left out",
        "2 objects that are neither points nor polygons were left out",
        "2 shapes without usable coordinates (the first: s.geojson feature 9) were left out",
    ]


@st.composite
def stars(draw: Any) -> Any:
    """A polygon that does not cross itself: radii around a centre far from the origin."""
    n = draw(st.integers(3, 12))
    gaps = draw(st.lists(st.floats(0.2, 1.0), min_size=n, max_size=n))
    radii = draw(st.lists(st.floats(20, 200), min_size=n, max_size=n))
    x, y = draw(st.integers(0, 100_000)), draw(st.integers(0, 100_000))
    angles = 2 * math.pi * np.cumsum(gaps) / sum(gaps)
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def rasterised(ring: Any, step: Any) -> Any:
    """The mean of all points of a grid inside a ring, each told by its crossings to the left."""
    points = np.array(ring)
    low, high = points.min(axis=0), points.max(axis=0)
    xs = np.arange(low[0] + step / 2, high[0], step)
    ys = np.arange(low[1] + step / 2, high[1], step)
    gx, gy = np.meshgrid(xs, ys)
    inside = np.zeros(gx.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if ay != by:
            crosses = (ay > gy) != (by > gy)
            inside ^= crosses & (gx < (bx - ax) * (gy - ay) / (by - ay) + ax)
    return gx[inside].mean(), gy[inside].mean(), inside.sum() * step**2


@settings(max_examples=40, deadline=None)
@given(ring=stars(), closed=st.booleans(), start=st.integers(0, 11), turn=st.booleans())
def test_centroids_agree_with_counting_pixels(
    ring: Any, closed: Any, start: Any, turn: Any
) -> None:
    x, y, area = rasterised(ring, step=0.5)
    assume(area > 500)
    ring = ring[start % len(ring) :] + ring[: start % len(ring)]
    ring = ring[::-1] if turn else ring
    cx, cy, found = centroid([*ring, ring[0]] if closed else ring)
    assert (cx, cy) == pytest.approx((x, y), abs=0.5)
    assert found == pytest.approx(area, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=3, max_size=9),
    shift=st.integers(0, 200_000),
)
def test_a_centroid_lies_within_the_bounds_however_the_ring_crosses_itself(
    points: Any, shift: Any
) -> None:
    ring = [(x + shift, y + shift) for x, y in points]
    x, y, _ = centroid(ring)
    xs, ys = zip(*ring, strict=True)
    assert min(xs) - 1e-6 <= x <= max(xs) + 1e-6
    assert min(ys) - 1e-6 <= y <= max(ys) + 1e-6


@settings(max_examples=40, deadline=None)
@given(side=st.integers(1, 80), x=st.integers(0, 200_000), y=st.integers(0, 200_000))
def test_a_box_far_from_the_origin_keeps_its_digits(side: Any, x: Any, y: Any) -> None:
    ring = [(x, y), (x + side, y), (x + side, y + side), (x, y + side), (x, y)]
    assert centroid(ring) == (x + side / 2, y + side / 2, side**2)


def test_ids_from_the_place_where_a_file_has_none(tmp_path: Path) -> None:
    """Until 0.3 QuPath wrote the kind of object as the id of each."""
    features = [feature("Point", [k, 1], id="PathDetectionObject") for k in (1, 2, 2)]
    content = read_annotations(write(tmp_path / "s.geojson", features))
    first = {a.source_id: a.x_l0 for a in content.annotations}
    assert len(first) == 2
    assert content.notes == ["1 objects repeat earlier ones and were left out (feature 3)"]
    again = read_annotations(write(tmp_path / "s.geojson", features[::-1]))
    assert {a.source_id: a.x_l0 for a in again.annotations} == first
    (tmp_path / "s.csv").write_text("slide,x,y,label\ns,1,1,mitosis\ns,2,1,mitosis\n")
    assert {a.source_id: a.x_l0 for a in read_annotations(tmp_path / "s.csv").annotations} == first


def test_one_id_for_two_objects_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "s.geojson", [feature("Point", [k, 1], id="x") for k in (1, 2)])
    with pytest.raises(EmbedstoreError, match=r"s.geojson feature 2: s has x twice"):
        read_annotations(path)


def test_a_folder_of_files_finds_its_slides_by_their_stem(tmp_path: Path) -> None:
    folder, slides = tmp_path / "json", tmp_path / "slides"
    folder.mkdir()
    slides.mkdir()
    for name in ("a.svs", "b.tiff", "c.v2.tiff"):
        write_slide(slides / name, np.zeros((64, 64, 3), np.uint8))
    (slides / "b.txt").write_text("notes")
    (slides / "b.tiff.geojson").write_text("{}")
    write(folder / "a.svs.geojson", [feature("Point", [5, 5])])
    write(folder / "b.json", [feature("Point", [6, 6], "imposter"), feature("Point", [7, 7])])
    write(folder / "c.v2.geojson", [feature("Point", [70, 7])])
    write(folder / "none.geojson", [])
    uri = str(tmp_path / "s")
    report = add(uri, "d", folder, AddOptions(slides=slides))
    assert report.format == "geojson"
    assert "1 of 4 slides carry no annotation and were left out" in report.notes
    rows = fetch_rows(
        connect(Store.open(uri)), "select slide, path, status from slides order by slide"
    )
    assert [(r["slide"], r["path"].split("/")[-1], r["status"]) for r in rows] == [
        ("a.svs", "a.svs", "ok"),
        ("b", "b.tiff", "ok"),
        ("c.v2", "c.v2.tiff", "ok"),
    ]
    status = fetch_rows(
        connect(Store.open(uri)), "select slide, status from annotations order by x_l0"
    )
    assert [(r["slide"], r["status"]) for r in status] == [
        ("a.svs", "ok"),
        ("b", "ok"),
        ("b", "ok"),
        ("c.v2", "off-slide"),
    ]


def test_a_stem_of_several_files_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("b.tiff", "b.png"):
        (tmp_path / name).write_bytes(b"x")
    path = write(tmp_path / "b.geojson", [feature("Point", [6, 6])])
    with pytest.raises(
        EmbedstoreError, match=r"slide b could be b.png, b.tiff in .*keep one of them"
    ):
        add(str(tmp_path / "s"), "d", path, AddOptions(slides=tmp_path))
    assert not (tmp_path / "s").exists()
    renamed = write(tmp_path / "b.tiff.geojson", [feature("Point", [6, 6])])
    add(str(tmp_path / "s"), "d", renamed, AddOptions(slides=tmp_path))


def test_all_broken_files_of_a_folder_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "good.geojson", [feature("Point", [1, 1])])
    (tmp_path / "cut.geojson").write_text('{"type": "FeatureColl')
    (tmp_path / "meta.json").write_text('{"version": 2}')
    with pytest.raises(
        EmbedstoreError, match=r"not GeoJSON: cut.geojson \(.*meta.json \(no Feature"
    ):
        read_annotations(tmp_path)


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("Point", []),
        ("Point", None),
        ("MultiPoint", [[1]]),
        ("Polygon", []),
        ("Polygon", [[]]),
        ("Point", ["a", "b"]),
        ("MultiPolygon", [[]]),
        ("Polygon", [["x"]]),
    ],
)
def test_a_shape_without_usable_coordinates_is_left_out_and_named(
    tmp_path: Path, kind: str, coordinates: Any
) -> None:
    features = [feature("Point", [1, 1]), feature(kind, coordinates), feature("Point", [2, 2])]
    content = read_annotations(write(tmp_path / "s.geojson", features))
    assert [(a.x_l0, a.y_l0) for a in content.annotations] == [(1, 1), (2, 2)]
    said = "1 shapes without usable coordinates (the first: s.geojson feature 2) were left out"
    assert said in content.notes


def outline(x: float, y: float, r: float = 9) -> list[list[list[float]]]:
    angles = np.linspace(0, 2 * np.pi, 9)
    return [[[x + r * np.cos(a), y + r * np.sin(a)] for a in angles]]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30, unique=True
    )
)
def test_cells_of_one_feature_are_as_many_annotations(cells: list[tuple[int, int]]) -> None:
    """Cells 25 px apart do not touch; those of one Feature keep their centres and distinct ids."""
    with TemporaryDirectory() as folder:
        centres = [(25.0 * x, 25.0 * y) for x, y in cells]
        shape = feature("MultiPolygon", [outline(*c) for c in centres], id="all")
        content = read_annotations(write(Path(folder) / "a.geojson", [shape]))
    assert len({a.source_id for a in content.annotations}) == len(cells)
    read = sorted((a.x_l0, a.y_l0) for a in content.annotations)
    np.testing.assert_allclose(np.array(read, dtype=float), sorted(centres), atol=1e-6)


def test_parts_that_touch_are_one_and_told(tmp_path: Path) -> None:
    left, right = (
        [[[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]],
        [[[10, 0], [20, 0], [20, 10], [10, 10], [10, 0]]],
    )
    across = [[[-5, 4], [25, 4], [25, 6], [-5, 6], [-5, 4]]]  # no vertex of it lies inside
    shapes = [
        feature("MultiPolygon", [left, right, outline(100, 100)]),
        feature("MultiPolygon", [left, across]),
    ]
    content = read_annotations(write(tmp_path / "a.geojson", shapes))
    assert [(a.x_l0, a.y_l0) for a in content.annotations][:2] == [
        (10, 5),
        pytest.approx((100, 100)),
    ]
    assert len(content.annotations) == 3
    assert (
        "2 features of several outlines: each is an object; 2 parts that touch another"
        in content.notes[0]
    )


def test_collections_and_packed_files(tmp_path: Path) -> None:
    parts = [
        {"type": "Polygon", "coordinates": outline(50, 60)},
        {"type": "LineString", "coordinates": [[0, 0], [1, 1]]},
    ]
    shape = feature("GeometryCollection", None)
    shape["geometry"] = {"type": "GeometryCollection", "geometries": parts}
    text = json.dumps({"type": "FeatureCollection", "features": [shape]})
    (tmp_path / "a.svs.geojson.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "._a.svs.geojson.gz").write_bytes(b"\x00\x05\x16\x07")
    (tmp_path / "notes.docx").write_bytes(b"PK")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.geojson").write_text(text)
    content = read_annotations(tmp_path)
    (cell,) = content.annotations
    assert cell.slide == "a.svs"
    assert (cell.x_l0, cell.y_l0) == pytest.approx((50, 60))
    assert any(
        "2 files of the folder were not read (more/b.geojson, notes.docx)" in n
        for n in content.notes
    )
    assert "1 objects that are neither points nor polygons were left out" in content.notes
