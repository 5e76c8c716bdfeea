"""The small inputs beside the checkout that each show a fault, by what is right for them."""

from pathlib import Path
from typing import Any

import pytest

from tests.making.commands import call_command
from tests.making.stores import query_of

MODEL = "efficientnet-lite0"


@pytest.fixture
def work(data: Path, tmp_path: Path) -> Any:
    """Run `embedstore add d` on files of an input; its store and what it told."""

    def added(folder: str, annotations: str, *more: str) -> tuple[str, str]:
        inputs, uri = data / "inputs" / folder, str(tmp_path / f"store-{annotations}{len(more)}")
        words = [str(inputs / w) if w in ("slides", "scanners.csv") else w for w in more]
        where = ("--annotations", inputs / annotations, "--store", uri)
        done = call_command("embedstore", "add", "d", *where, *words)
        return uri, f"{done.code} {done.err}"

    return added


def centres(uri: str) -> list[tuple[float, float]]:
    rows = query_of(uri, "select round(x_l0) as x, round(y_l0) as y from annotations order by all")
    return [(r["x"], r["y"]) for r in rows]


def slides(uri: str) -> dict[str, dict[str, Any]]:
    return {r["slide"]: r for r in query_of(uri, "select * from slides")}


def vectors(uri: str) -> list[dict[str, Any]]:
    ingested = call_command(
        "embedstore", "ingest", "d", "--model", MODEL, "--dtype", "float32", "--store", uri
    )
    assert ingested.code == 0, ingested.err
    return query_of(uri, "select slide, annotation_id, vector from embeddings")


SLIDES = ("--slides", "slides")


def test_01_each_cell_of_a_multipolygon_is_one(work: Any) -> None:
    uri, told = work("01-multipolygon-cells", "a.geojson", *SLIDES)
    mitotic = {(210, 160), (820, 140), (500, 390), (180, 620), (860, 600)}
    others = {(330, 250), (640, 150), (700, 330), (300, 480), (560, 580), (720, 510), (430, 180)}
    assert centres(uri) == sorted(mitotic | others)
    assert "each is an object" in told


@pytest.mark.parametrize("given", [("--mpp", "0.25"), ("--slide-table", "scanners.csv")])
def test_04_the_mpp_that_a_user_states_wins_and_is_told(work: Any, given: tuple[str, str]) -> None:
    uri, told = work("04-mpp-against-file", "cells.csv", *SLIDES, *given)
    assert slides(uri)["a.tiff"]["mpp"] == 0.25
    assert "the file itself states 0.5 um/px, and 0.25 was taken" in told


def test_04_what_was_stated_is_taken_back(work: Any, data: Path) -> None:
    uri, _ = work("04-mpp-against-file", "cells.csv", *SLIDES, "--mpp", "0.25")
    inputs = data / "inputs/04-mpp-against-file"
    line = ("embedstore", "add", "d", "--annotations", inputs / "cells.csv", "--store", uri)
    assert call_command(*line).code == 0
    assert slides(uri)["a.tiff"]["mpp"] == 0.25  # it is remembered
    back = call_command(*line, "--mpp", "file")
    assert (slides(uri)["a.tiff"]["mpp"], slides(uri)["a.tiff"]["mpp_source"]) == (0.5, "slide")
    assert "moved (1 slides with another file or mpp)" in back.err
    assert call_command(*line).code == 0
    assert slides(uri)["a.tiff"]["mpp"] == 0.5
    refused = call_command(*line, "--mpp", "files")
    assert refused.code == 2
    assert "neither a number of um nor 'file'" in refused.err


def test_05_a_slide_changed_while_it_was_away(data: Path, tmp_path: Path) -> None:
    inputs, uri, folder = data / "inputs/05-changed-while-away", str(tmp_path / "s"), tmp_path / "S"
    folder.mkdir()
    slide, add = (
        folder / "a.tiff",
        ("embedstore", "add", "d", "--annotations", inputs / "cells.csv"),
    )
    slide.write_bytes((inputs / "slides/a.tiff").read_bytes())
    assert call_command(*add, "--slides", folder, "--store", uri).code == 0
    first = vectors(uri)
    slide.unlink()
    call_command(*add, "--store", uri)
    slide.write_bytes((inputs / "slides/a.tiff").read_bytes())
    back = call_command(*add, "--slides", folder, "--store", uri)
    assert "moved" not in back.err
    assert len(vectors(uri)) == 4
    slide.unlink()
    call_command(*add, "--store", uri)
    slide.write_bytes((inputs / "rescanned/a.tiff").read_bytes())
    again = call_command(*add, "--slides", folder, "--store", uri)
    assert "4 annotations moved (1 slides with another file or mpp)" in again.err
    key = "annotation_id"
    assert sorted(vectors(uri), key=lambda r: r[key]) != sorted(first, key=lambda r: r[key])


