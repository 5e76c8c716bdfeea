"""`add`: what is registered, what is flagged, and that nothing is half-written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from tests.making.slides import TinyDataset, write_csv, write_slide
from tests.making.stores import query_of


def test_midogpp_without_any_image(data: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    report = add(uri, "midogpp", data / "midogpp/MIDOG++.json", AddOptions())
    assert (report.n_annotations, report.n_new, report.n_slides) == (26_286, 26_286, 503)
    by_domain = query_of(
        uri,
        "select domain, count(*) filter (label = 'mitotic figure') as mf, "
        "count(*) filter (label = 'non-mitotic figure') as other, "
        "count(distinct slide) as slides from annotations group by 1",
    )
    assert {r["domain"]: (r["mf"], r["other"], r["slides"]) for r in by_domain} == {
        "human breast cancer": (1721, 2714, 150),
        "canine lung cancer": (855, 951, 44),
        "canine lymphosarcoma": (3959, 4257, 55),
        "human melanoma": (1150, 925, 49),
        "canine cutaneous mast cell tumor": (2327, 1366, 50),
        "human neuroendocrine tumor": (639, 1761, 55),
        "canine soft tissue sarcoma": (1286, 2375, 100),
    }
    off = query_of(uri, "select source_id, status from annotations where status != 'ok' order by 1")
    assert off == [{"source_id": s, "status": "off-slide"} for s in ("15363", "15728")]
    assert query_of(uri, "select annotation_id from annotations where source_id = '1'") == [
        {"annotation_id": "midogpp/001.tiff/1"}
    ]


def test_atypia_with_its_frames(data: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    options = AddOptions(slides=data / "atypia/images")
    steps = []
    add(uri, "atypia", data / "atypia/atypia.json", options, lambda *s: steps.append(s))
    assert steps[-1] == (227, 227)
    again = add(uri, "atypia", data / "atypia/atypia.json", options)
    assert (again.n_annotations, again.n_new) == (1214, 0)
    assert query_of(uri, "select label, count(*) as n from annotations group by 1 order by 1") == [
        {"label": "mitotic figure", "n": 485},
        {"label": "non-mitotic figure", "n": 729},
    ]
    (row,) = query_of(
        uri,
        "select count(distinct case_id) as cases, min(mpp) as low, max(mpp) as high, "
        "count(*) filter (status = 'ok') as ok from slides",
    )
    assert (row["cases"], row["ok"]) == (8, 227)
    assert row["low"] == pytest.approx(0.2273, rel=1e-4) == row["high"]


def test_real_slides_with_problems_are_set_aside_not_lost(data: Path, tmp_path: Path) -> None:
    wsi, uri = data / "wsi", str(tmp_path / "s")
    names = sorted(p.name for p in wsi.glob("*.svs"))
    rows = [
        {"slide": n, "x": 500 + k, "y": 500, "label": ("mitosis", "imposter")[k % 2]}
        for n in names
        for k in range(2)
    ]
    file = write_csv(tmp_path / "a.csv", rows)
    add(uri, "wsi", file, AddOptions(slides=wsi))
    found = query_of(uri, "select slide, status, mpp, problem from slides order by slide")
    status = {r["slide"]: (r["status"], r["mpp"]) for r in found}
    assert status == {
        "broken.svs": ("unreadable", None),
        "cmu-1-small-region.svs": ("ok", 0.499),
        "tcga-cr-7395-01a-01-ts1.svs": ("no-mpp", None),
    }
    assert "--mpp" in next(r["problem"] for r in found if r["status"] == "no-mpp")
    assert query_of(uri, "select status, count(*) as n from annotations group by 1 order by 1") == [
        {"status": "no-mpp", "n": 2},
        {"status": "ok", "n": 2},
        {"status": "unreadable", "n": 2},
    ]
    told = add(uri, "wsi", file, AddOptions(slides=wsi, mpp=0.25)).notes
    assert any("states 0.499 um/px, and 0.25 was taken (option)" in n for n in told)
    found = query_of(
        uri, "select slide, mpp, mpp_source from slides where status = 'ok' order by slide"
    )
    assert [(r["mpp"], r["mpp_source"]) for r in found] == [(0.25, "option"), (0.25, "option")]
    add(uri, "wsi", file, AddOptions())  # told nothing, it keeps what it knows
    assert query_of(uri, "select count(*) as n from slides where status = 'ok'") == [{"n": 2}]


def test_slide_table_gives_mpp_scanner_and_domain(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    write_slide(tmp_path / "s" / "1.tiff", np.zeros((300, 300, 3), np.uint8), mpp=None)
    file = write_csv(
        tmp_path / "a.csv",
        [
            {"slide": "1.tiff", "x": 5, "y": 6, "label": "mitotic figure"},
            {"slide": "1.tiff", "x": 9, "y": 9, "label": "hard negative"},
        ],
    )
    (tmp_path / "t.csv").write_text("Slide;mpp;Scanner\n1;0.31;XR\n")
    uri = str(tmp_path / "store")
    add(
        uri,
        "d",
        file,
        AddOptions(slides=tmp_path / "s", slide_table=tmp_path / "t.csv", domain_from="scanner"),
    )
    assert query_of(
        uri,
        "select mpp, mpp_source, scanner, domain from annotations join slides "
        "using (dataset, slide, mpp, scanner) limit 1",
    ) == [{"mpp": 0.31, "mpp_source": "slide table", "scanner": "XR", "domain": "XR"}]
    (tmp_path / "t.csv").write_text("slide,mpp\n1.tiff,310\n")
    with pytest.raises(EmbedstoreError, match=r"'310'.*um/px"):
        add(uri, "d", file, AddOptions(slide_table=tmp_path / "t.csv"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mpp": 250.0}, "um/px"),
        ({"mpp": 0.00025}, "um/px"),
        ({"labels": {"mitosiss": "x"}}, "'mitosiss'.*has: 'mitotic figure'"),
        ({"positive": "yes"}, "'yes' is no label here; labels: mitotic figure"),
        ({"domain_from": "organ"}, "no 'organ'.*it has: case, domain"),
        ({"case_from": "patient"}, "no 'patient'"),
        ({"domain": "a", "domain_from": "b"}, "not both"),
        ({"format": "voc"}, "unknown format"),
    ],
)
def test_wrong_options_leave_no_store_behind(
    tiny: TinyDataset, tmp_path: Path, options: Any, said: str
) -> None:
    with pytest.raises(EmbedstoreError, match=f"(?s){said}"):
        add(str(tmp_path / "s"), "tiny", tiny.csv, AddOptions(**options))
    assert not (tmp_path / "s").exists()


def test_wrong_names_and_folders(tiny: TinyDataset, tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    with pytest.raises(EmbedstoreError, match="cannot name a dataset"):
        add(uri, "a/b", tiny.csv, AddOptions())
    with pytest.raises(EmbedstoreError, match="no folder of slides"):
        add(uri, "a", tiny.csv, AddOptions(slides=tmp_path / "nowhere"))
    with pytest.raises(EmbedstoreError, match="no slide table"):
        add(uri, "a", tiny.csv, AddOptions(slide_table=tmp_path / "nowhere"))


def test_classes_are_mapped_shown_and_left_out(tmp_path: Path) -> None:
    rows = [{"slide": "a.tiff", "x": k, "y": k, "label": c} for k, c in enumerate("AABBBC")]
    file, uri = write_csv(tmp_path / "a.csv", rows), str(tmp_path / "s")
    with pytest.raises(EmbedstoreError, match=r"no class .* is known: 'B', 'A', 'C'.*--label"):
        add(uri, "d", file, AddOptions())
    with pytest.raises(EmbedstoreError, match="--positive 'a' or --positive 'b'"):
        add(uri, "d", file, AddOptions(labels={"A": "a", "B": "b"}))
    report = add(uri, "d", file, AddOptions(labels={"A": "a", "B": "b"}, positive="a"))
    assert report.classes == {"A": "a", "B": "b", "C": None}
    assert report.n_annotations == 5
    assert "1 annotations of class 'C' were left out" in report.notes
    assert query_of(uri, "select positive_label, n_annotations from datasets") == [
        {"positive_label": "a", "n_annotations": 5}
    ]
    three = add(uri, "e", file, AddOptions(labels={"A": "a", "B": "b", "C": "c"}))
    assert three.n_annotations == 6
    assert query_of(uri, "select positive_label from datasets where dataset = 'e'") == [
        {"positive_label": None}
    ]


def test_ids_do_not_depend_on_machine_or_order(tiny: TinyDataset, tmp_path: Path) -> None:
    rows = write_csv(tmp_path / "b.csv", tiny.rows[::-1])
    ids = []
    for n, file in enumerate((tiny.csv, rows)):
        uri = str(tmp_path / f"s{n}")
        add(uri, "tiny", file, AddOptions())
        ids.append(query_of(uri, "select annotation_id from annotations order by 1"))
    assert ids[0] == ids[1]
    assert ids[0][0]["annotation_id"] == "tiny/a0.tiff/1707c69d374b"  # and on another machine


def test_centres_must_be_finite(tmp_path: Path) -> None:
    box = [float("nan")] * 4
    content = {
        "images": [{"id": 1, "file_name": "a.tiff"}],
        "categories": [{"id": 1, "name": "mitosis"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": box}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    for format in ("auto", "midog", "coco"):
        with pytest.raises(EmbedstoreError, match="no finite centre"):
            add(str(tmp_path / "s"), "d", tmp_path / "a.json", AddOptions(format=format))


def test_a_slide_has_one_case(tmp_path: Path) -> None:
    rows = [{"slide": "a", "x": k, "y": 1, "label": "mitosis", "case": f"c{k}"} for k in range(2)]
    with pytest.raises(EmbedstoreError, match="a slide has one case"):
        add(str(tmp_path / "s"), "d", write_csv(tmp_path / "a.csv", rows), AddOptions())


def test_one_file_name_in_two_folders_is_refused(tmp_path: Path) -> None:
    rows = [{"path": f"{d}/s.png", "x": 1, "y": k, "label": "mitosis"} for k, d in enumerate("ab")]
    with pytest.raises(EmbedstoreError, match="have one file name"):
        add(str(tmp_path / "s"), "d", write_csv(tmp_path / "a.csv", rows), AddOptions())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "slide,x,y,label\na,1,2\n"),
        ("a.csv", "slide,x,y,label,width\na,1,2,mitosis,1e999\n"),
        ("a.csv", "slide,x,y,label\n,1,2,mitosis\n"),
        (
            "a.json",
            '{"images":[{"id":1,"file_name":"a","width":"abc"}],"categories":[{"id":1,"name":"mitosis"}],'
            '"annotations":[{"id":1,"image_id":1,"category_id":1,"bbox":[0,0,50,50]}]}',
        ),
    ],
)
def test_malformed_rows_are_told_and_make_no_store(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(EmbedstoreError, match=name):
        add(str(tmp_path / "s"), "d", tmp_path / name, AddOptions())
    assert not (tmp_path / "s").exists()


def test_a_slide_table_in_another_encoding(tiny: TinyDataset, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("slide,scanner\na0.tiff,Müller\n".encode("latin-1"))
    with pytest.raises(EmbedstoreError, match="UTF-8"):
        add(str(tmp_path / "s"), "d", tiny.csv, AddOptions(slide_table=tmp_path / "t.csv"))
