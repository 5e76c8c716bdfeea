"""MIDOG's and COCO's JSON against independent readings of the same files."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.readers import read_annotations
from embedstore.annotations.source import SourceAnnotation
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


def write(
    path: Any, boxes: Any, *, size: Any = (7000, 5000), forms: Any = None, **more: Any
) -> Any:
    """Write a file of boxes on one image; forms gives a row's other keys."""
    width, height = size
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": list(box), **more}
        for n, box in enumerate(boxes, start=1)
    ]
    for row, form in zip(rows, forms or [{}] * len(rows), strict=True):
        row |= form
    path.write_text(
        json.dumps(
            {
                "info": {},
                "licenses": [],
                "images": [
                    {"license": 1, "file_name": "a.svs", "id": 1, "width": width, "height": height}
                ],
                "categories": [
                    {"id": 1, "name": "mitotic figure"},
                    {"id": 7, "name": "hard negative"},
                ],
                "annotations": rows,
            }
        )
    )
    return path


def centres(content: Any) -> list[tuple[float, float]]:
    return [(a.x_l0, a.y_l0) for a in content.annotations]


def test_midog_centres_agree_with_the_json(data: Path) -> None:
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
    assert content.notes == ["50 of 553 slides carry no annotation and were left out"]


def whole_pixels(a: SourceAnnotation) -> tuple[str, int, int]:
    """Where an annotation lies, rounded."""
    assert a.x_l0 is not None
    assert a.y_l0 is not None
    return a.slide, round(a.x_l0), round(a.y_l0)


def test_sliderunner_and_json_hold_the_same_midog_2021(data: Path) -> None:
    database = read_annotations(data / "midog21/MIDOG.sqlite")
    assert Counter(a.category for a in database.annotations) == {
        "mitotic figure": 1721,
        "not mitotic figure": 2714,
    }
    both = read_annotations(data / "midogpp/MIDOG++.json")
    first = Counter(whole_pixels(a) for a in database.annotations)
    second = Counter(
        whole_pixels(a)
        for a in both.annotations
        if a.attributes["tumor_type"] == "human breast cancer"
    )
    assert sum((first & second).values()) > 0.98 * 4435


def test_the_experts_votes_can_be_asked_in_sql(data: Path, tmp_path: Path) -> None:
    raw = json.loads((data / "midogpp/MIDOG++.json").read_text())["annotations"]
    split = [a for a in raw if len(a["labels"]) == 3 and len(set(a["labels"])) == 2]
    won = Counter(Counter(a["labels"]).most_common(1)[0][0] for a in split)
    assert 5_400 < len(split) < 5_600
    add(str(tmp_path / "s"), "m", data / "midogpp/MIDOG++.json", AddOptions())
    rows = fetch_rows(
        connect(Store.open(str(tmp_path / "s"))),
        "select count(*) as n, count(*) filter (list_count(list_filter(votes, lambda v: v = "
        "'mitotic figure')) = 2) as mitotic, bool_and(category = list_mode(votes)) as by_majority "
        "from annotations where len(votes) = 3 and len(list_distinct(votes)) = 2",
    )
    assert rows == [{"n": len(split), "mitotic": won[1], "by_majority": True}]


def test_ccmct_json_has_an_entry_per_coordinate(tmp_path: Path) -> None:
    """As the public exporter writes it: xyxy around each coordinate, ids repeat, classes lack."""
    boxes = [
        (x - 25, y - 25, x + 25, y + 25)
        for x, y in [(4100, 200), (4140, 260), (3000, 4000), (5000, 10), (20, 20), (30, 30)]
    ]
    forms = [
        {"id": 4},
        {"id": 4},
        {"id": 9, "category_id": 7},
        {"id": 5, "category_id": None},
        {"id": 6, "category_id": 3},
        {"id": 6, "category_id": 3},
    ]
    content = read_annotations(write(tmp_path / "a.json", boxes, forms=forms))
    assert content.format == "midog"
    assert [(a.source_id, a.x_l0, a.y_l0, a.category) for a in content.annotations] == [
        ("4", 4120, 230, "mitotic figure"),
        ("9", 3000, 4000, "hard negative"),
    ]
    assert content.notes == [
        "2 annotations without a class that the file lists were left out",
        "1 annotations have several entries of one id: their centre is the mean",
    ]