def test_07_fields_beyond_the_columns_are_an_error_that_names_them(work: Any) -> None:
    uri, told = work("07-csv-surplus-fields", "cells.csv", *SLIDES)
    assert "line 2 has 6 fields, and there are 4 columns" in told
    assert "decimal commas" in told
    assert not Path(uri).exists()


def test_08_names_that_look_alike_are_one(work: Any) -> None:
    uri, told = work("08-space-in-names", "cells.csv")
    cases = query_of(uri, "select case_id, count(*) as n from annotations group by 1 order by 1")
    assert [(r["case_id"], r["n"]) for r in cases] == [("P1", 4), ("P2", 4), ("P3", 4)]
    domains = query_of(uri, "select domain, count(*) as n from annotations group by 1 order by 1")
    assert [(r["domain"], r["n"]) for r in domains] == [("CS2", 8), ("XR", 4)]
    assert "taken without" in told
    labels = [w for c in ("tumour", "stroma") for w in ("--label", f"{c}={c}")]
    uri, _ = work("08-space-in-names", "labels.csv", *labels, "--positive", "tumour")
    counts = query_of(uri, "select label, count(*) as n from annotations group by 1 order by 1")
    assert [r["n"] for r in counts] == [4, 4]


def test_09_pixels_that_are_not_8_bit_rgb_are_set_aside(work: Any) -> None:
    uri, _ = work("09-not-8-bit-rgb", "cells.csv", *SLIDES)
    found = slides(uri)
    assert {s: r["status"] for s, r in found.items()} == {
        "rgb.tiff": "ok",
        "twelve-bit.tiff": "unreadable",
        "five-channels.tiff": "unreadable",
    }
    assert "16 bits" in found["twelve-bit.tiff"]["problem"]
    assert "5 channels" in found["five-channels.tiff"]["problem"]


def test_10_packed_files_are_read(work: Any) -> None:
    uri, _ = work("10-files-skipped", "folder")
    counts = query_of(uri, "select slide, count(*) as n from annotations group by 1 order by 1")
    assert [(r["slide"], r["n"]) for r in counts] == [("a", 3), ("b", 4)]


def test_11_the_area_says_which_form_a_box_has(work: Any) -> None:
    uri, told = work("11-coco-box-area", "boxes.json")
    boxes = {(143.5, 113.5), (330.5, 513.5), (389, 123), (462.5, 350.5), (548, 64), (607, 299)}
    rows = query_of(uri, "select x_l0, y_l0 from annotations")
    assert {(r["x_l0"], r["y_l0"]) for r in rows} == boxes
    assert "boxes are [x1, y1, x2, y2]" in told


def test_12_relative_coordinates_are_no_pixels(work: Any) -> None:
    uri, told = work("12-relative-coordinates", "cells.csv", *SLIDES)
    assert told.startswith("1 ")
    assert "all x and y lie between 0 and 1" in told
    assert not Path(uri).exists()


def test_13_a_picture_is_turned_as_its_tag_says(work: Any) -> None:
    uri, _ = work("13-exif-orientation", "patches.csv")
    assert {(r["width"], r["height"]) for r in slides(uri).values()} == {(96, 64)}
    vectors(uri)
    (row,) = query_of(
        uri,
        "select list_cosine_similarity(a.vector, b.vector) as c from embeddings a join embeddings b "
        "on a.slide < b.slide",
    )
    assert row["c"] > 0.99


