"""`export` and `import`: what goes out comes in again bit by bit, and nothing that is not well."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError
from embedstore.exchange import export, import_embeddings
from embedstore.store import Store
from embedstore.store.layout import model_table
from embedstore.store.sql import connect, fetch_rows
from tests.making.exchanges import CELLS, FORMATS, IDS, VECTORS, record, stored, write
from tests.making.stores import bare_store, put_embeddings

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8)


FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)


EXAMPLE = itertools.count()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for two stores, so that not every example makes its own."""
    return tmp_path_factory.mktemp("pair")


@settings(max_examples=12, deadline=None)
@given(data=st.data(), dim=st.integers(1, 5))
def test_round_trip_is_bitwise(pair: Path, data: st.DataObject, dim: Any) -> None:
    sources = data.draw(st.lists(TEXT, min_size=1, max_size=6, unique=True))
    cells = [{"slide": f"{len(s) % 2}.tiff", "source_id": s, "domain": s[::-1]} for s in sources]
    vectors = np.array(
        [data.draw(st.lists(FLOAT32, min_size=dim, max_size=dim)) for _ in cells], dtype=np.float32
    )
    n = next(EXAMPLE)
    here = bare_store(str(pair / "here"), f"d{n}", cells)
    bare_store(str(pair / "here"), f"e{n}", cells)
    ids = [f"d{n}/{c['slide']}/{c['source_id']}" for c in cells]
    others = [f"e{i[1:]}" for i in ids]
    # Rows of another dataset lie in between and half of them are deleted: places have gaps.
    mixed = [i for both in zip(others, ids, strict=True) for i in both]
    put_embeddings(here, f"m{n}", mixed, vectors.repeat(2, axis=0))
    here.delete(model_table(f"m{n}"), "annotation_id", others[::2])
    there = bare_store(str(pair / "there"), f"other{n}", cells)
    for form in FORMATS:
        file = pair / f"{n}.{form}"
        assert export(here, f"d{n}", f"m{n}", file).n_rows == len(ids)
        report = import_embeddings(there, f"other{n}", f"{form}{n}", file)
        assert (report.n_imported, report.n_lacking, report.dtype) == (len(ids), 0, "float32")
        found = stored(there, f"{form}{n}")
        for i, vector in zip(ids, vectors, strict=True):
            assert found[f"other{i[1:]}"].tobytes() == vector.tobytes()
        assert record(there, f"{form}{n}") == record(here, f"m{n}") | {"model": f"{form}{n}"}


def test_files_hold_what_the_store_holds(store: Store, tmp_path: Path) -> None:
    put_embeddings(store, "m", IDS[::-1][:7], VECTORS[::-1][:7])  # all but the first
    seen = []
    report = export(store, "d", "m", tmp_path / "x.parquet", lambda *at: seen.append(at))
    assert (report.n_rows, report.n_without, report.dim) == (7, 1, 3)
    assert seen[-1] == (7, 7)
    export(store, "d", "m", tmp_path / "x.npz")
    table = pq.read_table(tmp_path / "x.parquet")
    rows = fetch_rows(
        connect(store),
        "select annotation_id, dataset, slide, case_id, domain, label, "
        "x_l0, y_l0 from annotations order by annotation_id",
    )[1:]
    assert table.drop_columns("vector").to_pylist() == rows
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 3)
    np.testing.assert_array_equal(np.stack(table["vector"].to_pylist()), VECTORS[1:])
    said = json.loads(table.schema.metadata[b"embedstore.model"])
    model = record(store, "m")
    assert said == model | {"created_at": model["created_at"].isoformat()}
    with np.load(tmp_path / "x.npz") as z:
        assert json.loads(str(z["model_json"])) == said
        np.testing.assert_array_equal(z["vector"], VECTORS[1:])
        assert z["vector"].dtype == np.float32
        for name in table.column_names[:-1]:
            assert z[name].tolist() == table[name].to_pylist()


