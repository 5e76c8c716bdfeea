"""Vectors as other tools leave them, and which row of the labels each is of."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedstore.annotations.columns import Table
from embedstore.errors import EmbedstoreError
from embedstore.exchange.loose import LooseVectors, read_loose
from embedstore.exchange.pairing import cells_of, own_rows, pair, vector_file

X = np.arange(24, dtype=np.float32).reshape(4, 6) + 0.5
NAMES = ["a", "b", "c", "d"]
WIDE = {f"f_{k}": X[:, k] for k in range(6)}


def write(folder: Path, form: str) -> Path:
    file = folder / f"v.{form.split()[-1]}"
    flat = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 6)
    match form:
        case "lists parquet":
            pq.write_table(pa.table({"cell": NAMES, "embedding": flat}), file)
        case "variable parquet":
            pq.write_table(pa.table({"cell": NAMES, "odd name": pa.array(X.tolist())}), file)
        case "wide parquet":
            pq.write_table(pa.table({"cell": NAMES, "age": [1.5, 2, 3, 4], **WIDE}), file)
        case "npz":
            np.savez(file, cell=np.array(NAMES), features=X)
        case "bytes npz":
            np.savez(file, cell=np.array([n.encode() for n in NAMES]), m=X)
        case "npy":
            np.save(file, X)
        case "csv":
            rows = [f"{n},{','.join(map(str, x))}" for n, x in zip(NAMES, X.tolist(), strict=True)]
            file.write_text("\n".join(["cell,0,1,2,3,4,5", *rows]))
    return file


FORMS = ["lists parquet", "variable parquet", "wide parquet", "npz", "bytes npz", "npy", "csv"]


@pytest.mark.parametrize("form", FORMS)
def test_a_file_of_another_tool_gives_its_vectors_and_names(tmp_path: Path, form: str) -> None:
    found = read_loose(write(tmp_path, form))
    assert (found.vectors == X).all()
    assert found.texts.get("cell") == (None if form == "npy" else NAMES)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"a": [[1.0]], "b": [[2.0]]}, "several columns, a, b; say which with --vectors-from"),
        ({"name": ["x"], "score": [0.5]}, "has no vectors"),
        ({"vector": [[1.0, 2.0], [1.0]]}, "1, 2 wide"),
        ({"vector": [[1.0], None]}, "0, 1 wide, 1 are null"),
        ({f"p{k}": [1.0] for k in (0, 1, 2, 4)}, "has no vectors"),
    ],
)
def test_what_may_mean_several_things_is_asked(
    tmp_path: Path, columns: dict[str, Any], said: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(EmbedstoreError, match=said):
        read_loose(tmp_path / "v.parquet")


def test_the_one_that_is_named_is_taken(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", one=X, two=2 * X)
    with pytest.raises(EmbedstoreError, match=r"one float32 \(4, 6\), two"):
        read_loose(tmp_path / "v.npz")
    assert (read_loose(tmp_path / "v.npz", "two").vectors == 2 * X).all()


def test_numbered_columns_are_named_by_what_stands_before_the_number(tmp_path: Path) -> None:
    columns = {f"{p}{k}": X[:, k] for p in ("f_", "pca") for k in range(6)}
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(EmbedstoreError, match=r"f_\*, pca\*; say which with --vectors-from"):
        read_loose(tmp_path / "v.parquet")
    for name in ("pca", "pca*"):
        assert (read_loose(tmp_path / "v.parquet", name).vectors == X).all()


def test_a_file_that_is_broken_or_runs_code_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "v.csv").write_bytes(b"\xff\xfe\x00")
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("v.parquet", "v.npy", "v.csv", "absent.npy"):
        with pytest.raises(EmbedstoreError):
            read_loose(tmp_path / name)
    (tmp_path / "v.mat").touch()
    with pytest.raises(EmbedstoreError, match=r"read from \.parquet"):
        read_loose(tmp_path / "v.mat")


# -------------------------------------------------------------------------------- pairing


def table(**columns: list[str]) -> Table:
    rows = [dict(zip(columns, v, strict=True)) for v in zip(*columns.values(), strict=True)]
    of = {c: c for c in columns if c in ("label", "case", "slide", "domain", "split")}
    return Table(Path("cells.csv"), list(columns), rows, of)


def loose(**texts: list[str]) -> LooseVectors:
    return LooseVectors("v.parquet", X[: len(next(iter(texts.values()), X))], texts)


@given(order=st.permutations(range(8)), others=st.permutations(range(8)), n=st.integers(1, 8))
def test_each_vector_goes_to_the_row_of_its_name_in_any_order(
    order: list[int], others: list[int], n: int
) -> None:
    vectors = LooseVectors(
        "v", np.array(order, dtype=np.float32)[:, None] + 1, {"key": [f"k{k}" for k in order]}
    )
    of = [k for k in others if k < n]
    cells = table(label=["x"] * n, name=[f"k{k}" for k in of])
    paired = pair(vectors, cells, "key=name")
    file = vector_file(vectors, paired, paired.ids)
    assert sorted(paired.ids) == sorted(f"k{k}" for k in of)
    for name, vector, row in zip(paired.ids, file.vectors, paired.of_table, strict=True):
        assert vector[0] == int(name[1:]) + 1
        assert cells.rows[row]["name"] == name


def test_the_columns_whose_values_agree_are_found_and_said() -> None:
    cells = table(label=["p", "n", "p", "n"], where=["x", "y", "z", "w"], cell=["d", "c", "b", "a"])
    paired = pair(loose(key=NAMES, other=["1", "2", "3", "4"]), cells)
    assert paired.ids == NAMES
    assert paired.of_table.tolist() == [3, 2, 1, 0]
    assert paired.notes == ["cells are known by key of the vectors is cell of the labels"]


def test_what_has_no_partner_is_left_out_and_counted() -> None:
    paired = pair(loose(cell=NAMES), table(label=["p", "n", "p"], cell=["a", "c", "z"]))
    assert paired.ids == ["a", "c"]
    assert any("2 vectors have no row" in n for n in paired.notes)
    assert any("1 rows of labels have no vector" in n for n in paired.notes)


@pytest.mark.parametrize(("mine", "n"), [("key", 3), ("cell", 1)])
def test_columns_that_agree_in_part_are_asked_about(mine: str, n: int) -> None:
    """Of other names in most, of one name in few: neither is taken for the cells' names unasked."""
    cells = table(label=["p"] * 4, cell=[*NAMES[:n], *(f"z{k}" for k in range(4 - n))])
    vectors = loose(**{mine: NAMES})
    with pytest.raises(EmbedstoreError, match=f"agree in {n}, of 4 vectors and 4 rows"):
        pair(vectors, cells)
    assert pair(vectors, cells, f"{mine}=cell").ids == NAMES[:n]


