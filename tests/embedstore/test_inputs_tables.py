"""The small inputs whose tables, folders and arrays have other names: declared, or suggested."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.making.commands import call_command
from tests.making.stores import query_of


@pytest.fixture
def run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a command line in an input's folder, with a store of its own."""
    monkeypatch.setenv("EMBEDSTORE_URI", str(tmp_path / "store"))

    def ran(folder: str, line: str) -> Any:
        monkeypatch.chdir(data / "inputs" / folder)
        return call_command(*shlex.split(line))

    return ran


def rows(tmp_path: Path, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(r.values()) for r in query_of(str(tmp_path / "store"), sql)]


BY_LABEL = "select label, count(*)::int as n from annotations group by all order by all"
CASES = "select distinct case_id from annotations order by all"


def suggested(run: Any, folder: str, line: str) -> str:
    """Return the command that the message of a refused one gives, after trying that it is."""
    refused = run(folder, line)
    assert refused.code == 1
    assert "from names and values this may be it" in refused.err
    command: str = refused.err.strip().splitlines()[-1].strip()
    assert command.startswith(line)
    return command


TABLES = {
    "31-midog25-table": ("training.csv", {"AMF": 4, "NMF": 4}, 4),
    "32-octo-table": ("labels.csv", {"atypical": 4, "normal": 4}, 4),
    "33-atnorm-table": ("labels.csv", {"AMF": 4, "NMF": 4}, 8),
    "34-mhist-table": ("annotations.csv", {"HP": 4, "SSA": 4}, 8),
}


@pytest.mark.parametrize("folder", TABLES)
def test_the_command_that_a_refusal_gives_reads_the_table(
    run: Any, tmp_path: Path, folder: str
) -> None:
    file, labels, n_cases = TABLES[folder]
    line = f"embedstore add d --annotations {file} --slides images"
    done = run(folder, suggested(run, folder, line))
    assert done.code == 0, done.err
    assert dict(rows(tmp_path, BY_LABEL)) == labels
    assert len(rows(tmp_path, CASES)) == n_cases
    kinds = "select distinct kind, status, width from slides"
    assert {r[:2] for r in rows(tmp_path, kinds)} == {("patch", "ok")}


def test_31_and_33_votes_and_domains(run: Any, tmp_path: Path) -> None:
    line = "embedstore add d --annotations training.csv --slides images"
    assert run("31-midog25-table", suggested(run, "31-midog25-table", line)).code == 0
    votes = "select votes as v from annotations where slide = '1.png'"
    assert rows(tmp_path, votes) == [(["AMF", "NMF", "AMF"],)]
    assert rows(tmp_path, "select count(distinct domain)::int as n from annotations") == [(2,)]
    line = "embedstore add e --annotations labels.csv --slides images"
    assert run("33-atnorm-table", suggested(run, "33-atnorm-table", line)).code == 0
    votes = "select votes as v from annotations where dataset = 'e' and slide = '000.png'"
    assert rows(tmp_path, votes) == [(["NMF", "AMF", "AMF", "AMF", "AMF"],)]


def test_34_the_split_is_declared(run: Any, tmp_path: Path) -> None:
    line = "embedstore add d --annotations annotations.csv --slides images"
    assert run("34-mhist-table", suggested(run, "34-mhist-table", line)).code == 0
    by_split = "select split, count(*)::int as n from annotations group by all order by all"
    assert rows(tmp_path, by_split) == [("test", 2), ("train", 6)]


def test_35_a_table_without_names_an_image(run: Any, tmp_path: Path) -> None:
    line = "embedstore add d --annotations annotations --slides images"
    command = suggested(run, "35-ocelot-folder", line)
    assert command.endswith("--columns x,y,label")
    assert run("35-ocelot-folder", f"{command} --label 1=a --label 2=b --positive b").code == 0
    centres = "select x_l0, y_l0, category from annotations where slide = '001' order by all"
    assert rows(tmp_path, centres) == [
        (49.0, 81.0, "1"),
        (84.0, 185.0, "1"),
        (145.0, 449.0, "2"),
        (396.0, 238.0, "2"),
        (444.0, 443.0, "1"),
    ]
    assert rows(tmp_path, "select count(*)::int as n from annotations") == [(11,)]


