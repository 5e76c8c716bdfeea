"""Vectors read straight from Lance's files: as a scan has them, or left to the scan."""

import threading
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store import lance_files as plain_vectors
from embedstore.store.lance_files import read_plain
from embedstore.store.layout import model_table
from probes.slices import Matrix
from tests.making.stores import bare_store, put_embeddings

DIM = 96


def write(
    path: Path, sizes: Any, dim: int = DIM, per_file: int = 10**6
) -> tuple[lance.LanceDataset, np.ndarray]:
    """A dataset of batches of these sizes, and its vectors."""
    vectors = np.random.default_rng(0).standard_normal((sum(sizes), dim), dtype=np.float32)
    ends = np.cumsum(sizes)
    batches = [
        pa.record_batch(
            {
                "annotation_id": pa.array([f"a{k}" for k in range(end - n, end)]),
                "vector": pa.FixedSizeListArray.from_arrays(
                    pa.array(vectors[end - n : end].ravel()), dim
                ),
            }
        )
        for n, end in zip(sizes, ends, strict=True)
    ]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
    return lance.write_dataset(reader, str(path), max_rows_per_file=per_file), vectors


def ignore(part: np.ndarray) -> None:
    """Take any vectors."""


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 700), min_size=1, max_size=4),
    per_file=st.sampled_from([150, 400, 10**6]),
    cuts=st.lists(st.floats(0, 1), min_size=2, max_size=8),
    chunk=st.sampled_from([1, 5000, 2**21]),
)
def test_any_rows_of_any_files_are_those_of_a_scan(
    tmp_path_factory: pytest.TempPathFactory, sizes: Any, per_file: Any, cuts: Any, chunk: Any
) -> None:
    dataset, vectors = write(tmp_path_factory.mktemp("l") / "t.lance", sizes, per_file=per_file)
    n = len(vectors)
    edges = sorted(int(c * n) for c in cuts)
    rows = np.concatenate([np.arange(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False)])
    out = np.full((len(rows), DIM), np.nan, dtype=np.float32)
    seen, lock = [], threading.Lock()

    def check(part: np.ndarray) -> None:
        with lock:
            seen.append(part.copy())

    before, plain_vectors.CHUNK_BYTES = plain_vectors.CHUNK_BYTES, chunk
    try:
        done = read_plain(dataset, "vector", rows.astype(np.int64), out, check)
    finally:
        plain_vectors.CHUNK_BYTES = before
    if done:
        np.testing.assert_array_equal(out, vectors[rows])
        given_out = np.concatenate(seen)
        assert sorted(map(bytes, given_out)) == sorted(map(bytes, out))
    else:
        runs = 1 + (np.diff(rows) != 1).sum() if len(rows) else 1
        assert len(rows) < plain_vectors.MIN_RUN * runs


def test_a_whole_table_of_several_files_is_read(tmp_path: Path) -> None:
    dataset, vectors = write(tmp_path / "t.lance", [2048, 2048, 904], per_file=2048)
    assert len(dataset.get_fragments()) == 3
    out = np.empty_like(vectors)
    assert read_plain(dataset, "vector", np.arange(5000), out, ignore)
    np.testing.assert_array_equal(out, vectors)


def test_what_lies_otherwise_is_left_to_the_scan(tmp_path: Path) -> None:
    def read(dataset: Any, n: int, dim: int = DIM, rows: Any = None) -> bool:
        rows = np.arange(n) if rows is None else rows
        return read_plain(dataset, "vector", rows, np.empty((len(rows), dim), np.float32), ignore)

    dataset, _ = write(tmp_path / "a", [500])
    assert read(dataset, 500)
    assert not read(dataset, 500, rows=np.arange(0, 500, 2))  # single rows: a scan is as fast
    assert not read(dataset, 0, rows=np.arange(0))
    dataset.delete("annotation_id = 'a3'")
    assert not read(lance.dataset(str(tmp_path / "a")), 499)
    narrow, _ = write(tmp_path / "b", [500], dim=3)  # packed with others in small blocks
    assert not read(narrow, 500, dim=3)
    nulls = pa.table(
        {"vector": pa.array([None, *np.ones((99, DIM), np.float32)], pa.list_(pa.float32(), DIM))}
    )
    assert not read(lance.write_dataset(nulls, str(tmp_path / "c")), 100)


def test_what_a_check_raises_comes_out(tmp_path: Path) -> None:
    dataset, _ = write(tmp_path / "t.lance", [500])

    def check(part: np.ndarray) -> None:
        raise EmbedstoreError("not finite")

    with pytest.raises(EmbedstoreError, match="not finite"):
        read_plain(dataset, "vector", np.arange(500), np.empty((500, DIM), np.float32), check)


def test_a_place_that_is_wrong_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If Lance's format changed in a way that its description does not say."""
    dataset, _ = write(tmp_path / "t.lance", [500])
    pages = plain_vectors._pages(dataset, "vector", DIM)
    assert pages is not None
    (page,) = pages
    out = np.empty((500, DIM), np.float32)

    def elsewhere(offset: int) -> list[Any]:
        return [plain_vectors._Page(page.path, offset, 0, 500)]

    monkeypatch.setattr(plain_vectors, "_pages", lambda *_: elsewhere(page.offset + 64))
    assert not read_plain(dataset, "vector", np.arange(500), out, ignore)
    size = Path(page.path).stat().st_size
    monkeypatch.setattr(plain_vectors, "_pages", lambda *_: elsewhere(size - 1000))
    with pytest.raises(EmbedstoreError, match="ends before its vectors do"):
        read_plain(dataset, "vector", np.arange(500), out, ignore)


@pytest.fixture
def shared(tmp_path: Path) -> Store:
    """One model's vectors of two datasets, written in turns, labels changed since."""
    rng = np.random.default_rng(1)
    uri = str(tmp_path / "s")
    for name in ("one", "two"):
        cells = [{"slide": f"{k % 5}.tiff", "source_id": str(k)} for k in range(400)]
        store = bare_store(uri, name, cells)
    for start in range(0, 400, 100):
        for name in ("one", "two"):
            ids = [f"{name}/{k % 5}.tiff/{k}" for k in range(start, start + 100)]
            put_embeddings(store, "m", ids, rng.standard_normal((100, DIM), dtype=np.float32))
    update = pa.table(
        {"annotation_id": [f"two/{k % 5}.tiff/{k}" for k in range(7)], "label": ["x"] * 7}
    )
    store.update_columns(model_table("m"), update)
    return store


@pytest.mark.parametrize("compacted", [False, True])
def test_a_matrix_is_the_same_by_either_way(
    shared: Store, monkeypatch: pytest.MonkeyPatch, compacted: bool
) -> None:
    if compacted:
        shared.compact(model_table("m"))
    made, plainly = [], []

    def spied(*args: Any) -> bool:
        plainly.append(read_plain(*args))
        return plainly[-1]

    for way in (spied, lambda *_: False):
        monkeypatch.setattr("probes.slices.read_plain", way)
        made.append([Matrix(shared, "m", name) for name in ("one", "two")])
    assert plainly == [compacted] * 2  # rows that were updated leave deleted ones behind
    for plain, scanned in zip(*made, strict=True):
        assert sorted(plain.ids) == sorted(scanned.ids)
        places = [dict(zip(m.ids, m.places.ravel(), strict=True)) for m in (plain, scanned)]
        for i in plain.ids:
            np.testing.assert_array_equal(plain.X[places[0][i]], scanned.X[places[1][i]])
