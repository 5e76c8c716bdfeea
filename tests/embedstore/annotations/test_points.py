"""Tables of annotations: any order, any delimiter, CSV and Parquet alike, and their split."""

import csv
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.add import AddOptions, add
from embedstore.annotations.readers import read_annotations
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows

NAMES = st.text("abcXYZ0123_- é.", min_size=1, max_size=8).map(lambda s: f"{s.strip() or 'x'}.tiff")
ROWS = st.lists(
    st.tuples(NAMES, st.floats(-0.0, 1e5), st.floats(0, 1e5), st.sampled_from("AB")),
    min_size=1,
    max_size=20,
    unique_by=lambda r: r[:3],
)


def by_id(path: Any) -> dict[tuple[str, str], Any]:
    return {(a.slide, a.source_id): a.says for a in read_annotations(path).annotations}


@settings(max_examples=50, deadline=None)
@given(rows=ROWS, delimiter=st.sampled_from(",;\t"))
def test_csv_round_trip_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, delimiter: Any
) -> None:
    def read(order: list[Any]) -> dict[tuple[str, str], Any]:
        path = tmp_path_factory.mktemp("csv") / "a.csv"
        with path.open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f, delimiter=delimiter)
            writer.writerow(["label", "slide", "y", "x"])
            writer.writerows([label, slide, repr(y), repr(x)] for slide, x, y, label in order)
        return by_id(path)

    found = read(rows)
    assert sorted((s, *v[:3]) for (s, _), v in found.items()) == sorted(rows)
    assert read(rows[::-1]) == found  # the id does not come from the row's number


@settings(max_examples=50, deadline=None)
@given(
    rows=ROWS, numbered=st.booleans(), splits=st.sampled_from([None, ["train", "Dev", "", "TEST"]])
)
def test_parquet_and_csv_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: Any, numbered: Any, splits: Any
) -> None:
    folder = tmp_path_factory.mktemp("both")
    slide, x, y, label = map(list, zip(*rows, strict=True))
    columns = {"slide": slide, "x": x, "y": y, "label": [int(v == "A") for v in label]}
    if numbered:
        columns["id"] = list(range(len(rows)))
    if splits:
        columns["split"] = [splits[k % 4] for k in range(len(rows))]
    with (folder / "a.csv").open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    pq.write_table(pa.table(columns), folder / "a.parquet")
    assert by_id(folder / "a.parquet") == by_id(folder / "a.csv")
    # A column with a gap is stored as floats by many a tool.
    columns["label"] = pa.array(columns["label"], pa.float64())
    pq.write_table(pa.table(columns), folder / "b.parquet")
    assert by_id(folder / "b.parquet") == by_id(folder / "a.csv")


def test_parquets_cells_as_text(tmp_path: Path) -> None:
    columns = {
        "slide": ["a.tiff", "a.tiff"],
        "x": pa.array([1, 2], pa.int16()),
        "y": [0.5, 3.0],
        "label": pa.array(["m", "m"]).dictionary_encode(),
        "case": [7.0, 7.0],
        "gap": [float("nan"), 2.5],
        "none": [None, "x"],
        "flag": [True, False],
        "price": [Decimal("1.00"), Decimal("1.25")],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.pq")
    first, second = read_annotations(tmp_path / "a.pq", "csv").annotations
    assert first.attributes == {
        "slide": "a.tiff",
        "x": "1",
        "y": "0.5",
        "label": "m",
        "case": "7",
        "flag": "True",
        "price": "1",
    }
    assert (second.y_l0, second.attributes["gap"], second.attributes["none"]) == (3, "2.5", "x")
    assert second.attributes["price"] == "1.25"


@pytest.mark.parametrize(
    "value",
    [
        pa.array([[1]]),
        pa.array([{"a": 1}]),
        pa.array([b"x"]),
        pa.array([b"x"]).dictionary_encode(),
        pa.array([b"x"], pa.large_binary()),
        pa.array([b"x"], pa.binary(1)),
    ],
)
def test_nested_and_binary_columns_are_refused_by_name(tmp_path: Path, value: Any) -> None:
    table = pa.table({"slide": ["a"], "x": [1], "y": [1], "label": ["m"], "thumb": value})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(EmbedstoreError, match=r"not lists, records or bytes: thumb \(.*drop or"):
        read_annotations(tmp_path / "a.parquet")


def test_the_split_lands_in_the_store(tmp_path: Path) -> None:
    names = [
        "train",
        "Training",
        " TRAIN ",
        "val",
        "validation",
        "Valid",
        "dev",
        "test",
        "testing",
        "",
    ]
    rows = [f"a.tiff,{k},1,mitosis,{name}" for k, name in enumerate(names)]
    (tmp_path / "a.csv").write_text("\n".join(["slide,x,y,label,split", *rows]))
    add(str(tmp_path / "s"), "d", tmp_path / "a.csv", AddOptions())
    found = fetch_rows(connect(Store.open(str(tmp_path / "s"))), "select split from annotations")
    assert Counter(r["split"] for r in found) == {"train": 3, "val": 4, "test": 2, None: 1}


def test_other_values_of_split_are_all_listed(tmp_path: Path) -> None:
    rows = ["a,1,1,m,train", "a,2,1,m,fold 1", "a,3,1,m,holdout", "a,4,1,m,fold 1"]
    (tmp_path / "a.csv").write_text("\n".join(["slide,x,y,label,split", *rows]))
    with pytest.raises(
        EmbedstoreError, match="'fold 1', 'holdout'; allowed: train, training, val, "
    ):
        add(str(tmp_path / "s"), "d", tmp_path / "a.csv", AddOptions())
    assert not (tmp_path / "s").exists()


def test_one_point_in_two_splits_is_refused(tmp_path: Path) -> None:
    rows = ["a,1,1,m,train", "a,1,1,m,test"]
    (tmp_path / "a.csv").write_text("\n".join(["slide,x,y,label,split", *rows]))
    with pytest.raises(EmbedstoreError, match="as 'm' in test and at .* as 'm' in train"):
        read_annotations(tmp_path / "a.csv")


def test_repeated_rows_are_counted_once_and_spaces_around_names_do_not_matter(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.csv").write_text(" slide , x,y , label\na,1,2,A\n" + "a,1,2,A\n" * 30)
    content = read_annotations(tmp_path / "a.csv")
    assert len(content.annotations) == 1
    assert content.notes == ["30 rows repeat earlier ones and were left out (line 3)"]


def test_a_table_without_points_is_sent_to_the_patches(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,label,note\na.png,m,\n")
    with pytest.raises(EmbedstoreError, match="--format patches"):
        read_annotations(tmp_path / "a.csv", "csv")
