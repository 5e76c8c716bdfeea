"""A matrix in a file: as NumPy's, row by row; fits on it come out as on the same in memory."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.terminal.options import parse_bytes
from probes.methods.linear import LogRegProbe, UniProbe
from probes.methods.together import Task, fit_many
from probes.runs import RunOptions, run
from probes.slices import streamed as module
from probes.slices.streamed import Streamed, room
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.linear import data
from tests.making.stores import bare_store, cells, plant, query


def filled(x: np.ndarray) -> Streamed:
    made = Streamed(len(x), x.shape[1], 10**9)
    for start in range(0, len(x), 7):
        made[start : start + 7] = x[start : start + 7]
    return made


X = np.random.default_rng(0).normal(size=(500, 9)).astype(np.float32)


@given(
    st.lists(st.integers(0, 499)),
    st.integers(-600, 600),
    st.integers(-600, 600),
    st.integers(1, 40),
)
def test_rows_are_those_of_an_array(rows: list[int], start: int, stop: int, step: int) -> None:
    made = filled(X)
    index = np.array(rows, dtype=np.intp)
    assert np.array_equal(np.take(cast(Any, made), index, axis=0, mode="clip"), X[index])
    assert np.array_equal(made[index], X[index])
    for part in (slice(start, stop), slice(start, stop, step), slice(None)):
        assert np.array_equal(made[part], X[part])
        assert np.array_equal(made.chosen(index)[part], X[index][part])
    assert (len(made), made.shape, made.dtype, made.size) == (500, (500, 9), X.dtype, 4500)


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("make", [UniProbe, LogRegProbe])
def test_fits_are_the_same_streamed(make: Any, n_labels: int) -> None:
    x, y = data(n=3000, d=600, k=n_labels)
    x = x.astype(np.float32)
    index = np.random.default_rng(1).permutation(len(x))
    tasks = [
        (index[: 2400 - 300 * k], index[2600:]) for k in range(2)
    ]  # most of the rows, which are read whole, and fewer, which are gathered
    fits: Any = [
        fit_many(of, [Task(make(), train, y[train], val, y[val]) for train, val in tasks])
        for of in cast(Any, (x, filled(x)))
    ]
    for there, here in zip(*fits, strict=True):
        assert there.objective_ == pytest.approx(here.objective_, rel=1e-6)
        np.testing.assert_allclose(there.coef_, here.coef_, atol=1e-6)
        assert there.cost_ == here.cost_


def planted(folder: Path, n: int = 400) -> Store:
    store = bare_store(str(folder), "d", cells(n))
    plant(store, "m", 40, 1.0)
    return store


def test_runs_are_recorded_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = planted(tmp_path / "here"), planted(tmp_path / "there")
    monkeypatch.setattr(module, "BASE_BYTES", 0)
    made: list[Streamed] = []
    make = Streamed.__init__

    def counted(self: Streamed, n: int, d: int, most: int) -> None:
        made.append(self)
        make(self, n, d, most)

    monkeypatch.setattr(Streamed, "__init__", counted)
    methods = ("uni", "logreg")
    run(here, ManifestSpec("d"), RunOptions(methods=methods))
    assert not made
    limit = 400 * module.ROW_BYTES + 30_000  # the vectors have 64,000 bytes
    run(there, ManifestSpec("d"), RunOptions(methods=methods, max_memory=limit))
    assert len(made) == 1
    sql = "select run_id, metric, value, ci_low, ci_high from results order by all"
    assert query(there, sql) == query(here, sql)
    run(there, ManifestSpec("d"), RunOptions(methods=("prototype",), max_memory=10**9))
    with pytest.raises(EmbedstoreError, match="methods uni and logreg stream them"):
        run(there, ManifestSpec("d"), RunOptions(methods=("knn",), max_memory=limit))
    with pytest.raises(EmbedstoreError, match="is too little for 400 annotations"):
        run(there, ManifestSpec("d"), RunOptions(methods=("knn",), max_memory=1000))
    with pytest.raises(UsageError, match="--correct needs all vectors in memory"):
        run(there, ManifestSpec("d"), RunOptions(correct="centre:slide", max_memory=limit))


def test_a_disk_without_room_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbedstoreError, match="finds no room in .*; TMPDIR names another"):
        Streamed(2**40, 1000, 1)
    assert isinstance(room(10, 4, None), np.ndarray)
    assert isinstance(room(10, 4, 10**9), np.ndarray)


@pytest.mark.parametrize(
    ("text", "n"),
    [("8GB", 8e9), ("500 mb", 5e8), ("1.5GiB", 1.5 * 2**30), ("1000", 1000), ("2tb", 2e12)],
)
def test_sizes_are_read(text: str, n: float) -> None:
    assert parse_bytes(text) == n


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "nan", "inf", "8 G B", "1e30GB", "much"])
def test_what_is_no_size_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_bytes(text)
    done = call_command("probes", "run", "d", "--max-memory", text, "--store", str(tmp_path))
    assert done.code == 2
