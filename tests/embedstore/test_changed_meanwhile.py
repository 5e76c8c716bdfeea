"""What changes while an ingest runs, or while `add` is killed: nothing of the old is taken for new."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.reading.neighbors import neighbors
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, stale
from probes.slices import Matrix
from tests.making.commands import ROOT, call_command
from tests.making.slides import make_tiny, write_csv, write_slide
from tests.making.stores import query

MODEL = "timm:test_vit"
OPTIONS = IngestOptions(weights={MODEL: "random"}, dtype="float32", name="m", batch_size=8)


def rows_of(csv: Path) -> list[dict[str, str]]:
    head, *lines = csv.read_text().splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    made = make_tiny(tmp_path / "tiny", per_label=6)
    add(str(tmp_path / "s"), "d", made.csv, AddOptions(slides=made.slides))
    return made


@pytest.fixture
def store(tiny: Any, tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "s"))


def moved(tiny: Any, by: float = 64, slides: str = "") -> Path:
    rows = [
        {**r, "x": float(r["x"]) + by * r["slide"].startswith(slides or r["slide"])}
        for r in with_ids(tiny)
    ]
    return write_csv(tiny.csv.with_name("moved.csv"), rows)


def with_ids(tiny: Any) -> list[dict[str, str]]:
    return [{**r, "id": str(n)} for n, r in enumerate(rows_of(tiny.csv))]


@pytest.fixture
def named(tiny: Any, tmp_path: Path) -> Store:
    """A store whose annotations have ids of their own, so that they can move."""
    uri = str(tmp_path / "named")
    table = write_csv(tmp_path / "named.csv", with_ids(tiny))
    add(uri, "d", table, AddOptions(slides=tiny.slides))
    return Store.open(uri)


def vectors(store: Store) -> dict[str, Any]:
    return {r["annotation_id"]: r["vector"] for r in query(store, "select * from m")}


def fresh_vectors(
    tiny: Any, table: Path, tmp_path: Path, options: IngestOptions = OPTIONS
) -> dict[str, Any]:
    uri = str(tmp_path / "fresh")
    add(uri, "d", table, AddOptions(slides=tiny.slides))
    ingest(Store.open(uri), "d", [MODEL], options)
    rows = query(Store.open(uri), f"select * from {options.name}")
    return {r["annotation_id"]: r["vector"] for r in rows}


class During:
    """Something done once, after the n-th batch of an ingest was announced."""

    def __init__(self, n: int, act: Callable[[], Any]) -> None:
        self.n, self.act = n, act

    def __call__(self, done: int, total: int, waited: Any) -> None:
        self.n -= 1
        if self.n == 0:
            self.act()


def test_centres_that_move_during_an_ingest_leave_no_stale_vector(
    named: Store, tiny: Any, tmp_path: Path
) -> None:
    """The last batches of an ingest are written after `add` dropped what was there."""
    table = moved(tiny)
    act = During(2, lambda: add(named.uri, "d", table, AddOptions(slides=tiny.slides)))
    ingest(named, "d", [MODEL], OPTIONS, act)
    store = Store.open(named.uri)
    stored = store.lance(model_table("m")).count_rows()
    assert stored == len(stale(connect(store), "m")) == 48  # written, and known to be of the past
    assert query(store, "from m") == query(store, "from embeddings") == []
    with pytest.raises(EmbedstoreError, match="have no embedding of 'm'"):
        Matrix(store, "m", "d").rows_of(["d/a0.tiff/0"])
    report = ingest(store, "d", [MODEL], OPTIONS)
    assert report.models[0].n_embedded == 48
    assert any("48 annotations have moved" in note for note in report.notes)
    assert stale(connect(Store.open(named.uri)), "m") == []
    again, fresh = vectors(Store.open(named.uri)), fresh_vectors(tiny, table, tmp_path)
    assert all(np.array_equal(again[i], fresh[i]) for i in fresh)


@pytest.mark.parametrize("views", [None, "d4"])
def test_every_reader_passes_over_what_is_stale(
    named: Store, tiny: Any, tmp_path: Path, views: str | None
) -> None:
    options = IngestOptions(**{**vars(OPTIONS), "views": views})
    table = moved(tiny, slides="a0")
    act = During(3, lambda: add(named.uri, "d", table, AddOptions(slides=tiny.slides)))
    ingest(named, "d", [MODEL], options, act)
    store = Store.open(named.uri)
    old = stale(connect(store), "m")
    assert old
    assert all(i.startswith("d/a0.tiff/") for i in old)
    (good,) = query(store, "select annotation_id from m where slide = 'b0.tiff' limit 1")
    rows = neighbors(store, good["annotation_id"], "m", k=100).rows
    assert not {r["annotation_id"] for r in rows} & set(old)
    with pytest.raises(EmbedstoreError, match="has no embedding of model 'm'"):
        neighbors(store, old[0], "m")
    words = ("embedstore", "export", "d", "--model", "m", "--output", tmp_path / "out.parquet")
    assert call_command(*words, "--store", store.uri).code == 0
    file = f"select annotation_id from read_parquet('{tmp_path / 'out.parquet'}')"
    out = call_command("embedstore", "sql", "--files", file, "--json", "--store", store.uri).json()
    assert not {r["annotation_id"] for r in out} & set(old)
    (status,) = call_command("embedstore", "status", "d", "--json", "--store", store.uri).json()
    assert status["missing"] == len(old)
    if views:
        turned = query(store, 'select distinct annotation_id from "m#views"')
        assert not {r["annotation_id"] for r in turned} & set(old)
    ingest(store, "d", [MODEL], options)
    store = Store.open(named.uri)
    fresh = fresh_vectors(tiny, table, tmp_path)
    now = vectors(store)
    assert now.keys() == fresh.keys()
    assert all(np.array_equal(now[i], fresh[i]) for i in fresh)


def test_kept_crops_of_the_place_before_are_not_read(
    named: Store, tiny: Any, tmp_path: Path
) -> None:
    table = moved(tiny)
    act = During(2, lambda: add(named.uri, "d", table, AddOptions(slides=tiny.slides)))
    ingest(named, "d", [MODEL], OPTIONS, act)
    stored = query(Store.open(named.uri), "select count(*) as n from patches")[0]["n"]
    assert stored > 0  # kept after `add` dropped them
    options = IngestOptions(**{**vars(OPTIONS), "name": "n"})
    ingest(Store.open(named.uri), "d", [MODEL], options)
    rows = query(Store.open(named.uri), "select * from n")
    fresh = fresh_vectors(tiny, table, tmp_path, options)
    assert all(np.array_equal(r["vector"], fresh[r["annotation_id"]]) for r in rows)


def other_slide(path: Path) -> Path:
    pixels = np.random.default_rng(99).integers(100, 250, (700, 900, 3), dtype=np.uint8)
    return write_slide(path.with_suffix(".new"), pixels)


def replaced(path: Path) -> None:
    other_slide(path).replace(path)


def overwritten(path: Path) -> None:
    new = other_slide(path)
    path.write_bytes(new.read_bytes())
    new.unlink()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], None]] = {
    "replaced": replaced,
    "overwritten": overwritten,
    "truncated": truncated,
    "deleted": Path.unlink,
    "a folder": a_folder,
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_slide_that_changes_is_set_aside_with_the_reason(
    store: Store, tiny: Any, name: str, when: str
) -> None:
    slide = tiny.slides / "b1.tiff"
    if when == "before":
        CHANGES[name](slide)
        report = ingest(store, "d", [MODEL], OPTIONS)
    else:
        act = During(1, lambda: CHANGES[name](slide))
        report = ingest(store, "d", [MODEL], OPTIONS, act)
    store = Store.open(store.uri)
    assert list(report.set_aside) == ["b1.tiff"]
    why = report.set_aside["b1.tiff"]
    assert "b1.tiff" in why
    assert ("not the file that was added" in why) or name in ("deleted", "truncated", "a folder")
    assert query(store, "select distinct slide from m order by 1") == [
        {"slide": s} for s in ("a0.tiff", "a1.tiff", "b0.tiff")
    ]
    again = ingest(store, "d", [MODEL], OPTIONS)  # it stays aside: only `add` takes another file
    assert again.models[0].n_embedded == 0
    if name in ("replaced", "overwritten"):
        add(store.uri, "d", tiny.csv, AddOptions(slides=tiny.slides))
        assert ingest(Store.open(store.uri), "d", [MODEL], OPTIONS).models[0].n_embedded == 12


def test_all_slides_gone_is_said_slide_by_slide(store: Store, tiny: Any) -> None:
    for slide in tiny.slides.iterdir():
        slide.unlink()
    words = ("--model", MODEL, "--weights", f"{MODEL}=random", "--store", store.uri)
    done = call_command("embedstore", "ingest", "d", *words)
    assert done.code == 1
    assert "none of 4 slides could be read" in done.err
    assert all(f"- {s}.tiff: " in done.err for s in ("a0", "a1", "b0", "b1"))
    assert "restore a copy" not in done.err


KILLED = """
import sys
from pathlib import Path
import embedstore.store.store as module
from embedstore.add import AddOptions, add
n = int(sys.argv[4])
real = {k: getattr(module.Store, k) for k in ("merge", "delete", "update_columns")}
def counted(name):
    def call(self, *args, **kwargs):
        global n
        if n == 0:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
        n -= 1
        return real[name](self, *args, **kwargs)
    return call
