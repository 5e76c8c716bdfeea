"""Pictures on disk."""

from typing import Any

import numpy as np
from PIL import Image


def image(path: Any, size: Any = (96, 80), mode: Any = "RGB") -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(str(path.name).encode()))
    picture = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    picture.convert(mode).save(path)
    return path
