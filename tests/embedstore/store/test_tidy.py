"""Former versions go when nobody reads them, and not before."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows
from embedstore.store.tidy import compact
from tests.making.commands import ROOT
from tests.making.stores import keyed_vectors

TABLE = model_table("m")
N, DIM = 2000, 256
COUNT = "select count(vector[1]) as n from embeddings"


@pytest.fixture
def written(tmp_path: Path) -> Store:
    """A store with a model's table, written in ten parts."""
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table("m", DIM)
    for k in range(0, N, N // 10):
        ids = [f"{i}" for i in range(k, k + N // 10)]
        store.merge(TABLE, keyed_vectors(ids, np.full((len(ids), DIM), k)))
    return store


def size(store: Store) -> float:
    """What the table takes on disk, by what its vectors hold."""
    files = (Path(store.uri) / f"{TABLE}.lance").rglob("*")
    return sum(f.stat().st_size for f in files if f.is_file()) / (N * DIM * 4)


def test_alone_the_space_of_former_versions_is_given_back(written: Store) -> None:
    compact(written, TABLE)
    assert size(written) < 1.1
    assert fetch_rows(connect(written), COUNT) == [{"n": N}]


def test_a_connection_of_the_same_process_reads_on(written: Store) -> None:
    con = connect(written)
    compact(written, TABLE)
    assert size(written) > 1.9  # what it is pinned to is still there
    assert fetch_rows(con, COUNT) == [{"n": N}]
    del con
    more = keyed_vectors(["more"], np.zeros((1, DIM)))
    written.merge(TABLE, more)
    compact(written, TABLE)
    assert size(written) < 1.1


READER = """
import sys
sys.path.insert(0, sys.argv[2])
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
con = connect(Store.open(sys.argv[1]))
print("pinned", flush=True)
sys.stdin.readline()
print(fetch_rows(con, sys.argv[3])[0]["n"], flush=True)
"""


def test_another_process_reads_on_and_once_it_ends_the_space_is_given_back(written: Store) -> None:
    words = [sys.executable, "-c", READER, written.uri, str(ROOT), COUNT]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdin
        assert reader.stdout
        assert reader.stdout.readline() == "pinned\n"
        compact(written, TABLE)
        reader.stdin.write("\n")
        reader.stdin.flush()
        assert reader.stdout.readline() == f"{N}\n"
    assert reader.returncode == 0
    written.merge(TABLE, keyed_vectors(["more"], np.zeros((1, DIM))))
    compact(written, TABLE)
    assert size(written) < 1.1
