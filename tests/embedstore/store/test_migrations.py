"""Stores of an older format: read as they are, upgraded when written, whatever happens meanwhile.

inputs/store-format-3.tar.xz was written by the program at dceb672: `add` of make_tiny(per_label=6),
`ingest` of timm:test_resnet with random weights, `probes run` by uni and knn on folds 0 and 1,
`probes compare`, and one `e2e run`, all without kept patches. The e2e model itself is left out.
"""

import hashlib
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.asking import run_sql
from embedstore.store.layout import FORMAT, TABLES, model_schema, views_schema
from probes.reports import report
from tests.making.commands import ROOT, call_command
from tests.making.slides import make_tiny

OLD = Path(__file__).parent / "inputs" / "store-format-3.tar.xz"
MODEL = "timm:test_resnet"


@pytest.fixture
def old(tmp_path: Path) -> str:
    """A store as dceb672 wrote it."""
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    return str(tmp_path / "store")


def contents(folder: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def counts(store: Store) -> dict[str, int]:
    names = ("annotations", "embeddings", "splits", "results", "predictions", "comparisons")
    return {n: run_sql(store, f"select count(*) as n from {n}")["n"][0].as_py() for n in names}


def test_the_format_has_the_number_of_its_layout() -> None:
    """Where this fails, the layout has changed: raise FORMAT, then write the new digest here."""
    layout = {**TABLES, "model": model_schema(1), "views": views_schema(1)}
    text = repr([(name, [(f.name, str(f.type)) for f in s]) for name, s in layout.items()])
    digests = {8: "2bd11b18fc45e208"}
    assert digests[FORMAT] == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_an_old_store_is_read_and_reported_without_a_change(old: str, tmp_path: Path) -> None:
    before = contents(old)
    store = Store.open(old)
    assert counts(store) == {
        "annotations": 48,
        "embeddings": 48,
        "splits": 2,
        "results": 35,
        "predictions": 85,
        "comparisons": 1,
    }
    sql = "select count(*) as n, count(pixels) as pixels from results where method = 'e2e'"
    assert run_sql(store, sql).to_pylist() == [{"n": 7, "pixels": 0}]
    assert call_command("embedstore", "status", "--json", "--store", old).json()[0]["done"] == 48
    report(store, [], tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "timm:test_resnet" in page
    assert "are a former version" in page  # its intervals are percentiles
    with pytest.raises(EmbedstoreError, match="older store format and is open for reading"):
        store.merge("datasets", [{"dataset": "x"}])
    assert contents(old) == before


def test_an_old_store_is_upgraded_and_goes_on(old: str, tmp_path: Path) -> None:
    """Nothing is lost or done again: slides added, a second model, probes, training, comparison."""
    before = counts(Store.open(old))
    tiny = make_tiny(tmp_path / "tiny", per_label=6)
    at = {"EMBEDSTORE_URI": old}
    add = ["embedstore", "add", "tiny", "--annotations", tiny.csv, "--slides", tiny.slides]
    added = call_command(*add, env=at)
    assert added.code == 0, added.err
    assert "0 of them new" in added.err
    store = Store.open(old)
    assert store.is_current
    assert counts(store) == before
    again = call_command("probes", "run", "tiny", "--fold", 0, "--fold", 1, env=at)
    assert "0 fits done, 2 recorded before" in again.err
    small = ["--backbone", "test_resnet", "--weights", "random", "--patch-px", 32, "--fold", 0]
    short = ["--epochs", 1, "--min-steps", 2, "--device", "cpu"]
    trained = call_command("e2e", "run", "tiny", *small, *short, env=at)
    assert "0 runs trained, 1 recorded before" in trained.err
    model = ["--model", "timm:test_vit", "--weights", "timm:test_vit=random", "--patch-px", 32]
    assert call_command("embedstore", "ingest", "tiny", *model, env=at).code == 0
    ran = call_command("probes", "run", "tiny", "--fold", 0, env=at)
    assert "1 fits done, 1 recorded before" in ran.err
    assert call_command("probes", "compare", "tiny", env=at).code == 0
    assert call_command("probes", "report", "-o", tmp_path / "r", env=at).code == 0


KILLED = """
import os, signal, sys
from embedstore.store import Store, migrations
name, n = sys.argv[2], int(sys.argv[3])
owner = Store if hasattr(Store, name) else migrations
real, calls = getattr(owner, name), 0
def kill(*args, **kwargs):
    global calls
    calls += 1
    if calls == n and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*args, **kwargs)
    if calls == n:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, kill)
Store.open(sys.argv[1], write=True)
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("name", "n"),
    [("create_table", 1), ("add_columns", 11), ("update_columns", 1), ("set_format", 1)],
)
def test_killed_at_any_moment_an_upgrade_is_completed(
    old: str, name: str, n: int, when: str
) -> None:
    before = counts(Store.open(old))
    killed = subprocess.run([sys.executable, "-c", KILLED, old, name, str(n), when], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert counts(Store.open(old)) == before  # it can still be read, by this version
    store = Store.open(old, write=True)
    assert counts(store) == before
    assert set(TABLES) <= set(store.tables())
    assert run_sql(store, "from results where method = 'e2e' and pixels is null").num_rows == 0
    for table in ("results", "comparisons"):
        sql = f"select distinct ci_kind from {table} where ci_low is not null"
        assert run_sql(store, sql).to_pylist() == [{"ci_kind": "percentile"}]
    assert store.lance("store").to_table()["format"].to_pylist() == [str(FORMAT)]


OPENED = "import sys; from embedstore.store import Store; Store.open(sys.argv[1], write=True)"


def test_several_processes_may_upgrade_at_once(old: str, tmp_path: Path) -> None:
    before = counts(Store.open(old))
    for n in range(3):
        uri = shutil.copytree(old, tmp_path / f"copy{n}")
        started = [subprocess.Popen([sys.executable, "-c", OPENED, uri], cwd=ROOT) for _ in "abc"]
        assert [p.wait() for p in started] == [0, 0, 0]
        store = Store.open(str(uri))
        assert counts(store) == before
        assert run_sql(store, "from results where method = 'e2e' and pixels is null").num_rows == 0
        assert store.lance("store").to_table()["format"].to_pylist() == [str(FORMAT)]


def test_two_adds_at_once_into_a_new_store_leave_all_of_both(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "tiny", per_label=6)
    for n in range(3):
        uri = tmp_path / f"store{n}"
        add = [sys.executable, "-m", "embedstore", "add"]
        rest = ["--annotations", tiny.csv, "--slides", tiny.slides, "--store", uri]
        words = [[*map(str, [*add, name, *rest])] for name in ("one", "two")]
        started = [
            subprocess.Popen(w, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for w in words
        ]
        said = [p.communicate()[1].decode() for p in started]
        assert [p.returncode for p in started] == [0, 0], said
        sql = "select dataset, count(*) as n from annotations group by 1 order by 1"
        rows = run_sql(Store.open(str(uri)), sql).to_pylist()
        assert rows == [{"dataset": "one", "n": 48}, {"dataset": "two", "n": 48}]
        assert run_sql(Store.open(str(uri)), "from slides").num_rows == 8
