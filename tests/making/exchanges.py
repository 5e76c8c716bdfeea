"""Cells, vectors and files as other programs would write them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("parquet", "npz")


CELLS = [{"slide": f"{s}.tiff", "source_id": str(n)} for s in "ab" for n in range(4)]


IDS = [f"d/{c['slide']}/{c['source_id']}" for c in CELLS]


VECTORS = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)


def write(path: Path, **columns: object) -> Path:
    """Write a file as others would: Parquet columns or npz arrays."""
    if path.suffix == ".npz":
        np.savez(path, **columns)
    else:
        pq.write_table(pa.table(columns), path)
    return path
