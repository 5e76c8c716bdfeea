"""Pictures on disk."""

from typing import Any

import numpy as np
from PIL import Image

from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows


def query(uri: str, sql: str) -> list[dict[str, Any]]:
    return fetch_rows(connect(Store.open(uri)), sql)


def image(path: Any, size: Any = (96, 80), mode: Any = "RGB") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(str(path.name).encode()))
    picture = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    picture.convert(mode).save(path)
    return path
