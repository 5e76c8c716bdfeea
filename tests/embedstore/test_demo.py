"""The generated dataset, checked with OpenSlide, json and sqlite3 rather than our own readers."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
from numpy.typing import NDArray

from embedstore.demo import dataset as demo
from embedstore.demo.dataset import DemoDataset, write_demo
from embedstore.demo.domains import DOMAINS
from embedstore.demo.files import write_pyramid

Points = dict[str, Counter[tuple[float, float, int]]]


def _content(dataset: DemoDataset) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(dataset.midog_json.read_text(encoding="utf-8"))
    return content


def _json_points(dataset: DemoDataset) -> Points:
    content = _content(dataset)
    names = {image["id"]: image["file_name"] for image in content["images"]}
    points: Points = {name: Counter() for name in names.values()}
    for annotation in content["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        key = ((x1 + x2) / 2, (y1 + y2) / 2, annotation["category_id"])
        points[names[annotation["image_id"]]][key] += 1
    return points


def _sqlite_points(dataset: DemoDataset) -> Points:
    query = """
        SELECT s.filename, AVG(c.coordinateX), AVG(c.coordinateY), a.agreedClass
        FROM Annotations a JOIN Slides s ON s.uid = a.slide
        JOIN Annotations_coordinates c ON c.annoId = a.uid
        WHERE a.deleted = 0 GROUP BY a.uid"""
    points: Points = {}
    with closing(sqlite3.connect(dataset.sliderunner_sqlite)) as db:
        for name, x, y, category in db.execute(query):
            points.setdefault(name, Counter())[(x, y, category)] += 1
    return points


def test_openslide_reads_every_slide_with_levels_and_mpp(dataset: DemoDataset) -> None:
    images = _content(dataset)["images"]
    mpp = {domain.name: domain.mpp for domain in DOMAINS}
    assert sorted(p.name for p in dataset.slides.iterdir()) == [i["file_name"] for i in images]
    for image in images:
        with openslide.OpenSlide(dataset.slides / image["file_name"]) as slide:
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert slide.level_count >= 2
            assert slide.dimensions == (image["width"], image["height"])
            for axis in "xy":
                declared = float(slide.properties[f"openslide.mpp-{axis}"])
                assert declared == pytest.approx(mpp[image["tumor_type"]], rel=1e-6)


def test_pyramid_holds_the_picture_at_every_level(tmp_path: Path) -> None:
    y, x = np.mgrid[0:700, 0:900]
    waves = [128 + 100 * np.sin(x / 40 + c) * np.cos(y / 55) for c in range(3)]
    picture: NDArray[np.uint8] = np.stack(waves, axis=-1).astype(np.uint8)
    write_pyramid(tmp_path / "p.tiff", picture, mpp=0.46)
    with openslide.OpenSlide(tmp_path / "p.tiff") as slide:
        assert slide.level_count == 3
        for level, downsample in enumerate((1, 2, 4)):
            w, h = 120, 90
            # across a tile border at level 0, and aligned to every level's pixels
            x0, y0 = 200, 220
            region = np.asarray(slide.read_region((x0, y0), level, (w, h)).convert("RGB"), float)
            source = picture[y0 : y0 + h * downsample, x0 : x0 + w * downsample].astype(float)
            mean = source.reshape(h, downsample, w, downsample, 3).mean(axis=(1, 3))
            assert np.abs(region - mean).max() < 12
            assert np.abs(region - mean).mean() < 2


def test_slides_are_written_without_imagecodecs(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["imagecodecs"] = None  # any import of it now fails
from pathlib import Path
from embedstore.demo.dataset import write_demo
write_demo(Path(sys.argv[1]), n_slides_per_domain=1, n_annotations_per_slide=4)
"""
    folder = tmp_path / "d"
    root = Path(demo.__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", program, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "slides").iterdir())) == 3


def test_slides_look_stained_and_domains_differ(dataset: DemoDataset) -> None:
    means: dict[str, list[NDArray[np.float64]]] = {}
    for image in _content(dataset)["images"]:
        with openslide.OpenSlide(dataset.slides / image["file_name"]) as slide:
            whole = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
            pixels = np.asarray(whole, float).reshape(-1, 3)
        assert pixels.std(axis=0).min() > 10
        means.setdefault(image["tumor_type"], []).append(pixels.mean(axis=0))
    centres = [np.mean(m, axis=0) for m in means.values()]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(centres) for b in centres[:i]]
    assert len(centres) == 3
    assert min(gaps) > 15


