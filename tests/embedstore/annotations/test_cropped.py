"""Pre-cropped patches: both formats, their rows in the store, and what cannot be known of them."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedstore.add import AddOptions, add
from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError
from embedstore.ingest.plan import plan
from embedstore.ingest.retrying import retry_slides
from embedstore.slides.images import probe_patch
from embedstore.store import Store
from tests.making.images import image
from tests.making.stores import query_of


def table(path: Any, text: Any) -> Any:
    path.write_text(text)
    return path


def test_a_table_of_patches_in_the_store(tmp_path: Path) -> None:
    for name, size in (("a/1.png", (96, 80)), ("b/1.png", (96, 80)), ("b/2.jpg", (33, 224))):
        image(tmp_path / "p" / name, size)
    file = table(
        tmp_path / "t.csv",
        "path,label,slide,split,site\na/1.png,mitosis,S1,train,Ulm\n"
        "b\\1.png,imposter,S1,test,Bonn\n./b/2.jpg,imposter,S2,,Bonn\n",
    )
    uri = str(tmp_path / "s")
    report = add(uri, "d", file, AddOptions(slides=tmp_path / "p", domain_from="site"))
    assert (report.format, report.kind, report.n_annotations, report.n_slides) == (
        "patches",
        "patch",
        3,
        3,
    )
    slides = query_of(
        uri,
        "select slide, case_id, width, height, kind, mpp, mpp_source, status, problem "
        "from slides order by slide",
    )
    same = ("patch", None, None, "ok", None)
    assert [tuple(r.values()) for r in slides] == [
        ("a/1.png", "S1", 96, 80, *same),
        ("b/1.png", "S1", 96, 80, *same),
        ("b/2.jpg", "S2", 33, 224, *same),
    ]
    annotations = query_of(
        uri,
        "select annotation_id, x_l0, y_l0, domain, split, label, source_id, status "
        "from annotations order by 1",
    )
    assert [tuple(r.values()) for r in annotations] == [
        (f"d/{slide}/patch", x, y, domain, split, label, "patch", "ok")
        for slide, x, y, domain, split, label in (
            ("a/1.png", 48, 40, "Ulm", "train", "mitotic figure"),
            ("b/1.png", 48, 40, "Bonn", "test", "non-mitotic figure"),
            ("b/2.jpg", 16.5, 112, "Bonn", None, "non-mitotic figure"),
        )
    ]
    sizes = (
        "patches by size in pixels: 2 are 96 x 80, 1 are 33 x 224; ingest resizes them to "
        "--patch-px and stores that it did"
    )
    assert report.notes == [sizes]
    again = add(uri, "d", file, AddOptions(slides=tmp_path / "p", domain_from="site"))
    assert (again.n_new, again.notes) == (0, report.notes)
    by_site = AddOptions(slides=tmp_path / "p", case_from="site")
    assert add(uri, "e", file, by_site).n_annotations == 3
    cases = query_of(uri, "select distinct case_id from slides where dataset = 'e' order by 1")
    assert [r["case_id"] for r in cases] == ["Bonn", "Ulm"]


def test_a_parquet_table_of_patches_is_the_same_as_csv(tmp_path: Path) -> None:
    columns = {"path": ["a/1.png", "a/2.png"], "label": [1, 0], "case": [7.0, None]}
    table(tmp_path / "t.csv", "path,label,case\na/1.png,1,7\na/2.png,0,\n")
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = [read_annotations(tmp_path / f"t.{n}") for n in ("csv", "parquet")]
    assert found[0].annotations == found[1].annotations
    assert {f.format for f in found} == {"patches"}


def test_patches_lie_beside_their_table_where_no_folder_is_named(tmp_path: Path) -> None:
    image(tmp_path / "sub" / "1.png", (224, 224))
    file = table(tmp_path / "t.csv", "path,label,case\nsub/1.png,mitosis,c\n")
    report = add(str(tmp_path / "s"), "d", file, AddOptions())
    assert query_of(str(tmp_path / "s"), "select status from slides") == [{"status": "ok"}]
    assert not any("by size" in n for n in report.notes)  # as models take them


def test_nothing_known_of_the_case_is_said(tmp_path: Path) -> None:
    image(tmp_path / "1.png")
    file = table(tmp_path / "t.csv", "path,label\n1.png,mitosis\n")
    notes = add(str(tmp_path / "s"), "d", file, AddOptions()).notes
    assert any(
        "every patch counts as a slide and a case of its own, so splits cannot see" in n
        for n in notes
    )
    assert any("the file names no domain" in n for n in notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label,x,y\na.png,m,1,2\na.png,m,3,4\n", "several rows of one file.*--format csv"),
        ("file,label\na.png,m\n", "needed: path, label"),
        ("path,label\n/data/a.png,m\n", "line 2: '/data/a.png' must be relative"),
        ("path,label\nC:\\data\\a.png,m\n", "must be relative"),
        ("path,label\n../a.png,m\n", "must be relative"),
        ("path,label\na.png,\n", "line 2: path or label is empty"),
        ("path,label\na.png,m\na.png,n\n", "has patch twice, as 'n' and as 'm'"),
        ("path,label,split\na.png,m,train\na.png,m,test\n", "in test and as 'm' in train"),
        ("path,label,split\na.png,m,nowhere\n", "split holds 'nowhere'"),
    ],
)
def test_broken_tables_of_patches_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        read_annotations(table(tmp_path / "t.csv", text), "patches")


def test_slides_only_options_and_mixed_kinds_are_refused(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    file = table(tmp_path / "t.csv", "path,label\na.png,mitosis\n")
    uri = str(tmp_path / "s")
    with pytest.raises(EmbedstoreError, match="--mpp is for slides"):
        add(uri, "d", file, AddOptions(mpp=0.25))
    add(uri, "d", file, AddOptions())
    points = table(tmp_path / "p.csv", "slide,x,y,label\na.png,1,1,mitosis\n")
    with pytest.raises(
        EmbedstoreError, match="a.png is registered in 'd' as a patch, not as a slide"
    ):
        add(uri, "d", points, AddOptions())


def test_a_glass_slides_row_of_the_slide_table_is_its_patches(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        image(tmp_path / name)
    file = table(
        tmp_path / "t.csv", "path,label,slide\n1.png,mitosis,S1.svs\n2.png,imposter,S2.svs\n"
    )
    slides = table(tmp_path / "slides.csv", "slide,scanner\nS1,XR\nS2,CS2\n")
    uri = str(tmp_path / "s")
    add(uri, "d", file, AddOptions(slide_table=slides, domain_from="scanner"))
    assert query_of(uri, "select slide, domain from annotations order by 1") == [
        {"slide": "1.png", "domain": "XR"},
        {"slide": "2.png", "domain": "CS2"},
    ]


def test_missing_and_unreadable_patches_are_set_aside_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    deep = image(folder / "deep.png", mode="I;16")
    image(folder / "good.png")
    (folder / "bad.png").write_bytes(b"no image at all")
    rows = "".join(
        f"{n}.png,{c},c\n"
        for n, c in (
            ("good", "mitosis"),
            ("bad", "imposter"),
            ("gone", "mitosis"),
            ("deep", "mitosis"),
        )
    )
    file = table(tmp_path / "t.csv", "path,label,case\n" + rows)
    uri = str(tmp_path / "s")
    add(uri, "d", file, AddOptions(slides=folder))
    status = {r["slide"]: r for r in query_of(uri, "select * from slides")}
    assert {s: r["status"] for s, r in status.items()} == {
        "good.png": "ok",
        "bad.png": "unreadable",
        "gone.png": "missing",
        "deep.png": "unreadable",
    }
    assert "cannot be read as a patch" in status["bad.png"]["problem"]
    assert "convert it to RGB" in status["deep.png"]["problem"]
    (row,) = query_of(uri, "select * from annotations where slide = 'gone.png'")
    assert (row["status"], row["x_l0"]) == ("ok", None)
    image(folder / "bad.png", (64, 64))
    image(deep, (10, 20))
    image(folder / "gone.png", (30, 40))
    retry_slides(Store.open(uri), "d")
    found = {
        r["slide"]: r
        for r in query_of(uri, "select * from annotations join slides using (dataset, slide)")
    }
    assert found["bad.png"]["x_l0"] == 32  # the centre follows from the size that it has now
    assert (found["deep.png"]["x_l0"], found["deep.png"]["y_l0"]) == (5, 10)
    assert query_of(
        uri, "select distinct status, mpp from slides where slide in ('bad.png', 'deep.png')"
    ) == [{"status": "ok", "mpp": None}]
    add(uri, "d", file, AddOptions(slides=folder))  # now its place is known, too
    todo = plan(Store.open(uri), "d", ["m"])
    assert {(job.slide, p.x_l0, p.y_l0) for job in todo.jobs() for p in job.points} == {
        ("good.png", 48, 40),
        ("bad.png", 32, 32),
        ("deep.png", 5, 10),
        ("gone.png", 15, 20),
    }


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("RGB", "a.png"),
        ("L", "a.png"),
        ("P", "a.png"),
        ("RGBA", "a.webp"),
        ("CMYK", "a.jpg"),
        ("1", "a.bmp"),
        ("RGB", "a.tiff"),
    ],
)
def test_probe_says_what_pillow_says_by_the_header(tmp_path: Path, mode: str, name: str) -> None:
    path = image(tmp_path / name, (37, 21), mode)
    row = probe_patch(path)
    assert (row["width"], row["height"], row["status"], row["mpp"]) == (37, 21, "ok", None)
    other = image(tmp_path / f"other-{name}", (37, 22), mode)
    assert probe_patch(other)["fingerprint"] != row["fingerprint"]
    assert json.dumps(row)
