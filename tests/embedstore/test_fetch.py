"""`fetch`: whole, checked and resumed, from servers that answer as the archives' interfaces do."""

import csv
import io
import json
import os
import random
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore import Store
from embedstore.archives import fetch as fetching
from embedstore.archives import http
from embedstore.archives.catalogue import PUBLIC
from embedstore.archives.clients import ARCHIVES
from embedstore.archives.planning import catalogue, plan
from embedstore.archives.tables import TABLES
from embedstore.errors import EmbedstoreError, UsageError
from tests.making.archives import Archives, archives
from tests.making.commands import BIN, call_command, outside
from tests.making.slides import write_slide
from tests.making.stores import query_of

SLIDES = [f"{n:03d}.tiff" for n in (1, 2, 3, 10, 11, 20, 100)]


def tiff(folder: Path, seed: int) -> bytes:
    path = folder / f"{seed}.tiff"
    rng = np.random.default_rng(seed)
    write_slide(path, rng.integers(0, 255, (300, 300, 3), dtype=np.uint8))
    return path.read_bytes()


def midog_json() -> bytes:
    images = [
        {"id": k, "file_name": name, "width": 300, "height": 300, "tumor_type": ("a", "b")[k % 2]}
        for k, name in enumerate(SLIDES)
    ]
    annotations = [
        {"id": 10 * k + j, "image_id": k, "category_id": 1 + j % 2, "bbox": [c, c, c + 50, c + 50]}
        for k in range(len(SLIDES))
        for j, c in enumerate((60, 90, 120, 150))
    ]
    categories = [{"id": 1, "name": "mitotic figure"}, {"id": 2, "name": "not mitotic figure"}]
    return json.dumps(
        {"images": images, "annotations": annotations, "categories": categories}
    ).encode()


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("tiffs")
    return {name: tiff(folder, k) for k, name in enumerate(SLIDES)}


@pytest.fixture
def held(contents: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Archives]:
    """MIDOG++ of seven slides, in the archives that have it."""
    with archives() as here:
        here.files["figshare", "6615571"] = dict(reversed(contents.items())) | {"read.me": b"-"}
        table = "Slide;Tumor;Scanner;Dataset\n" + "".join(
            f"{int(s[:3])};x;Hamamatsu XR;training\n" for s in SLIDES
        )
        here.files["github", "DeepMicroscopy/MIDOGpp"] = {
            "databases/MIDOG++.json": midog_json(),
            "datasets_xvalidation.csv": table.encode(),
            "training.py": b"print()",
        }
        for name, value in here.env().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(http, "wait", lambda seconds: None)
        yield here


def below(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != fetching.STATE
    }


def whole(contents: dict[str, bytes], names: list[str] = SLIDES) -> dict[str, bytes]:
    return {f"images/{n}": contents[n] for n in names}


