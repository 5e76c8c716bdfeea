"""Cells, vectors and files as other programs would write them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from embedstore.embeddings.identity import recorded_models
from embedstore.store import Store
from embedstore.store.layout import model_table

FORMATS = ("parquet", "npz")


CELLS = [{"slide": f"{s}.tiff", "source_id": str(n)} for s in "ab" for n in range(4)]


IDS = [f"d/{c['slide']}/{c['source_id']}" for c in CELLS]


VECTORS = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)


def write(path: Path, **columns: Any) -> Path:
    """Write a file as others would: Parquet columns or npz arrays."""
    if path.suffix == ".npz":
        np.savez(path, **columns)
    else:
        pq.write_table(pa.table(columns), path)
    return path


def stored(store: Store, model: str) -> dict[str, np.ndarray]:
    table = store.lance(model_table(model)).to_table()
    ids = table["annotation_id"].to_pylist()
    assert len(ids) == len(set(ids))
    return {
        i: np.array(v, np.float32) for i, v in zip(ids, table["vector"].to_pylist(), strict=True)
    }


def record(store: Store, model: str) -> dict[str, Any]:
    return asdict(recorded_models(store)[model])
