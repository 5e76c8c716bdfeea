"""`import` refuses a bad file whole and says all that is wrong at once."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedstore.errors import EmbedstoreError
from embedstore.exchange import import_embeddings
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from tests.making.exchanges import FORMATS, IDS, VECTORS, write
from tests.making.stores import put_embeddings


def spoilt(value: float) -> np.ndarray:
    vectors = VECTORS.astype(np.float64)
    vectors[5, 1] = value
    return vectors


RAGGED = [v.tolist() for v in VECTORS[:7]] + [[1.0, 2.0]]


BAD: dict[str, dict[str, Any]] = {
    "8 of 8 ids are not of dataset 'd': z0, z1, z2, .*looks like d/a.tiff/0": {
        "annotation_id": [f"z{n}" for n in range(8)],
        "vector": VECTORS,
    },
    "1 of 8 ids are not of dataset 'd': d/a.tiff/9": {
        "annotation_id": ["d/a.tiff/9", *IDS[1:]],
        "vector": VECTORS,
    },
    "1 annotations come more than once: d/a.tiff/1": {
        "annotation_id": [IDS[1], *IDS[1:]],
        "vector": VECTORS,
    },
    "1 annotations come more than once: d/b.tiff/3": {
        "annotation_id": [*IDS, IDS[7]],
        "vector": VECTORS[[*range(8), 7]],
    },
    "1 vectors hold NaN or infinity: d/b.tiff/1": {"annotation_id": IDS, "vector": spoilt(np.nan)},
    "1 vectors hold NaN or infinity: d/b.tiff/1 ": {"annotation_id": IDS, "vector": spoilt(np.inf)},
    "1 vectors hold numbers too large for float32: d/b.tiff/1": {
        "annotation_id": IDS,
        "vector": spoilt(1e39),
    },
    "it holds no embeddings": {"annotation_id": np.array([], str), "vector": VECTORS[:0]},
    "1 rows have no annotation_id: row 0": {"annotation_id": ["", *IDS[1:]], "vector": VECTORS},
    "1 annotations lie elsewhere .*other pixels: d/a.tiff/2": {
        "annotation_id": IDS,
        "vector": VECTORS,
        "x_l0": [100, 101, 102.5, 103, 104, 105, 106, 107.0],
        "y_l0": [200.0] * 8,
    },
    "must have 'annotation_id' and 'vector' .*it has: id, vector": {"id": IDS, "vector": VECTORS},
    "must have .*'embedding' or 'features'.*it has: annotation_id, v": {
        "annotation_id": IDS,
        "v": VECTORS,
    },
    "float": {"annotation_id": IDS, "vector": VECTORS.astype(np.int32)},
}


ONLY_PARQUET: dict[str, dict[str, Any]] = {
    "1 vectors are not 3 wide as the first: d/b.tiff/3": {"annotation_id": IDS, "vector": RAGGED},
    "1 rows have no vector: d/b.tiff/3": {"annotation_id": IDS, "vector": [*RAGGED[:7], None]},
    "1 vectors hold NaN or infinity: d/a.tiff/0": {
        "annotation_id": IDS,
        "vector": [[None, 1.0, 2.0], *RAGGED[:6], [1.0, 1.0, 1.0]],
    },
    "column 'annotation_id' is int64": {"annotation_id": list(range(8)), "vector": RAGGED},
    "column 'vector' is double": {"annotation_id": IDS, "vector": [1.0] * 8},
    "8 rows have no vector": {
        "annotation_id": IDS,
        "vector": pa.array([[]] * 8, pa.list_(pa.float32())),
    },
}


@pytest.mark.parametrize(
    ("form", "said"),
    [
        *((f, s) for f in FORMATS for s in BAD),
        *(("parquet", s) for s in ONLY_PARQUET),
    ],
)
def test_a_bad_file_is_refused_and_nothing_is_written(
    store: Store, tmp_path: Path, form: Any, said: Any
) -> None:
    columns = dict({**BAD, **ONLY_PARQUET}[said])
    if form == "parquet" and isinstance(v := columns.get("vector", columns.get("v")), np.ndarray):
        kind = pa.list_(pa.from_numpy_dtype(v.dtype))
        columns["vector" if "vector" in columns else "v"] = pa.array(list(v), kind)
        columns = {
            k: pa.array(c, pa.string()) if len(c) == 0 and k != "vector" else c
            for k, c in columns.items()
        }
    tables = store.tables()
    with pytest.raises(EmbedstoreError, match=said.strip()):
        import_embeddings(store, "d", "mine", write(tmp_path / f"x.{form}", **columns))
    assert store.tables() == tables
    assert fetch_rows(connect(store), "from models") == []


def test_all_that_is_wrong_is_told_at_once(store: Store, tmp_path: Path) -> None:
    put_embeddings(store, "mine", IDS, VECTORS)
    file = write(
        tmp_path / "x.npz",
        annotation_id=[*IDS[:7], IDS[0], "q/1", "q/2"],
        vector=np.vstack([spoilt(np.nan), VECTORS[:2]]),
    )
    with pytest.raises(EmbedstoreError) as e:
        import_embeddings(store, "d", "mine", file)
    for said in (
        "x.npz was not imported, nothing is written",
        "1 vectors hold NaN",
        "q/1, q/2",
        "more than once: d/a.tiff/0",
    ):
        assert said in str(e.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.parquet", b"PAR1", "cannot be read as Parquet"),
        ("x.npz", b"PK", "cannot be read as npz"),
        ("x.npz", b"", "cannot be read as npz"),
        ("x.pt", b"x", r"\.parquet, \.npz, \.h5"),
        ("x.parquet", None, "no file or folder"),
        ("x.h5", b"x", "no file matches a slide"),
    ],
)
def test_what_is_no_file_of_embeddings(
    store: Store, tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EmbedstoreError, match=said):
        import_embeddings(store, "d", "mine", tmp_path / name)


def test_npz_is_never_unpickled(store: Store, tmp_path: Path) -> None:
    objects = np.array(IDS, dtype=object)
    file = write(tmp_path / "x.npz", annotation_id=objects, vector=VECTORS)
    with pytest.raises(EmbedstoreError, match="save ids as an array of unicode strings"):
        import_embeddings(store, "d", "mine", file)
    np.save(tmp_path / "y.npy", VECTORS)
    (tmp_path / "y.npy").rename(tmp_path / "y.npz")
    with pytest.raises(EmbedstoreError, match="one array without a name"):
        import_embeddings(store, "d", "mine", tmp_path / "y.npz")