for k in real:
    setattr(module.Store, k, counted(k))
add(sys.argv[1], "d", Path(sys.argv[2]), AddOptions(slides=Path(sys.argv[3])))
"""


def test_an_add_that_is_killed_anywhere_says_later_what_moved(
    named: Store, tiny: Any, tmp_path: Path
) -> None:
    """Killed before each of its writes in turn, an add leaves the rest, and the notes, to the next."""
    ingest(named, "d", [MODEL], OPTIONS)
    replaced(tiny.slides / "b1.tiff")
    rows = [
        {**r, "label": "imposter"} if r["slide"] == "a1.tiff" else r
        for r in rows_of(moved(tiny, slides="a0"))
    ]
    table = write_csv(tmp_path / "both.csv", rows)
    n_writes = 0
    for n in range(40):
        uri = shutil.copytree(named.uri, tmp_path / f"killed{n}")
        words = [sys.executable, "-c", KILLED, str(uri), str(table), str(tiny.slides), str(n)]
        code = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).returncode
        report = add(str(uri), "d", table, AddOptions(slides=tiny.slides))
        store = Store.open(str(uri))
        assert stale(connect(store), "m") == []
        labels = query(store, "select distinct slide, label from m where slide = 'a1.tiff'")
        assert {r["label"] for r in labels} == {"non-mitotic figure"}
        left = {r["slide"] for r in query(store, "select distinct slide from m")}
        assert left == {"a1.tiff", "b0.tiff"}
        if code == 0:
            assert not any("moved" in note for note in report.notes)
            break
        assert code == -signal.SIGKILL
        n_writes += 1
        assert any("24 annotations moved (1 slides with another file" in t for t in report.notes), n
        assert any("changed label or domain" in t for t in report.notes), n
    assert n_writes >= 6


def started(words: list[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, text=True)


def test_two_real_processes_leave_no_stale_vector(named: Store, tiny: Any, tmp_path: Path) -> None:
    words = ["embedstore", "ingest", "d", "--model", MODEL, "--weights", f"{MODEL}=random"]
    running = started([*words, "--as", "m", "--dtype", "float32", "--store", named.uri])
    time.sleep(1.5)
    table = moved(tiny)
    given = ["--annotations", str(table), "--slides", str(tiny.slides)]
    adding = started(["embedstore", "add", "d", *given, "--store", named.uri])
    assert (running.wait(120), adding.wait(120)) == (0, 0)
    ingest(Store.open(named.uri), "d", [MODEL], OPTIONS)
    now, fresh = vectors(Store.open(named.uri)), fresh_vectors(tiny, table, tmp_path)
    assert all(np.array_equal(now[i], fresh[i]) for i in fresh)


def test_imported_vectors_are_nobodys_patches(named: Store, tmp_path: Path) -> None:
    """What was imported says nothing of pixels, and stays until its annotation moves."""
    ids = [r["annotation_id"] for r in query(named, "from annotations")]
    np.savez(tmp_path / "v.npz", annotation_id=np.array(ids), vector=np.ones((len(ids), 4), "f4"))
    words = ("embedstore", "import", "d", tmp_path / "v.npz", "--model", "m", "--store", named.uri)
    assert call_command(*words).code == 0
    assert len(query(Store.open(named.uri), "from m")) == 48