def test_rows_counted_from_0_and_from_1_are_asked_about() -> None:
    """They agree in all but one, each with its neighbour."""
    cells = table(label=["p"] * 4, id=["1", "2", "3", "4"])
    vectors = loose(id=["0", "1", "2", "3"])
    with pytest.raises(EmbedstoreError, match="agree in 3, of 4 vectors and 4 rows"):
        pair(vectors, cells)
    assert pair(vectors, cells, "id").ids == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("texts", "columns", "said"),
    [
        ({}, {"label": ["p"] * 4}, "nothing names the cell of each vector"),
        ({"k": NAMES}, {"label": ["p"] * 4, "k": ["q", "r", "s", "t"]}, "nothing names the cell"),
        (
            {"k": NAMES, "l": NAMES},
            {"label": ["p"] * 4, "m": NAMES},
            "several columns may name the cells: k=m, l=m",
        ),
    ],
)
def test_a_pairing_that_is_not_clear_is_asked_for(
    texts: dict[str, list[str]], columns: dict[str, list[str]], said: str
) -> None:
    with pytest.raises(EmbedstoreError, match=said):
        pair(loose(**texts), table(**columns))


def test_in_order_only_where_that_is_said_and_both_are_as_many() -> None:
    cells = table(label=["p", "n", "p", "n"], x=["1.5", "2.5", "3.5", "4.5"], cell=NAMES)
    paired = pair(loose(), cells, in_order=True)
    assert paired.ids == NAMES
    assert paired.notes == ["vectors and rows are paired in order, cells are known by cell"]
    with pytest.raises(EmbedstoreError, match="4 vectors, cells.csv 2 rows"):
        pair(loose(), table(label=["p", "n"]), in_order=True)
    assert pair(loose(), table(label=["p"] * 4), in_order=True).ids == ["1", "2", "3", "4"]


@pytest.mark.parametrize("by", ["k", "nothing", "k=nothing"])
def test_an_id_that_is_none_is_refused(by: str) -> None:
    with pytest.raises(EmbedstoreError, match="more than once|no column|has no 'k'"):
        pair(loose(k=["a", "a", "b", "c"]), table(label=["p"] * 4, k=NAMES), by)


def test_beside_the_vectors_the_labels_are_of_the_same_rows() -> None:
    vectors = loose(label=["p", "n", "p", "n"], id=NAMES, case=["1", "1", "2", "2"])
    cells = Table(
        Path("v"),
        list(vectors.texts),
        [
            dict(zip(vectors.texts, v, strict=True))
            for v in zip(*vectors.texts.values(), strict=True)
        ],
        {"label": "label", "case": "case"},
    )
    content = cells_of(cells, own_rows(vectors, cells))
    assert [(a.slide, a.category) for a in content.annotations] == [
        ("a", "p"),
        ("b", "n"),
        ("c", "p"),
        ("d", "n"),
    ]
    assert content.case_key == "case"


def test_a_table_without_labels_says_how_to_name_them() -> None:
    cells = table(kind=["p", "n", "p", "n"], cell=NAMES)
    with pytest.raises(EmbedstoreError, match="--column label=NAME"):
        cells_of(cells, pair(loose(cell=NAMES), cells))
