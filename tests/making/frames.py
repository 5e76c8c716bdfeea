"""Frames beside what commands print."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from embedstore.python.rows import Rows


def same(rows: Rows, printed: Sequence[Mapping[str, Any]]) -> None:
    """Hold that a frame has the rows a command printed; when they were made may differ."""
    assert len(rows) == len(printed)
    if not printed:
        return
    assert list(rows.columns) == list(printed[0])
    told = json.loads(rows.to_json(orient="records", date_format="iso", double_precision=15))
    for one, other in zip(told, printed, strict=True):
        for key, value in other.items():
            if not key.endswith("_at"):
                _same_value(one[key], value, key)


def _same_value(one: Any, other: Any, key: str) -> None:
    if isinstance(other, Mapping):
        assert set(one) == set(other), key
        for name, value in other.items():
            _same_value(one[name], value, f"{key} {name}")
    elif isinstance(other, list):
        assert len(one) == len(other), key
        for a, b in zip(one, other, strict=True):
            _same_value(a, b, key)
    elif isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12), key
    else:
        assert one == other, key
