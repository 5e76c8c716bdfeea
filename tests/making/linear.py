"""Labelled rows for the linear probes."""

from typing import Any

import numpy as np


def data(n: Any = 200, d: Any = 120, k: Any = 2, seed: Any = 0, signal: Any = 3.0) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)) + signal * np.eye(k, d)[y] + 0.5
    return X.astype(np.float32), y