def test_from_nothing_to_a_dataset_in_the_store(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    store = ("--store", tmp_path / "s")
    words = ("embedstore", "fetch", "midog++", "--dest", tmp_path / "d", "--yes", *store)
    done = call_command(*words, "--json")
    assert done.code == 0, done.err
    there = below(tmp_path / "d")
    assert {k: v for k, v in there.items() if k.startswith("images/")} == whole(contents)
    assert there["MIDOG++.json"] == midog_json()
    assert set(there) == {*whole(contents), "MIDOG++.json", "datasets_xvalidation.csv"}
    for said in (
        "licence: CC0",
        "licence: MIT",
        "cite: Doe 2023",
        "commit c0ffee",
        "doi 10.1038/s41597",
    ):
        assert said in done.err
    assert done.err.index("licence") < done.err.index("files fetched")
    rows = query_of(
        str(tmp_path / "s"),
        "select count(*) as n, count(distinct slide) as s, "
        "min(scanner) as c from annotations where dataset = 'midog++'",
    )
    assert rows == [{"n": 28, "s": 7, "c": "Hamamatsu XR"}]
    n = len(held.asked)
    again = call_command(*words)
    assert "0 files fetched" in again.err
    assert "9 were there" in again.err
    assert not [p for p, _ in held.asked[n:] if "/get/" in p or "/raw/" in p]
    model = ("--model", "timm:test_vit")
    weights = ("--weights", "timm:test_vit=random", "--patch-px", 64)
    assert call_command("embedstore", "ingest", "midog++", *model, *weights, *store).code == 0
    assert call_command("probes", "paper", "midog++", *model, "--plan", *store).code == 0


@pytest.mark.parametrize(
    ("only", "names"),
    [
        ("3 slides", SLIDES[:3]),
        ("1", SLIDES[:1]),
        ("1*.tiff", ["100.tiff"]),
        ("*0.tiff", ["010.tiff", "020.tiff", "100.tiff"]),
        ("99 slides", SLIDES),
    ],
)
def test_only_some_slides(
    held: Archives, contents: dict[str, bytes], tmp_path: Path, only: str, names: list[str]
) -> None:
    done = call_command(
        "embedstore",
        "fetch",
        "midog++",
        "--only",
        only,
        "--dest",
        tmp_path / "d",
        "--no-add",
        "--yes",
        "--json",
    )
    there = {k: v for k, v in below(tmp_path / "d").items() if k.startswith("images/")}
    assert there == whole(contents, names)
    assert done.json()[0]["fetched"] == len(names) + 2
    assert (f"{7 - len(names)} images are left out" in done.err) == (len(names) < 7)


def test_nobody_accepts_a_licence_unasked(held: Archives, tmp_path: Path) -> None:
    done = call_command("embedstore", "fetch", "midog++", "--dest", tmp_path / "d")
    assert done.code == 2
    assert "give --yes" in done.err
    assert "licence: CC0" in done.err
    assert not (tmp_path / "d").exists()
    with pytest.raises(UsageError, match="licence: CC0"):
        Store(tmp_path / "s").fetch("midog++", dest=tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_a_line_that_breaks_is_gone_on_with(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    held.breaks_after, held.n_breaks = 10_000, 3
    fetching.fetch(plan("midog++", "1"), tmp_path / "d")
    assert below(tmp_path / "d")["images/001.tiff"] == contents["001.tiff"]
    ranges = [r for s in SLIDES for r in held.sent(f"//{s}")] + held.sent("MIDOG++.json")
    assert "bytes=10000-" in ranges


def test_a_server_without_ranges_begins_again(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    held.no_ranges, held.breaks_after, held.n_breaks = True, 10_000, 1
    told: list[tuple[int, int]] = []
    asked = plan("midog++", "1")
    fetching.fetch(asked, tmp_path / "d", lambda *n: told.append(n))
    assert below(tmp_path / "d")["images/001.tiff"] == contents["001.tiff"]
    assert told[-1] == (asked.n_bytes, asked.n_bytes)


def test_what_is_wrong_twice_is_not_kept(held: Archives, tmp_path: Path) -> None:
    held.wrong = {"//001.tiff"}
    with pytest.raises(EmbedstoreError, match=r"001\.tiff came twice .*checksum"):
        fetching.fetch(plan("midog++", "2"), tmp_path / "d")
    assert len(held.sent("//001.tiff")) == 2
    assert "images/001.tiff" not in below(tmp_path / "d")
    assert not list((tmp_path / "d").rglob(f"*{http.PART}")) or "002" in str(
        list((tmp_path / "d").rglob(f"*{http.PART}"))
    )
    held.wrong = set()
    fetching.fetch(plan("midog++", "2"), tmp_path / "d")
    assert "images/001.tiff" in below(tmp_path / "d")


def test_a_busy_archive_is_asked_again_and_one_that_is_gone_is_named(
    held: Archives, tmp_path: Path
) -> None:
    held.busy = 3
    assert plan("midog++").n_bytes
    held.busy = 99
    with pytest.raises(EmbedstoreError, match="answers 503"):
        plan("midog++")
    held.busy = 0
    del held.files["figshare", "6615571"]
    with pytest.raises(EmbedstoreError, match="collections/6615571 answers 404"):
        plan("midog++")


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDSTORE_FIGSHARE", "http://127.0.0.1:9")
    monkeypatch.setattr(http, "wait", lambda seconds: None)
    with pytest.raises(EmbedstoreError, match="cannot be reached .* goes on where it stopped"):
        plan("midog++")
    monkeypatch.setenv("EMBEDSTORE_FIGSHARE", "file:///etc")
    with pytest.raises(EmbedstoreError, match="no address"):
        plan("midog++")


def test_what_was_spoilt_on_the_disk_comes_again(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    asked = plan("midog++", "2")
    fetching.fetch(asked, tmp_path / "d")
    spoilt = tmp_path / "d" / "images" / "001.tiff"
    spoilt.write_bytes(b"x" + spoilt.read_bytes()[1:])
    os.utime(spoilt, ns=(1, 1))
    n = len(held.sent("//002.tiff"))
    done = fetching.fetch(asked, tmp_path / "d")
    assert (done.n_new, done.n_there) == (1, 3)
    assert spoilt.read_bytes() == contents["001.tiff"]
    assert len(held.sent("//002.tiff")) == n


def test_what_was_brought_by_other_means_is_checked_and_kept(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "d" / "images").mkdir(parents=True)
    (tmp_path / "d" / "images" / "001.tiff").write_bytes(contents["001.tiff"])
    fetching.fetch(plan("midog++", "2"), tmp_path / "d")
    assert not held.sent("//001.tiff")
    assert held.sent("//002.tiff")


def test_a_process_killed_again_and_again_goes_on(
    held: Archives, contents: dict[str, bytes], tmp_path: Path
) -> None:
    """No byte that is there comes again; what is whole is whole."""
    large = random.Random(1).randbytes(3_000_000)
    held.files["figshare", "6615571"]["001.tiff"] = large
    held.pause = 0.01
    words = ["fetch", "midog++", "--only", "1", "--dest", tmp_path / "d", "--no-add", "--yes"]
    for _ in range(4):
        running = subprocess.Popen(
            [str(BIN / "embedstore"), *map(str, words)],
            env=outside(),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        part = tmp_path / "d" / "images" / f"001.tiff{http.PART}"
        before = part.stat().st_size if part.exists() else 0
        end = time.monotonic() + 60
        while time.monotonic() < end and running.poll() is None:
            if part.exists() and part.stat().st_size > before + 200_000:
                break
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
    held.pause = 0
    assert call_command("embedstore", *words).code == 0
    assert below(tmp_path / "d")["images/001.tiff"] == large
    starts = [int(r[6:-1]) if r else 0 for r in held.sent("//001.tiff")]
    assert len(starts) >= 3
    assert starts == sorted(starts)
    assert starts[-1] > 400_000


@pytest.mark.parametrize(
    "name", ["../evil.tiff", "/evil.tiff", "a/../../evil.tiff", "a\\evil.tiff"]
)
def test_a_name_that_leaves_the_folder_is_not_fetched(
    held: Archives, tmp_path: Path, name: str
) -> None:
    held.files["figshare", "6615571"][name] = b"evil"
    with pytest.raises(EmbedstoreError, match="which is not fetched"):
        plan("midog++")


def test_a_disk_that_is_too_small_is_said_before(
    held: Archives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(EmbedstoreError, match="0.0 GB free"):
        fetching.fetch(plan("midog++"), tmp_path / "d")
    assert not [p for p, _ in held.asked if "/get/" in p]


@pytest.mark.parametrize(
    ("only", "said"),
    [("0", "at least 1"), ("", "give a number"), ("x*.tiff", "fits none of 7 images")],
)
def test_only_what_there_is(held: Archives, only: str, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        plan("midog++", only)


def test_an_archive_that_has_changed_is_named(
    held: Archives, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.files["github", "DeepMicroscopy/MIDOGpp"].pop("databases/MIDOG++.json")
    held.files["github", "DeepMicroscopy/MIDOGpp"].pop("datasets_xvalidation.csv")
    with pytest.raises(EmbedstoreError, match="has no files databases/MIDOG"):
        plan("midog++")
    monkeypatch.setattr(held, "answer", lambda path, query: {"other": 1})
    with pytest.raises(EmbedstoreError, match="form that is not known here"):
        plan("midog++")


def test_a_pointer_of_lfs_is_no_file(held: Archives, tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    held.files["github", "DeepMicroscopy/MIDOGpp"]["databases/MIDOG++.json"] = pointer
    with pytest.raises(EmbedstoreError, match="a pointer of Git LFS"):
        fetching.fetch(plan("midog++", "1"), tmp_path / "d")


# ------------------------------------------------------------------ datasets of patches


def png(seed: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_ami_br_has_slides_votes_and_labels(held: Archives, tmp_path: Path) -> None:
    header = "slide,dataset,uid,x,y,expert1_label,expert2_label,expert1_atypical,expert2_atypical,"
    header += "expert3_atypical,majority_atypical\n"
    table, files = "," + header, {}
    for uid in range(12):
        is_odd = uid % 3 == 0
        table += (
            f"{uid},{uid % 4:03d}.tiff,MIDOG21,{uid},5,5,x,y,{is_odd},{is_odd},False,{is_odd}\n"
        )
        label = "atypical" if is_odd else "normal"
        files[f"patches/{label}/MIDOG21_{uid}.png"] = png(uid)
    table += "12,009.tiff,TUPAC16,99,5,5,x,y,True,True,True,True\n"  # of which there is no patch
    held.files["github", "DeepMicroscopy/AMi-Br"] = {
        **files,
        "AMI-BR.csv": table.encode(),
        "a.py": b"",
    }
    store = ("--store", tmp_path / "s")
    done = call_command("embedstore", "fetch", "ami-br", "--dest", tmp_path / "d", "--yes", *store)
    assert done.code == 0, done.err
    rows = query_of(
        str(tmp_path / "s"),
        "select label, count(*) as n, count(distinct case_id) as c, any_value(len(votes)) as v "
        "from annotations group by 1 order by 1",
    )
    assert rows == [
        {"label": "atypical", "n": 4, "c": 4, "v": 3},
        {"label": "normal", "n": 8, "c": 4, "v": 3},
    ]
    positive = query_of(str(tmp_path / "s"), "select positive_label as p from datasets")
    assert positive == [{"p": "atypical"}]


def test_only_some_patches_are_of_every_class(held: Archives, tmp_path: Path) -> None:
    files = {f"AtNorM-Br/{k}/{n}.png": png(n) for k in ("Normal", "Atypical") for n in range(6)}
    held.files["github", "DeepMicroscopy/AMi-Br_Benchmark"] = files
    done = call_command(
        "embedstore",
        "fetch",
        "atnorm-br",
        "--only",
        "4",
        "--dest",
        tmp_path / "d",
        "--yes",
        "--json",
        "--store",
        tmp_path / "s",
    )
    rows = done.json()
    assert {r["label"]: r["n_annotations"] for r in rows} == {"atypical": 2, "normal": 2}


def test_a_zip_is_unpacked_once_and_its_table_read(held: Archives, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        for n in range(6):
            z.writestr(f"MIDOG25_Binary_Classification_Train_Set/{n}.png", png(n))
    rows = [
        {"image_id": f"{n}.png", "majority": ("AMF", "NMF")[n % 2], "slide": f"s{n % 3}"}
        for n in range(7)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    held.files["zenodo", "15188326"] = {
        "MIDOG25_Binary_Classification_Train_Set.zip": packed.getvalue(),
        "MIDOG25_Atypical_Classification_Train_Set.csv": table.getvalue().encode(),
    }
    words = (
        "embedstore",
        "fetch",
        "midog2025-t2",
        "--dest",
        tmp_path / "d",
        "--yes",
        "--json",
        "--store",
        tmp_path / "s",
    )
    done = call_command(*words)
    assert {r["label"]: r["n_annotations"] for r in done.json()} == {"atypical": 3, "normal": 3}
    image = tmp_path / "d" / "MIDOG25_Binary_Classification_Train_Set" / "0.png"
    stamp = image.stat().st_mtime_ns
    assert call_command(*words).code == 0
    assert image.stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "..\\evil.png"])
def test_a_zip_that_leaves_its_folder_is_not_unpacked(
    held: Archives, tmp_path: Path, name: str
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        z.writestr(name, b"evil")
    held.files["zenodo", "8417503"] = {"ocelot.zip": packed.getvalue()}
    with pytest.raises(EmbedstoreError, match="which is not unpacked"):
        fetching.fetch(plan("ocelot"), tmp_path / "d")
    assert not list(tmp_path.rglob("evil*"))


# ------------------------------------------------------------------------- the catalogue


def test_the_list_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ZENODO", "FIGSHARE", "GITHUB"):
        monkeypatch.setenv(f"EMBEDSTORE_{name}", "http://127.0.0.1:9")
    rows = call_command("embedstore", "fetch", "--list", "--json").json()
    assert [r["name"] for r in rows] == list(PUBLIC)
    assert rows == catalogue()
    shown = call_command("embedstore", "fetch", "--list").out
    assert all(name in shown for name in PUBLIC)
    assert "null" not in shown


@pytest.mark.parametrize("name", PUBLIC)
def test_an_entry_is_whole(name: str) -> None:
    of = PUBLIC[name]
    assert of.about
    assert of.citation
    assert of.licence
    assert all(s.archive in ARCHIVES and s.patterns for s in of.sources)
    assert of.add or of.note
    assert set(of.add) <= {"annotations", "slides", "slide_table"}
    assert of.table is None or of.table in TABLES


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    done = call_command("embedstore", "fetch", "midog+")
    assert done.code == 2
    assert "did you mean 'midog++'?" in done.err
