"""The store: rows come back as they went in, exactly once, whoever writes."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.asking import run_sql
from embedstore.store.layout import FORMAT, TABLES, model_of_table, model_schema, model_table
from embedstore.store.tidy import compact
from tests.making.commands import ROOT
from tests.making.slides import write_csv
from tests.making.stores import keyed_vectors


def read(store: Store, model: str) -> dict[str, np.ndarray]:
    table = store.lance(model_table(model)).to_table(columns=["annotation_id", "vector"])
    ids = table["annotation_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return {
        i: np.array(v, dtype=np.float32)
        for i, v in zip(ids, table["vector"].to_pylist(), strict=True)
    }


BATCHES = st.lists(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=6),
        st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3),
        min_size=1,
        max_size=8,
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=15, deadline=None)
@given(batches=BATCHES)
def test_round_trip_keeps_the_first_of_each_key(
    tmp_path_factory: pytest.TempPathFactory, batches: Any
) -> None:
    store = Store.open(str(tmp_path_factory.mktemp("s") / "store"), create=True)
    store.make_model_table("m", 3)
    expected: dict[str, list[float]] = {}
    for batch in batches:
        table = keyed_vectors(list(batch), np.array(list(batch.values())))
        n_new = store.merge(model_table("m"), table, replace=False)
        assert n_new == len(batch.keys() - expected.keys())
        expected = batch | expected
    found = read(store, "m")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], np.array(value, dtype=np.float32))


def test_replace_updates_and_compact_keeps_rows(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table("m", 2)
    for n in range(5):
        store.merge(model_table("m"), keyed_vectors([f"{n}"], np.full((1, 2), n)))
    store.merge(model_table("m"), keyed_vectors(["0", "9"], np.full((2, 2), 7)))
    assert store.stats(model_table("m"))["n_fragments"] > 1
    compact(store, model_table("m"))
    assert store.stats(model_table("m"))["n_fragments"] == 1
    found = read(store, "m")
    assert {k: v[0] for k, v in found.items()} == {"0": 7, "1": 1, "2": 2, "3": 3, "4": 4, "9": 7}


def test_some_columns_can_change_without_touching_the_vector(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table("m", 2)
    store.merge(model_table("m"), keyed_vectors(["a", "b"], np.array([[1, 2], [3, 4]])))
    schema = pa.schema([model_schema(2).field(k) for k in ("annotation_id", "label")])
    update = pa.table({"annotation_id": ["b", "zzz"], "label": ["new", "new"]}, schema=schema)
    assert store.update_columns(model_table("m"), update) == 1
    table = store.lance(model_table("m")).to_table().sort_by("annotation_id").to_pylist()
    assert [(r["annotation_id"], r["label"], r["vector"]) for r in table] == [
        ("a", "x", [1, 2]),
        ("b", "new", [3, 4]),
    ]


WRITER = """
import sys
sys.path.insert(0, ".")
import numpy as np
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.tidy import compact
from tests.making.stores import keyed_vectors
store = Store.open(sys.argv[1])
store.make_model_table("m", 4)
for start in range(0, 400, 40):
    compact(store, model_table("m"))
    ids = [f"k{i}" for i in range(start, start + 40)]
    store.merge(model_table("m"), keyed_vectors(ids, np.full((40, 4), start)), replace=False)
"""


def test_processes_writing_the_same_keys_leave_each_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    store = Store.open(uri, create=True)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, uri]) for _ in range(3)]
    assert [w.wait(120) for w in writers] == [0, 0, 0]
    assert read(store, "m").keys() == {f"k{i}" for i in range(400)}


@settings(max_examples=200)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_table_names_are_legal_and_reversible(name: Any) -> None:
    table = model_table(name)
    assert model_of_table(table) == name
    assert set(table) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


@pytest.mark.parametrize("name", ["timm:resnet18", "hf-hub:owner/name.tag", "a.b", "é"])
def test_any_model_name_makes_a_table(tmp_path: Path, name: str) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table(name, 3)
    store.make_model_table(name, 3)
    assert store.models() == [name]


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(EmbedstoreError, match="no store at"):
        Store.open(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    for create in (True, False):
        with pytest.raises(EmbedstoreError, match="is no store"):
            Store.open(str(tmp_path / "other"), create=create)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.doc"]
    with pytest.raises(EmbedstoreError, match="is a file"):
        Store.open(str(tmp_path / "other" / "thesis.doc"), create=True)
    lancedb.connect(tmp_path / "lance").create_table("mine", pa.table({"a": [1]}))
    for create in (True, False):
        with pytest.raises(EmbedstoreError, match="was not made by this tool"):
            Store.open(str(tmp_path / "lance"), create=create)


def test_a_store_killed_while_being_made_is_completed(tmp_path: Path) -> None:
    db = lancedb.connect(tmp_path / "s")
    for name in ("annotations", "slides"):
        db.create_table(name, schema=TABLES[name])
    shutil.rmtree(tmp_path / "s" / "slides.lance" / "_versions")  # listed, but not made yet
    with pytest.raises(EmbedstoreError, match="the next `embedstore add` finishes it"):
        Store.open(str(tmp_path / "s"))
    assert set(Store.open(str(tmp_path / "s"), create=True).tables()) == set(TABLES)


KILLED = """
import os, signal, sys
from embedstore.store import Store
made = Store.create_table
def create(self, name, schema):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)
    return made(self, name, schema)