def test_export_is_whole_or_not_there(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_embeddings(store, "m", IDS, VECTORS)
    with pytest.raises(EmbedstoreError, match=r"\.parquet or \.npz"):
        export(store, "d", "m", tmp_path / "x.h5")
    with pytest.raises(EmbedstoreError, match="cannot be written"):
        export(store, "d", "m", tmp_path / "none" / "x.npz")
    (tmp_path / "x.parquet").write_text("old")
    monkeypatch.setattr("embedstore.exchange.incoming.READ_ROWS", 3)

    def full(done: int, total: int) -> None:
        if done:
            raise OSError(28, "No space left on device")

    with pytest.raises(EmbedstoreError, match="No space left"):
        export(store, "d", "m", tmp_path / "x.parquet", full)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store", "x.parquet"]
    assert (tmp_path / "x.parquet").read_text() == "old"


def test_export_of_nothing_names_the_command(store: Store, tmp_path: Path) -> None:
    bare_store(store.uri, "empty", CELLS)
    put_embeddings(store, "m", IDS, VECTORS)
    for dataset, model in (("empty", "m"), ("d", "n")):
        with pytest.raises(EmbedstoreError, match=f"embedstore ingest {dataset} --model {model}"):
            export(store, dataset, model, tmp_path / "x.npz")
    with pytest.raises(EmbedstoreError, match="there: d, empty"):
        export(store, "none", "m", tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


FIXED = pa.FixedSizeListArray.from_arrays(pa.array(VECTORS.astype(np.float16).ravel()), 3)


LARGE = pa.array(VECTORS.tolist(), pa.large_list(pa.float64()))


OTHERS = {
    "lists.parquet": ({"vector": pa.array(VECTORS.tolist(), pa.list_(pa.float32()))}, "float32"),
    "large.parquet": ({"embedding": LARGE, "more": list("abcdefgh")}, "float64"),
    "fixed.parquet": ({"features": FIXED, "x_l0": [None] * 8, "y_l0": [None] * 8}, "float16"),
    "half.npz": ({"features": VECTORS.astype(np.float16)}, "float16"),
    "double.npz": ({"embedding": VECTORS.astype(np.float64)}, "float64"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_others_are_read(store: Store, tmp_path: Path, name: Any) -> None:
    columns, dtype = OTHERS[name]
    ids = pa.array(IDS).dictionary_encode() if name == "large.parquet" else IDS
    ids = np.array([i.encode() for i in IDS]) if name == "half.npz" else ids
    report = import_embeddings(
        store, "d", "mine", write(tmp_path / name, annotation_id=ids, **columns)
    )
    assert (report.n_imported, report.dtype, report.dim) == (8, dtype, 3)
    expected = VECTORS.astype(dtype).astype(np.float32)
    found = stored(store, "mine")
    np.testing.assert_array_equal([found[i] for i in IDS], expected)
    said = record(store, "mine")
    assert said["weights"] == f"imported: {name}"
    assert [said[k] for k in ("arch", "pooling", "dtype", "dim", "weights_sha256", "patch_px")] == [
        "imported",
        "imported",
        "float32",
        3,
        None,
        None,
    ]


def test_annotations_with_a_problem_are_left_out(store: Store, tmp_path: Path) -> None:
    rows = fetch_rows(connect(store), "from _annotations where source_id = '0'")
    store.merge("annotations", [r | {"x_l0": -5.0} for r in rows])
    file = write(tmp_path / "x.npz", annotation_id=IDS[:6], vector=VECTORS[:6])
    report = import_embeddings(store, "d", "mine", file)
    assert (report.n_imported, report.n_left_out, report.n_lacking) == (4, 2, 2)
    assert stored(store, "mine").keys() == {i for i in IDS[:6] if not i.endswith("/0")}
    file = write(tmp_path / "y.npz", annotation_id=IDS[:1], vector=VECTORS[:1])
    with pytest.raises(EmbedstoreError, match="every annotation of it has a problem"):
        import_embeddings(store, "d", "another", file)


def test_again_adds_nothing_and_nothing_is_overwritten(store: Store, tmp_path: Path) -> None:
    half = write(tmp_path / "half.npz", annotation_id=IDS[:4], vector=VECTORS[:4])
    whole = write(tmp_path / "whole.npz", annotation_id=IDS, vector=VECTORS)
    assert import_embeddings(store, "d", "mine", half).n_imported == 4
    report = import_embeddings(store, "d", "mine", whole)
    assert (report.n_imported, report.n_before) == (4, 4)
    assert report.weights == "imported: half.npz, ..."
    for file in (half, whole):
        version = store.stats(model_table("mine"))["version"]
        again = import_embeddings(store, "d", "mine", file)
        assert (again.n_imported, again.weights) == (0, "imported: half.npz, ...")
        assert store.stats(model_table("mine"))["version"] == version
    other = write(tmp_path / "o.npz", annotation_id=IDS[:3], vector=VECTORS[[0, 2, 1]])
    with pytest.raises(
        EmbedstoreError, match="2 annotations have another embedding .*another --model"
    ):
        import_embeddings(store, "d", "mine", other)
    wide = write(tmp_path / "w.npz", annotation_id=IDS, vector=np.zeros((8, 4), np.float32))
    with pytest.raises(EmbedstoreError, match="4 wide, those of model 'mine' 3"):
        import_embeddings(store, "d", "mine", wide)
    np.testing.assert_array_equal([stored(store, "mine")[i] for i in IDS], VECTORS)