@pytest.mark.parametrize(
    ("forms", "said"),
    [
        (
            [{"id": 4}, {"id": 4, "category_id": 7}],
            "annotation id 4 comes twice, .*(1, 1) and (1, 7)",
        ),
        ([{"id": 4}, {"id": 4, "category_id": None}], "annotation id 4 comes twice"),
        ([{"id": 4}, {"id": 4, "image_id": 2}], "annotation id 4 comes twice|image 2"),
        ([{}, {"image_id": 2}], "annotation 2 is on image 2, which the file does not list"),
    ],
)
def test_contradicting_ids_are_refused(tmp_path: Path, forms: Any, said: str) -> None:
    path = write(tmp_path / "a.json", [(6000, 4000, 6050, 4050)] * 2, forms=forms)
    with pytest.raises(EmbedstoreError, match=said.replace("(", r"\(").replace(")", r"\)")):
        read_annotations(path)


def test_images_without_a_size_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(400, 400, 450, 450)], size=(None, 0))
    slide = read_annotations(path).slides["a.svs"]
    assert (slide.width, slide.height) == (None, None)


PLACES = st.lists(
    st.tuples(st.integers(60, 6800), st.integers(60, 4800)), min_size=8, max_size=30, unique=True
)


@settings(max_examples=60, deadline=None)
@given(places=PLACES, side=st.integers(4, 56))
def test_both_forms_of_the_same_boxes_give_the_same_centres(
    tmp_path_factory: pytest.TempPathFactory, places: Any, side: Any
) -> None:
    """Small boxes far from the corner: as COCO they end before they start, as MIDOG they do not."""
    folder = tmp_path_factory.mktemp("boxes")
    corners = [(x, y, x + side, y + side) for x, y in places]
    sizes = [(x, y, side, side) for x, y in places]
    expected = [(x + side / 2, y + side / 2) for x, y in places]
    coco = write(folder / "coco.json", sizes)
    assert read_annotations(coco).format == "coco"
    assert centres(read_annotations(coco)) == expected
    midog = write(folder / "midog.json", corners)
    assert read_annotations(midog).format == "midog"
    assert centres(read_annotations(midog)) == expected
    with pytest.raises(EmbedstoreError, match="ends before it starts.*--format coco"):
        read_annotations(coco, "midog")


def test_midog_read_as_coco_runs_past_the_images_and_is_refused(data: Path) -> None:
    with pytest.raises(EmbedstoreError, match=r"of 26286 boxes run far past .*--format midog"):
        read_annotations(data / "midogpp/MIDOG++.json", "coco")


def test_a_box_against_the_majority_is_refused_naming_the_other_format(tmp_path: Path) -> None:
    corners = [(6000 + k, 4000, 6050 + k, 4050) for k in range(5)]
    path = write(tmp_path / "a.json", [*corners, (6000, 4000, 50, 50)])
    with pytest.raises(EmbedstoreError, match="annotation 6 ends before .*--format coco"):
        read_annotations(path)
    path = write(tmp_path / "b.json", [(6000, 4000, 50, 50)] * 5 + [(-60, 4, -10, 54)])
    with pytest.raises(EmbedstoreError, match="annotation 6 has a negative size.*--format midog"):
        read_annotations(path)


def test_where_no_box_tells_the_form_it_says_what_it_took(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(100, 100, 150, 150)])
    content = read_annotations(path)
    assert (content.format, centres(content)) == ("midog", [(125, 125)])
    assert content.notes == [
        "no box says which form it has: read as [x1, y1, x2, y2] (else --format coco)"
    ]
    path = write(tmp_path / "b.json", [(100, 100, 150, 150)], area=9_000, iscrowd=0)
    content = read_annotations(path)
    assert (content.format, centres(content)) == ("coco", [(175, 175)])
    assert "--format midog" in content.notes[0]
    assert read_annotations(path, "coco").notes == []


def test_coco_refuses_ids_that_repeat(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", [(6000, 4000, 50, 50)] * 2, forms=[{"id": 1}, {"id": 1}])
    with pytest.raises(EmbedstoreError, match="1 annotation ids more than once"):
        add(str(tmp_path / "s"), "d", path, AddOptions())
    assert not (tmp_path / "s").exists()


def test_an_outline_of_parts_that_do_not_touch_is_told(tmp_path: Path) -> None:
    left, right = ([x, 100, x + 20, 100, x + 20, 120, x, 120] for x in (100, 900))
    near = [120.5, 100, 140, 100, 140, 120, 120.5, 120]
    path = write(
        tmp_path / "a.json",
        [(100, 100, 820, 20), (100, 100, 40, 20)],
        forms=[{"segmentation": [left, right]}, {"segmentation": [left, near]}],
    )
    content = read_annotations(path, "coco")
    assert [n.split(":")[0] for n in content.notes] == [
        "1 annotations have outlines of several parts that do not touch"
    ]