def merge(self, name, rows):
    os.kill(os.getpid(), signal.SIGKILL)
Store.create_table, Store.merge = create, merge
Store.open(sys.argv[1], create=True)
"""


@pytest.mark.parametrize("moment", ["slides", "results", "store", "merge"])
def test_a_store_whose_maker_was_killed_is_finished_by_add(tmp_path: Path, moment: str) -> None:
    uri = str(tmp_path / "s")
    killed = subprocess.run([sys.executable, "-c", KILLED, uri, moment], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    row = {"slide": "a.tiff", "x": 1, "y": 1, "label": "mitosis"}
    assert add(uri, "d", write_csv(tmp_path / "a.csv", [row]), AddOptions()).n_new == 1
    assert set(Store.open(uri).tables()) == set(TABLES)


def test_a_model_table_killed_while_being_made_is_completed(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table("m", 2)
    shutil.rmtree(tmp_path / "s" / f"{model_table('m')}.lance" / "_versions")
    again = Store.open(str(tmp_path / "s"))
    assert again.models() == []
    assert run_sql(again, "from embeddings").num_rows == 0
    again.make_model_table("m", 2)
    again.merge(model_table("m"), keyed_vectors(["a"], np.ones((1, 2))))
    assert Store.open(str(tmp_path / "s")).models() == ["m"]
    assert read(again, "m").keys() == {"a"}


def test_a_store_of_format_3_is_read_as_it_is_and_upgraded_when_written(tmp_path: Path) -> None:
    uri = str(tmp_path / "s")
    store = Store.open(uri, create=True)
    row = {"method": "e2e", "chosen": json.dumps({"epoch": 1, "pixels": "abc"})}
    store.merge("results", [{"result_id": "1", **row}, {"result_id": "2", "method": "uni"}])
    db = lancedb.connect(uri)
    db.open_table("results").drop_columns(["pixels"])
    db.open_table("store").update(values={"format": "3"})
    sql = "select pixels from results order by method"
    assert run_sql(Store.open(uri), sql)["pixels"].to_pylist() == [None, None]
    assert "pixels" not in db.open_table("results").schema.names  # reading wrote nothing
    for _ in range(2):
        upgraded = Store.open(uri, write=True)
        assert run_sql(upgraded, sql)["pixels"].to_pylist() == ["abc", None]
        assert db.open_table("store").to_arrow()["format"].to_pylist() == [str(FORMAT)]


def test_another_format_is_refused(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.delete("store", "format", [str(FORMAT)])
    store.merge("store", [{"format": "99", "created_at": None}])
    with pytest.raises(EmbedstoreError, match="store format 99"):
        Store.open(str(tmp_path / "s"))


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    shutil.rmtree(tmp_path / "s" / "results.lance")
    (tmp_path / "s" / "results.lance").write_text("not a table")
    with pytest.raises(EmbedstoreError, match=r"table 'results' of the store at .* cannot be read"):
        store.lance("results")


def test_a_table_removed_while_it_is_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.open(str(tmp_path / "s"), create=True)
    store.make_model_table("m", 4)
    opened = store._db.open_table

    def removed_then(name: str) -> Any:
        table = opened(name)
        shutil.rmtree(tmp_path / "s" / f"{name}.lance")  # as `embedstore remove` does elsewhere
        return table

    monkeypatch.setattr(store, "_db", SimpleNamespace(open_table=removed_then))
    with pytest.raises(EmbedstoreError, match=r"not found.*then run again"):
        store.lance(model_table("m"))
