"""Vectors as float32: what it cannot hold is a fault, what it rounds to 0 a note."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def narrow(
    ids: list[str], values: NDArray[Any], faults: dict[str, list[str]], small: list[str]
) -> NDArray[np.float32]:
    """Return floating point rows as float32; what it cannot hold goes into faults, by id.

    Ids of rows with numbers that are zero in float32 alone go into small, or, where nothing else is
    left of a row, into faults.
    """
    with np.errstate(over="ignore", under="ignore"):
        rows = values.astype(np.float32, copy=False)
    if rows is not values:
        became_zero = (rows == 0) & (values != 0)
        is_gone = became_zero.any(axis=1) & ~rows.any(axis=1)
        if is_gone.any():
            gone = [ids[i] for i in np.flatnonzero(is_gone)]
            faults.setdefault("vectors are zero in float32, their numbers too small", []).extend(
                gone
            )
        small += [ids[i] for i in np.flatnonzero(became_zero.any(axis=1) & ~is_gone)]
    lost = ~np.isfinite(rows).all(axis=1)
    if lost.any():
        broken = ~np.isfinite(values).all(axis=1)
        dtypes = {
            "vectors hold NaN or infinity": broken,
            "vectors hold numbers too large for float32": lost & ~broken,
        }
        for what, mask in dtypes.items():
            if mask.any():
                faults.setdefault(what, []).extend(ids[i] for i in np.flatnonzero(mask))
    return rows


def notes_on(small: list[str]) -> list[str]:
    """Return a note on rows that hold numbers which float32 has no other word for than zero."""
    if not small:
        return []
    return [f"{len(small)} vectors hold numbers too small for float32, stored as 0 ({small[0]})"]
