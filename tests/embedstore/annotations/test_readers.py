"""Which reader takes which file, and that broken files are named."""

import json
from pathlib import Path
from typing import Any

import pytest

from embedstore.annotations.readers import FORMATS, read_annotations
from embedstore.errors import EmbedstoreError
from tests.making.commands import call_command

MIDOG = {
    "images": [{"id": 1, "file_name": "a.tiff", "width": 900, "height": 700}],
    "categories": [{"id": 1, "name": "mitosis"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [600, 400, 650, 450]}],
}
FEATURE = {
    "type": "Feature",
    "properties": {"classification": {"name": "mitosis"}},
    "geometry": {"type": "Point", "coordinates": [5, 6]},
}


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a.json", json.dumps(MIDOG), "midog"),
        ("a.json", "\ufeff \n" + json.dumps(MIDOG), "midog"),
        ("a.json", json.dumps({"type": "FeatureCollection", "features": [FEATURE]}), "geojson"),
        ("a.geojson", json.dumps([FEATURE]), "geojson"),
        ("a.tiff.json", json.dumps(FEATURE), "geojson"),
        ("a.tsv", "slide\tx\ty\tlabel\na\t1\t2\tmitosis\n", "csv"),
        ("a.txt", "path;x;y;label\na;1;2;mitosis\n", "csv"),
        ("a.csv", "path,label\na.png,mitosis\n", "patches"),
    ],
)
def test_formats_are_told_from_content(tmp_path: Path, name: str, text: Any, format: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    for asked in ("auto", format):
        content = read_annotations(tmp_path / name, asked)
        assert content.format == format
        assert [a.category for a in content.annotations] == ["mitosis"]


def test_folders_are_geojson_where_json_lies_in_them_else_a_folder_a_class(tmp_path: Path) -> None:
    (tmp_path / "f" / "mitosis").mkdir(parents=True)
    (tmp_path / "f" / "mitosis" / "a.png").write_bytes(b"x")
    assert read_annotations(tmp_path / "f").format == "imagefolder"
    (tmp_path / "f" / "a.tiff.geojson").write_text(json.dumps(FEATURE))
    assert read_annotations(tmp_path / "f").format == "geojson"
    assert read_annotations(tmp_path / "f", "imagefolder").format == "imagefolder"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "slide,x,y\na.tiff,1,2\n", "needed: slide (or path), x, y, label"),
        ("a.csv", "slide,x,y,label\na.tiff,1,two,A\n", "line 2"),
        ("a.csv", "slide,x,y,label\na.tiff,1,2,A\na.tiff,1,2,B\n", "as 'B' and at (1, 2) as 'A'"),
        ("a.csv", "slide,x,y,label\n", "holds no annotations"),
        ("a.csv", "", "has columns none; needed: slide"),
        ("a.csv", "slide,x,y,label,id\na,1,2,A,7\na,3,4,A,7\n", "has 7 twice"),
        ("a.csv", "slide,x,x,y,label\na,1,2,3,A\n", "column x more than once"),
        ("a.json", '{"images": []}', "without a list of categories, annotations"),
        ("a.json", '{"images": [', "begins as JSON and cannot be read as such (Expecting value"),
        ("a.json", '{"images": [], "categories": [], "annotations": []}', "holds no annotations"),
        ("a.sqlite", "SQLite format 3 but nothing else", "does not read as sliderunner"),
        ("a.parquet", "PAR1 but nothing else", "does not read in any known format"),
        ("a.bin", "\x00\x01", "--format arrays|cellvit|coco|csv|"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(EmbedstoreError) as e:
        read_annotations(path)
    assert said in str(e.value)
    assert str(path) in str(e.value)


def test_missing_file_and_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(EmbedstoreError, match="no annotation file"):
        read_annotations(tmp_path / "none.json")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(EmbedstoreError, match="'voc'; allowed: auto, " + ", ".join(FORMATS)):
        read_annotations(tmp_path / "a.csv", "voc")


@pytest.mark.parametrize("format", FORMATS)
def test_every_reader_refuses_what_is_not_its_own(tmp_path: Path, format: Any) -> None:
    (tmp_path / "a.dat").write_bytes(b"\x00\xff\x00 nothing of all this")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "a.dat", tmp_path / "empty"):
        with pytest.raises(EmbedstoreError, match=str(path)):
            read_annotations(path, format)


def test_same_file_name_twice_is_refused(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a/x.tiff"}
    content = {
        "images": [image, {"id": 2, "file_name": "b/x.tiff"}],
        "categories": [],
        "annotations": [],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(EmbedstoreError, match=r"x\.tiff"):
        read_annotations(tmp_path / "a.json")


def test_the_help_lists_every_format() -> None:
    shown = call_command("embedstore", "add", "--help", env={"COLUMNS": "300"}).out
    assert shown.count(", ".join(FORMATS)) == 2


def test_a_folder_goes_through_the_command(tmp_path: Path) -> None:
    for name, label in (("a", "mitosis"), ("b", "imposter")):
        (tmp_path / "f" / label).mkdir(parents=True)
        (tmp_path / "f" / label / f"{name}.png").write_bytes(b"no image")
    done = call_command(
        "embedstore",
        "add",
        "d",
        "--annotations",
        tmp_path / "f",
        "--json",
        "--store",
        tmp_path / "s",
    )
    assert [(r["label"], r["status"], r["n_annotations"]) for r in done.json()] == [
        ("mitotic figure", "unreadable", 1),
        ("non-mitotic figure", "unreadable", 1),
    ]
    assert "2 annotations on 2 patches as imagefolder" in done.err
    assert "mitosis/a.png: " in done.err
