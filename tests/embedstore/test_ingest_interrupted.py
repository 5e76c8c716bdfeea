"""`ingest` goes on after a kill, and one bad slide stops nothing."""

import shutil
import signal
import subprocess
from pathlib import Path

from embedstore.add import AddOptions, add
from embedstore.ingest import IngestOptions, ingest
from embedstore.reading.status import problems, status
from embedstore.store import Store
from tests.making.held import FLUSH, TAKEN, Hold, start_held
from tests.making.ingests import RANDOM, RESNET
from tests.making.slides import TinyDataset, make_tiny
from tests.making.stores import query


def test_killed_at_any_moment_it_goes_on(tiny: TinyDataset, tmp_path: Path) -> None:
    """Killed, begun again and interrupted, begun again: it ends as if nothing had been."""
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store, before = Store.open(uri), 0
    words = ["embedstore", "ingest", "tiny", "--model", RESNET, "--weights", f"{RESNET}=random"]
    words += ["--batch-size", "1", "--workers", "1", "--store", uri]
    hold = Hold(TAKEN, n=20, settings=FLUSH)  # eight are written, eight perhaps, four are not
    counts = "select count(*) as n, count(distinct annotation_id) as d from embeddings"
    for how in (signal.SIGKILL, signal.SIGINT):
        process = start_held(words, hold, tmp_path / "mark", stderr=subprocess.PIPE, text=True)
        process.send_signal(how)
        _, said = process.communicate(timeout=60)
        (row,) = query(store, counts)
        assert before + 8 <= row["n"] < 48
        assert row["n"] == row["d"]
        if how == signal.SIGINT:
            assert process.returncode == 130
            assert f"interrupted; {row['n'] - before:,} embeddings stored" in said
        before = row["n"]
    (report,) = ingest(store, "tiny", [RESNET], IngestOptions()).models
    assert (report.n_before, report.n_embedded, report.n_left) == (row["n"], 48 - row["n"], 0)
    assert query(store, counts) == [{"n": 48, "d": 48}]


def test_a_bad_slide_is_set_aside_and_tried_again(data: Path, tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "t")
    good = (tiny.slides / "a1.tiff").read_bytes()
    shutil.copy(data / "wsi/broken.svs", tiny.slides / "a1.tiff")
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    report = ingest(store, "tiny", [RESNET], RANDOM)
    assert (report.models[0].n_embedded, report.models[0].n_left) == (36, 12)
    assert list(report.set_aside) == ["a1.tiff"]
    assert [(p["slide"], p["status"], p["n_annotations"]) for p in problems(store, "tiny")] == [
        ("a1.tiff", "unreadable", 12)
    ]
    assert [(r["done"], r["missing"], r["set_aside"]) for r in status(store)] == [(36, 0, 12)]
    (tiny.slides / "a1.tiff").write_bytes(good)
    report = ingest(store, "tiny", [RESNET], RANDOM)
    assert (report.models[0].n_embedded, report.set_aside) == (12, {})
    assert problems(store, "tiny") == []


def test_a_slide_that_breaks_in_the_middle_keeps_what_was_read(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "t")
    uri = str(tmp_path / "s")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    path = tiny.slides / "b0.tiff"
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: len(content) // 2])  # it opens, but half of its tiles are gone
    store = Store.open(uri)
    report = ingest(store, "tiny", [RESNET], RANDOM)
    assert list(report.set_aside) == ["b0.tiff"]
    assert report.models[0].n_embedded >= 36
    assert report.models[0].n_embedded + report.models[0].n_left == 48
    path.write_bytes(content)
    assert ingest(store, "tiny", [RESNET], RANDOM).models[0].n_left == 0
