"""The table of slides: which row is whose, and MIDOG++'s real one."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.slide_table import SlideTable, read_slide_table
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


@pytest.fixture(scope="module")
def real(data: Path) -> dict[str, dict[str, str]]:
    """MIDOG++'s table by image name, read without any code of ours."""
    with (data / "midogpp/datasets_xvalidation.csv").open() as f:
        return {f"{int(r['Slide']):03d}.tiff": r for r in csv.DictReader(f, delimiter=";")}


def test_midogpps_table_reaches_all_labelled_slides(
    data: Path, real: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    raw = json.loads((data / "midogpp/MIDOG++.json").read_text())
    labelled = {a["image_id"] for a in raw["annotations"]}
    names = {i["file_name"] for i in raw["images"] if i["id"] in labelled}
    uri = str(tmp_path / "s")
    options = AddOptions(
        slide_table=data / "midogpp/datasets_xvalidation.csv", domain_from="scanner"
    )
    report = add(uri, "m", data / "midogpp/MIDOG++.json", options)
    rows = fetch_rows(connect(Store.open(uri)), "select slide, scanner, attributes from slides")
    assert {r["slide"] for r in rows} == names
    assert len(rows) == 503
    for row in rows:
        mine, found = real[row["slide"]], json.loads(row["attributes"])
        assert row["scanner"] == mine["Scanner"].replace("Hamammatsu", "Hamamatsu")
        assert (found["species"], found["origin"]) == (mine["Species"], mine["Origin"])
    per_scanner = Counter(real[n]["Scanner"].replace("Hamammatsu", "Hamamatsu") for n in names)
    assert Counter(r["scanner"] for r in rows) == per_scanner
    assert per_scanner == {
        "3D Histech": 199,
        "Hamamatsu XR": 154,
        "Aperio CS2": 100,
        "Hamamatsu S360": 50,
    }
    domains = fetch_rows(
        connect(Store.open(uri)),
        "select domain, count(distinct slide) as n from annotations group by 1",
    )
    assert {r["domain"]: r["n"] for r in domains} == per_scanner
    assert (
        "scanner 'Hamammatsu XR' of datasets_xvalidation.csv was taken for 'Hamamatsu XR', 50 times"
        in report.notes
    )
    assert (
        "99 slides were found in datasets_xvalidation.csv by their number ('1' is 001.tiff)"
        in report.notes
    )


def test_the_tumour_is_the_jsons_unless_the_tables_is_asked_for(
    data: Path, real: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    table = data / "midogpp/datasets_xvalidation.csv"
    for name, domain_from, expected in (
        ("json", None, "canine lymphosarcoma"),
        ("table", "tumor", "canine lymphoma"),
    ):
        uri = str(tmp_path / name)
        options = AddOptions(slide_table=table, domain_from=domain_from)
        add(uri, "m", data / "midogpp/MIDOG++.json", options)
        sql = "select slide, any_value(domain) as domain from annotations group by 1"
        found = {r["slide"]: r["domain"] for r in fetch_rows(connect(Store.open(uri)), sql)}
        for slide, domain in found.items():
            tumor = real[slide]["Tumor"]
            assert domain == (expected if tumor == "canine lymphoma" else tumor)


def test_columns_are_lower_case_and_the_name_is_no_attribute(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("Slide;MPP;Scanner\n001.tiff;0.23;XR\n7;0.25;\n;1;\n")
    table = read_slide_table(tmp_path / "t.csv")
    assert table.rows == {"001.tiff": {"mpp": "0.23", "scanner": "XR"}, "7": {"mpp": "0.25"}}


def test_parquet_says_the_same_as_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("slide,mpp,site\n1,0.23,\n2,,Ulm\n")
    table = {"slide": pa.array([1, 2]), "mpp": [0.23, float("nan")], "site": [None, "Ulm"]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    rows = [read_slide_table(tmp_path / n).rows for n in ("t.csv", "t.parquet")]
    assert rows[0] == rows[1] == {"1": {"mpp": "0.23"}, "2": {"site": "Ulm"}}


@pytest.mark.parametrize(
    ("rows", "slides", "expected"),
    [
        (["a.svs", "b"], ["a.svs", "b.svs"], {"a.svs": "a.svs", "b.svs": "b"}),
        (["a.svs"], ["a"], {"a": "a.svs"}),
        (["1", "02.tiff"], ["001.tiff", "2.tiff"], {"001.tiff": "1", "2.tiff": "02.tiff"}),
        (
            ["1.tiff", "001.tiff"],
            ["001.tiff", "1.tiff"],
            {"1.tiff": "1.tiff", "001.tiff": "001.tiff"},
        ),
        (["1"], ["1.tiff", "001.tiff"], {"1.tiff": "1"}),  # the better rule has it
        (["a.svs"], ["a.tiff", "b.svs"], {}),  # another file
        (["0", "000"], ["0", "000"], {"0": "0", "000": "000"}),
        (["v1.2", "v1"], ["v1.2.svs"], {"v1.2.svs": "v1.2"}),
    ],
)
def test_matching(tmp_path: Path, rows: Any, slides: Any, expected: Any) -> None:
    table = SlideTable(tmp_path / "t.csv", {r: {"row": r} for r in rows})
    found, _ = table.match(slides)
    assert {s: r["row"] for s, r in found.items()} == expected


@pytest.mark.parametrize(
    ("rows", "slides"),
    [
        (["a"], ["a.svs", "a.tiff"]),
        (["a.svs", "a.tiff"], ["a"]),
        (["1"], ["01.tiff", "001.tiff"]),
        (["1", "01"], ["001.tiff"]),
    ],
)
def test_ambiguous_matches_are_refused(tmp_path: Path, rows: Any, slides: Any) -> None:
    table = SlideTable(tmp_path / "t.csv", {r: {} for r in rows})
    with pytest.raises(EmbedstoreError, match="no single partner: row .* would be slide"):
        table.match(slides)


@settings(max_examples=80, deadline=None)
@given(
    numbers=st.sets(st.integers(0, 2000), min_size=1, max_size=30),
    pad=st.integers(1, 6),
    row_pad=st.integers(1, 6),
    suffix=st.sampled_from(["", ".tiff"]),
)
def test_numbers_are_matched_however_they_are_padded(
    tmp_path_factory: pytest.TempPathFactory, numbers: Any, pad: Any, row_pad: Any, suffix: Any
) -> None:
    rows = {f"{n:0{row_pad}d}{suffix}": {"n": str(n)} for n in numbers}
    found, notes = SlideTable(tmp_path_factory.mktemp("t"), rows).match(
        f"{n:0{pad}d}.tiff" for n in numbers
    )
    assert found == {f"{n:0{pad}d}.tiff": {"n": str(n)} for n in numbers}
    assert all("by their number" in n for n in notes)


def test_rows_and_slides_without_a_partner_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("slide,x,y,label\na.svs,1,1,mitosis\nb.svs,1,1,imposter\nc.svs,1,1,mitosis\n")
    (tmp_path / "t.csv").write_text("slide,scanner\na.svs,XR\nx.svs,XR\ny.svs,XR\nz.svs,XR\n")
    report = add(str(tmp_path / "s"), "d", file, AddOptions(slide_table=tmp_path / "t.csv"))
    assert "3 of 4 rows of t.csv name no slide of this file (first: x.svs)" in report.notes
    assert "2 of 3 slides have no row in t.csv (first: b.svs)" in report.notes
    with pytest.raises(
        EmbedstoreError, match=r"b.svs has no 'scanner' \(--domain-from\), nor have 1"
    ):
        add(
            str(tmp_path / "s"),
            "d",
            file,
            AddOptions(slide_table=tmp_path / "t.csv", domain_from="scanner"),
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slide,mpp\na,1\na,2\n", "slide a twice with other values"),
        ("image,mpp\na,1\n", "no column slide"),
        ("", "no column slide"),
        ("slide,mpp,mpp\na,1,2\n", "column mpp more than once"),
    ],
)
def test_broken_tables_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(EmbedstoreError, match=said):
        read_slide_table(tmp_path / "t.csv")