def test_14_a_level_filled_up_with_nothing_is_not_believed(work: Any) -> None:
    uri, _ = work("14-padded-level", "cells.csv", *SLIDES)
    vectors(uri)
    rows = query_of(
        uri,
        "select list_cosine_similarity(a.vector, b.vector) as c from embeddings a "
        "join annotations n using (annotation_id) join annotations m using (x_l0, y_l0) "
        "join embeddings b on b.annotation_id = m.annotation_id "
        "where n.slide = 'plain.tiff' and m.slide != 'plain.tiff'",
    )
    assert len(rows) == 8
    assert min(r["c"] for r in rows) >= 0.98


def test_15_tiles_of_unlike_fields_are_no_models(work: Any, data: Path) -> None:
    uri, _ = work("15-h5-mixed-tiles", "cells.csv", *SLIDES)
    tiles = data / "inputs/15-h5-mixed-tiles/h5"
    done = call_command("embedstore", "import", "d", tiles, "--model", "other", "--store", uri)
    assert done.code == 1
    assert "unlike fields (56 um on a.h5, 112 um on b.h5)" in done.err
    assert query_of(uri, "from embeddings") == []


def test_16_a_column_that_names_the_file_is_looked_at(work: Any) -> None:
    uri, _ = work("16-numeric-slide-names", "cells.csv", *SLIDES)
    found = slides(uri)
    assert {s: Path(r["path"]).name for s, r in found.items()} == {
        "1": "case1_he.tiff",
        "2": "case2_he.tiff",
    }


def test_17_slides_lie_in_folders_of_their_own(work: Any, tmp_path: Path, data: Path) -> None:
    uri, _ = work("17-slides-in-subfolders", "cells.csv", *SLIDES)
    assert {r["status"] for r in slides(uri).values()} == {"ok"}
    inputs = data / "inputs/17-slides-in-subfolders"
    for name in ("one", "two"):
        (tmp_path / "twice" / name).mkdir(parents=True)
        (tmp_path / "twice" / name / "XX-0001-01Z.tiff").touch()
    twice = ("--annotations", inputs / "cells.csv", "--slides", tmp_path / "twice")
    refused = call_command("embedstore", "add", "d", *twice, "--store", tmp_path / "S2")
    assert "one/XX-0001-01Z.tiff, two/XX-0001-01Z.tiff" in refused.err


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("empty-polygon", 4),
        ("empty-ring", 4),
        ("empty-point", 4),
        ("linestring", 4),
        ("multipolygon-with-empty-part", 5),
        ("geometrycollection", 5),
    ],
)
def test_21_one_empty_shape_does_not_stop_a_file(work: Any, name: str, n: int) -> None:
    uri, told = work("21-odd-geometries", f"{name}.geojson")
    places = [(259, 344), (262, 395), (281, 160), (299, 335), (350, 300)]
    assert centres(uri) == places[:n]
    assert ("left out" in told) == (name != "geometrycollection")  # of its parts all have a place


def test_22_what_systems_put_beside_files_is_passed_over(work: Any) -> None:
    uri, _ = work("22-appledouble", "folder")
    assert centres(uri) == [(420, 197), (469, 254), (545, 160)]
    uri, _ = work("22-appledouble", "classes")
    assert len(slides(uri)) == 4


def test_23_a_picture_that_is_a_slide_is_turned_too(work: Any) -> None:
    uri, _ = work("23-plain-jpeg-exif", "cells.csv", *SLIDES, "--mpp", "0.25")
    assert [(r["width"], r["height"]) for r in slides(uri).values()] == [(400, 560)]
    rows = query_of(uri, "select distinct status from annotations")
    assert rows == [{"status": "ok"}]
    from embedstore.slides.patches import PatchGeometry
    from embedstore.slides.regions import read_patch
    from embedstore.slides.slide import Slide

    with Slide(slides(uri)["field.jpg"]["path"]) as slide:
        for x, y in centres(uri):
            patch = read_patch(slide, x, y, 0.25, PatchGeometry(64))
            assert patch[28:36, 28:36].mean() < 110 < patch[:8].mean()


def test_24_what_cannot_be_read_is_said_in_words(work: Any) -> None:
    uri, _ = work("24-codecs", "cells.csv", *SLIDES)
    problems = {s: r["problem"] for s, r in slides(uri).items()}
    assert "JPEG 2000" in problems["jp2.tiff"]
    assert "WebP" in problems["webp.tiff"]
    assert "DICOM" in problems["capture.dcm"]
    assert all("convert" in p for p in problems.values())
