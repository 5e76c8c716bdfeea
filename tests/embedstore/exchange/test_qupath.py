"""Cells for QuPath: what `add` reads back is what the store has, on slides with bounds too."""

import json
import shutil
from pathlib import Path

import pytest

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.qupath import Cell, write_cells
from embedstore.store import Store
from tests.making.commands import call_command
from tests.making.stores import bare_store, query, query_of

CELLS = [{"slide": f"s{n % 2}.tiff", "source_id": str(n)} for n in range(6)]


def test_a_file_a_slide_and_a_folder_a_dataset(tmp_path: Path) -> None:
    bare_store(str(tmp_path / "s"), "d", CELLS)
    store = bare_store(str(tmp_path / "s"), "e", CELLS[:1])
    of_d = [f"d/{c['slide']}/{c['source_id']}" for c in CELLS]
    one = write_cells(store, [Cell(i, "odd", {"score": 0.5}) for i in of_d], tmp_path / "one")
    assert [p.relative_to(tmp_path).as_posix() for p in one] == [
        "one/s0.tiff.geojson",
        "one/s1.tiff.geojson",
    ]
    features = json.loads(one[0].read_text())["features"]
    assert [f["id"] for f in features] == ["0", "2", "4"]
    assert features[1]["geometry"] == {"type": "Point", "coordinates": [102.0, 200.0]}
    assert features[1]["properties"]["measurements"] == {"score": 0.5}
    both = write_cells(store, [Cell(i, "") for i in (*of_d, "e/s0.tiff/0")], tmp_path / "both")
    assert {p.parent.name for p in both} == {"d", "e"}


def test_what_has_no_place_is_said(tmp_path: Path) -> None:
    store = bare_store(str(tmp_path / "s"), "d", CELLS)
    store.update_columns(
        "slides",
        store.lance("slides")
        .to_table()
        .select(["slide_id"])
        .append_column("kind", [["patch", "patch"]]),
    )
    with pytest.raises(EmbedstoreError, match="no place on a slide"):
        write_cells(store, [Cell("d/s0.tiff/0", "")], tmp_path / "out")
    with pytest.raises(UsageError, match="name a folder"):
        write_cells(store, [], tmp_path / "out.geojson")
    assert not (tmp_path / "out").exists()


def test_a_slide_with_bounds_comes_back_where_it_was(data: Path, tmp_path: Path) -> None:
    """QuPath counts from the scanned area's corner, the store from the file's."""
    shutil.copytree(data / "inputs" / "02-slide-bounds", tmp_path / "in")
    (annotations,) = [
        p
        for p in (tmp_path / "in").iterdir()
        if p.suffix == ".geojson" or (p.is_dir() and p.name != "slides")
    ]
    store = ("--store", tmp_path / "s")
    slides = ("--slides", tmp_path / "in" / "slides")
    assert (
        call_command("embedstore", "add", "d", "--annotations", annotations, *slides, *store).code
        == 0
    )
    places = "select slide, source_id, x_l0, y_l0, label from annotations where dataset = '{}' order by all"
    first = query_of(str(tmp_path / "s"), places.format("d"))
    (bounds,) = query(
        Store.open(str(tmp_path / "s")),
        "select distinct bounds from slides where bounds is not null",
    )
    assert bounds["bounds"][:2] != [0, 0]
    tag = call_command(
        "embedstore",
        "tag",
        "all",
        "select annotation_id from annotations",
        "-o",
        tmp_path / "q",
        *store,
    )
    assert tag.code == 0
    again = call_command("embedstore", "add", "e", "--annotations", tmp_path / "q", *slides, *store)
    assert again.code == 0
    assert query_of(str(tmp_path / "s"), places.format("e")) == first