def test_every_annotation_on_a_slide_has_dark_chromatin_at_it(dataset: DemoDataset) -> None:
    """A cell drawn elsewhere than annotated (x and y swapped, say) would fail this."""
    for name, points in _json_points(dataset).items():
        with openslide.OpenSlide(dataset.slides / name) as slide:
            red = np.asarray(slide.read_region((0, 0), 0, slide.dimensions), float)[..., 0]
            reach = round(5 / float(slide.properties["openslide.mpp-x"]))  # 5 um
        h, w = red.shape
        for x, y, _ in points:
            if not (0 <= x < w and 0 <= y < h):
                continue
            rows = slice(max(int(y) - reach, 0), int(y) + reach)
            columns = slice(max(int(x) - reach, 0), int(x) + reach)
            assert np.percentile(red[rows, columns], 2) < 0.75 * np.median(red), (name, x, y)


def test_json_is_in_midog_form_and_says_it_is_generated(dataset: DemoDataset) -> None:
    content = _content(dataset)
    assert "not real tissue" in content["info"]["description"]
    assert content["categories"] == [
        {"id": 1, "name": "mitotic figure"},
        {"id": 2, "name": "not mitotic figure"},
    ]
    for annotation in content["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        assert (x2 - x1, y2 - y1) == (50, 50)
        votes = annotation["labels"]
        assert len(votes) == 3
        assert votes.count(annotation["category_id"]) >= 2
    assert [a["id"] for a in content["annotations"]] == list(range(1, dataset.n_annotations + 1))


def test_counts_are_those_of_the_files(dataset: DemoDataset) -> None:
    content = _content(dataset)
    assert dataset.n_slides == len(content["images"]) == 6
    assert dataset.n_domains == 3
    assert dataset.n_annotations == len(content["annotations"]) == 72
    figures = [a for a in content["annotations"] if a["category_id"] == 1]
    assert dataset.n_mitotic_figures == len(figures)
    assert 0.2 < len(figures) / 72 < 0.6


def test_two_slides_of_a_domain_share_a_case(tmp_path: Path) -> None:
    dataset = write_demo(tmp_path / "d", n_slides_per_domain=3, n_annotations_per_slide=4)
    images = _content(dataset)["images"]
    for domain in DOMAINS:
        cases = [i["slide"] for i in images if i["tumor_type"] == domain.name]
        assert sorted(Counter(cases).values()) == [1, 2]
    domains_of = {
        i["slide"]: {j["tumor_type"] for j in images if j["slide"] == i["slide"]} for i in images
    }
    assert all(len(names) == 1 for names in domains_of.values())


def test_json_and_sqlite_agree_point_for_point(dataset: DemoDataset) -> None:
    assert _json_points(dataset) == _sqlite_points(dataset)


def test_sqlite_has_the_tables_and_columns_of_sliderunner(dataset: DemoDataset) -> None:
    with closing(sqlite3.connect(dataset.sliderunner_sqlite)) as db:
        columns = {
            table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
            for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        kinds = dict(
            db.execute(
                "SELECT type, n FROM (SELECT a.uid, a.type, COUNT(*) AS n FROM Annotations a JOIN "
                "Annotations_coordinates c ON c.annoId = a.uid GROUP BY a.uid) GROUP BY type, n"
            ).fetchall()
        )
        slides = db.execute("SELECT filename, directory, width, height FROM Slides").fetchall()
    assert {"uid", "slide", "guid", "deleted", "type", "agreedClass"} <= columns["Annotations"]
    assert {"coordinateX", "coordinateY", "annoId", "orderIdx"} <= columns[
        "Annotations_coordinates"
    ]
    assert {"person", "class", "annoId"} <= columns["Annotations_label"]
    assert {"Classes", "Persons", "Slides"} <= set(columns)
    assert kinds == {1: 1, 2: 2}, "spots have one coordinate, boxes two"
    images = _content(dataset)["images"]
    assert slides == [(i["file_name"], i["tumor_type"], i["width"], i["height"]) for i in images]


def test_dirt_is_present_exactly_as_promised(dataset: DemoDataset) -> None:
    content = _content(dataset)
    sizes = {i["id"]: (i["width"], i["height"]) for i in content["images"]}
    outside, over = 0, Counter[int]()
    for annotation in content["annotations"]:
        x1, y1, x2, y2 = annotation["bbox"]
        w, h = sizes[annotation["image_id"]]
        inside = 0 <= x1 + 25 < w and 0 <= y1 + 25 < h
        outside += not inside
        over[annotation["image_id"]] += inside and (x1 < 0 or y1 < 0 or x2 > w or y2 > h)
    assert outside == dataset.n_off_slide == 1
    assert over == dict.fromkeys(sizes, 2)
    assert dataset.n_edge_boxes == 12
    with closing(sqlite3.connect(dataset.sliderunner_sqlite)) as db:
        deleted = db.execute("SELECT slide FROM Annotations WHERE deleted = 1").fetchall()
    assert sorted(deleted) == [(image_id,) for image_id in sizes]
    assert dataset.n_deleted == 6
