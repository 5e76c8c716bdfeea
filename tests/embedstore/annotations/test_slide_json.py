"""JSON of LabelMe, DSA, HoVer-Net and CellViT is read; that of other tools is named."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError
from tests.making.commands import SHARED, call_command

INPUT = SHARED / "data/inputs/20-json-of-other-tools"
RIGHT = [(522.0, 225.0), (245.0, 286.0), (523.0, 171.0), (281.0, 154.0)]
MF = "mitotic figure"


def put(folder: Path, data: Any, name: str = "a.json") -> Path:
    (folder / name).write_text(data if isinstance(data, str) else json.dumps(data))
    return folder / name


def places(path: Path) -> list[tuple[Any, ...]]:
    return [(a.x_l0, a.y_l0, a.category) for a in read_annotations(path).annotations]


@pytest.mark.parametrize(
    "name",
    ["coco-without-bbox.json", "dsa/a.json", "dsa", "hovernet/a.json", "hovernet", "labelme.json"],
)
def test_20_json_of_other_tools(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / "s")
    labels = ("--label", f"1={MF}", "--label", "2=non-mitotic figure") if "hover" in name else ()
    words = ("embedstore", "add", "d", "--annotations", INPUT / name, "--slides", INPUT / "slides")
    done = call_command(*words, *labels, "--store", uri)
    assert done.code == 0, done.err
    sql = "select x_l0, y_l0, slide, status, label from annotations order by y_l0"
    rows = call_command("embedstore", "sql", sql, "--json", "--store", uri).json()
    found = [(r["x_l0"], r["y_l0"]) for r in rows]
    assert found == [pytest.approx(p, abs=0.01) for p in sorted(RIGHT, key=lambda p: p[1])]
    assert {(r["slide"].removesuffix(".tiff"), r["status"]) for r in rows} == {("a", "ok")}
    assert [r["label"] == MF for r in rows] == [False, True, True, False]


def test_labelme_shapes(tmp_path: Path) -> None:
    shapes = [
        ("rectangle", [[10, 20], [30, 60]]),
        ("circle", [[50, 50], [58, 50]]),
        ("polygon", [[0, 0], [10, 0], [10, 10], [0, 10]]),
        ("point", [[7, 8]]),
        ("rotation", [[0, 0], [4, 4], [0, 8], [-4, 4]]),
        ("line", [[0, 0], [9, 9]]),
        ("polygon", []),
        ("polygon", [[1, None], [2, 2], [3, 3]]),
    ]
    rows = [{"label": MF, "shape_type": kind, "points": points} for kind, points in shapes]
    data = {"imagePath": "..\\slides\\a.svs", "shapes": [*rows, {"points": [[1, 1]]}]}
    read = read_annotations(put(tmp_path, data))
    assert {a.slide for a in read.annotations} == {"a.svs"}
    got = [(a.x_l0, a.y_l0) for a in read.annotations]
    assert got == [(20, 40), (50, 50), (5, 5), (7, 8), (0, 4)]
    text = " ".join(read.notes)
    assert "1 objects that are neither points nor areas were left out" in text
    assert "2 shapes without usable coordinates were left out" in text
    assert "1 objects without a class were left out" in text


def test_dsa_documents(tmp_path: Path) -> None:
    square = [[0, 0, 0], [8, 0, 0], [8, 8, 0], [0, 8, 0]]
    inner = {
        "name": MF,
        "elements": [
            {"type": "polyline", "closed": True, "points": square, "id": "abc"},
            {"type": "polyline", "closed": False, "points": square},
            {"type": "ellipse", "center": [30, 40, 0], "width": 4, "height": 6, "group": "other"},
            {"type": "arrow", "points": square, "label": {"value": MF}},
        ],
    }
    for data in (inner, {"annotation": inner, "_id": "1"}, [{"annotation": inner, "_id": "1"}]):
        read = read_annotations(put(tmp_path, data))
        assert read.format == "dsa"
        got = [(a.x_l0, a.y_l0, a.category) for a in read.annotations]
        assert got == [(4, 4, MF), (30, 40, "other")]
        assert read.annotations[0].source_id == "abc"
        assert any("2 elements have no label and no group" in n for n in read.notes)


def test_cellvit_names_its_types(tmp_path: Path) -> None:
    cells = [{"centroid": [k, 2 * k], "type": k % 2, "bbox": [], "contour": []} for k in range(4)]
    data = {"wsi_metadata": {}, "type_map": {"0": "Neoplastic", "1": "Dead"}, "cells": cells}
    assert places(put(tmp_path, data)) == [
        (k, 2 * k, ("Neoplastic", "Dead")[k % 2]) for k in range(4)
    ]


def test_a_nucleus_without_a_type_has_no_class(tmp_path: Path) -> None:
    nuclei = {"1": {"centroid": [1, 2], "type": None}, "2": {"centroid": [3, 4], "type": 0}}
    for data in ({"mag": None, "nuc": nuclei}, nuclei):
        read = read_annotations(put(tmp_path, data))
        assert [(a.source_id, a.category) for a in read.annotations] == [("2", "0")]
        assert "1 objects without a class were left out" in read.notes


def test_a_folder_of_one_tool(tmp_path: Path) -> None:
    for n in range(3):
        put(tmp_path, {"nuc": {"1": {"centroid": [n, n], "type": 1}}, "mag": 40}, f"s{n}.svs.json")
    read = read_annotations(tmp_path)
    assert sorted(read.slides) == ["s0.svs", "s1.svs", "s2.svs"]
    assert sum("pixels at x40" in n and "(3 files)" in n for n in read.notes) == 1
    put(tmp_path, {"shapes": []}, "t.json")
    put(tmp_path, "{", "u.json")
    with pytest.raises(EmbedstoreError, match=r"not hovernet: t.json \(of another.*u.json"):
        read_annotations(tmp_path)


COCO: dict[str, Any] = {
    "images": [{"id": 1, "file_name": "a.tiff"}],
    "categories": [{"id": 1, "name": MF}],
}


def annotation(**keys: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 1, **keys}


@given(
    st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=3, max_size=9),
    st.booleans(),
)
def test_an_outline_stands_for_a_missing_box(
    tmp_path_factory: pytest.TempPathFactory, ring: list[tuple[int, int]], is_nested: bool
) -> None:
    flat = [v for place in ring for v in place]
    outline = {"segmentation": [flat] if is_nested else flat}
    data = {**COCO, "annotations": [annotation(**outline), annotation(**outline, bbox=None, id=2)]}
    read = read_annotations(put(tmp_path_factory.mktemp("c"), data))
    xs, ys = [p[0] for p in ring], [p[1] for p in ring]
    middle = (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2
    assert [(a.x_l0, a.y_l0) for a in read.annotations] == [middle, middle]
    assert "2 annotations have no bbox: that of their outline is taken" in read.notes


def test_boxes_of_either_form_beside_outlines(tmp_path: Path) -> None:
    ring = [100, 200, 140, 200, 140, 260, 100, 260]
    for box, form in (([100, 200, 40, 60], "coco"), ([100, 200, 140, 260], "midog")):
        rows = [annotation(segmentation=[ring], bbox=box), annotation(segmentation=[ring], id=2)]
        read = read_annotations(put(tmp_path, {**COCO, "annotations": rows}))
        assert read.format == form
        assert [(a.x_l0, a.y_l0) for a in read.annotations] == [(120, 230)] * 2


NAMED: dict[str, tuple[Any, str]] = {
    "via": ({"_via_settings": {}, "_via_img_metadata": {}}, "VGG Image Annotator"),
    "via export": ({"a.png12": {"filename": "a.png", "regions": []}}, "VGG Image Annotator"),
    "label studio": ([{"data": {"image": "a"}, "annotations": []}], "Label Studio"),
    "supervisely": ({"size": {"width": 1}, "objects": []}, "Supervisely"),
    "darwin": ({"item": {}, "annotations": [], "version": "2.0"}, "Darwin"),
    "detections": ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], "detections"),
    "notebook": ({"cells": [], "nbformat": 4}, "Jupyter notebook"),
    "half a coco": ({"images": [], "categories": []}, "without a list of annotations"),
    "a mask": (
        {**COCO, "annotations": [annotation(segmentation={"counts": "abc", "size": [9, 9]})]},
        "has no bbox and no outline",
    ),
    "no image id": ({**COCO, "annotations": [{"id": 1, "bbox": [1, 2, 3, 4]}]}, "image_id"),
    "unknown": ({"alpha": 1, "beta": 2}, "JSON with the keys 'alpha', 'beta', of no tool"),
    "a list": ([1, 2], "a list of 2"),
    "broken": ('{"a": ', "begins as JSON and cannot be read"),
    "asap": ("<?xml version='1.0'?><ASAP_Annotations/>", "ASAP's XML"),
    "imagescope": ("<Annotations MicronsPerPixel='0.25'></Annotations>", "Aperio ImageScope's"),
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    data, said = NAMED[name]
    with pytest.raises(EmbedstoreError) as e:
        read_annotations(put(tmp_path, data, "a.xml" if str(data).startswith("<") else "a.json"))
    assert said in str(e.value)
    assert "Error:" not in str(e.value)
    assert "a.json" in str(e.value) or "a.xml" in str(e.value)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=6))
def test_any_centres_come_back(
    tmp_path_factory: pytest.TempPathFactory, centres: list[tuple[float, float]]
) -> None:
    nuclei = {str(n): {"centroid": list(p), "type": 1} for n, p in enumerate(centres)}
    read = read_annotations(put(tmp_path_factory.mktemp("h"), {"nuc": nuclei}))
    assert [(a.x_l0, a.y_l0) for a in read.annotations] == centres
    assert all(math.isfinite(v) for a in read.annotations for v in (a.x_l0 or 0, a.y_l0 or 0))