def test_36_boxes_by_their_corners_and_the_case_in_the_name(run: Any, tmp_path: Path) -> None:
    line = "embedstore add d --annotations csv --slides rgb"
    command = suggested(run, "36-nucls-boxes", line)
    assert "'main_classification' or 'super_classification'" in run("36-nucls-boxes", line).err
    assert run("36-nucls-boxes", command).code == 0
    centres = "select case_id, x_l0, y_l0 from annotations order by all"
    assert rows(tmp_path, centres) == [
        ("XX-0001", 124.0, 79.0),
        ("XX-0001", 133.0, 127.0),
        ("XX-0001", 136.0, 236.0),
        ("XX-0001", 246.0, 128.0),
        ("XX-0002", 75.0, 194.0),
        ("XX-0002", 97.0, 55.0),
        ("XX-0002", 179.0, 185.0),
        ("XX-0002", 240.0, 194.0),
    ]


PACKED = {
    "37-pcam-h5": ("--annotations . --label 0=a --label 1=b --positive b", 96, {"a": 4, "b": 4}),
    "39-hf-parquet": (
        "--annotations data --label normal=a --label tumour=b --positive b",
        48,
        {"a": 4, "b": 4},
    ),
    "40-image-arrays": (
        "--annotations fold1 --label Breast=a --label Colon=b --positive b",
        32,
        {"a": 3, "b": 3},
    ),
}


@pytest.mark.parametrize("folder", PACKED)
def test_images_in_arrays_are_patches_that_can_be_embedded(
    run: Any, tmp_path: Path, folder: str
) -> None:
    options, size, labels = PACKED[folder]
    assert run(folder, f"embedstore add d {options}").code == 0
    assert dict(rows(tmp_path, BY_LABEL)) == labels
    assert rows(tmp_path, "select distinct width, height, status from slides") == [
        (size, size, "ok")
    ]
    weights = "--weights timm:test_resnet=random --patch-px 32"
    assert run(folder, f"embedstore ingest d --model timm:test_resnet {weights}").code == 0
    n = "select count(distinct vector)::int as n from embeddings"
    assert rows(tmp_path, n) == [(sum(labels.values()),)]


def test_37_the_split_is_in_the_name_of_the_file(run: Any, tmp_path: Path) -> None:
    assert run("37-pcam-h5", f"embedstore add d {PACKED['37-pcam-h5'][0]}").code == 0
    by_split = "select split, label, count(*)::int as n from annotations group by all order by all"
    assert rows(tmp_path, by_split) == [
        ("test", "a", 1),
        ("test", "b", 1),
        ("train", "a", 3),
        ("train", "b", 3),
    ]


def test_38_a_level_of_the_folders_is_the_case(run: Any, tmp_path: Path) -> None:
    labels = "--label malignant=malignant --label benign=benign --positive malignant"
    line = f"embedstore add d --annotations breast {labels}"
    assert "folder3 (4: SOB_B_A_14-1002AB, ...)" in run("38-breakhis-folders", line).err
    line += " --case-from folder3 --column magnification=folder4"
    done = run("38-breakhis-folders", f"{line} --store {tmp_path / 'store'}2")
    assert done.code == 0, done.err
    uri = f"{tmp_path / 'store'}2"
    cases = {r["case_id"] for r in query_of(uri, CASES)}
    assert cases == {
        "SOB_M_DC_14-1001",
        "SOB_B_A_14-1002AB",
        "SOB_M_DC_14-1003",
        "SOB_B_F_14-1004",
    }
    scale = "select distinct json_extract_string(attributes, '$.magnification') as m from slides"
    assert {r["m"] for r in query_of(uri, scale)} == {"40X", "100X"}


def test_06_what_x_and_y_of_a_box_are_is_asked(run: Any, tmp_path: Path) -> None:
    line = "embedstore add d --annotations boxes.csv --slides slides"
    refused = run("06-csv-corner-boxes", line)
    assert refused.code == 1
    assert "centred on (200, 180) or on (180, 160); say --box corner or --box" in refused.err
    assert run("06-csv-corner-boxes", f"{line} --box corner").code == 0
    centres = "select x_l0, y_l0 from annotations order by all"
    assert rows(tmp_path, centres) == [
        (200.0, 180.0),
        (260.0, 430.0),
        (420.0, 220.0),
        (480.0, 470.0),
        (640.0, 300.0),
        (650.0, 150.0),
    ]


def test_a_dry_run_says_what_would_be_and_writes_nothing(run: Any, tmp_path: Path) -> None:
    done = run("35-ocelot-folder", f"{_DRY} --dry-run")
    assert done.code == 0, done.err
    assert "would be registered" in done.out
    assert "11 annotations on 2 slides" in done.err
    assert "nothing was written" in done.err
    assert not (tmp_path / "store").exists()


_DRY = (
    "embedstore add d --annotations annotations --slides images --columns x,y,label "
    "--label 1=a --label 2=b --positive b"
)
