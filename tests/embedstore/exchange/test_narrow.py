"""float64 as float32: what cannot be held is a fault, what is rounded to zero is told."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embedstore.exchange.narrow import narrow, notes_on

ZERO = "vectors are zero in float32, their numbers too small"
LARGE = "vectors hold numbers too large for float32"
BROKEN = "vectors hold NaN or infinity"


@given(
    arrays(
        np.float64,
        st.tuples(st.integers(1, 5), st.integers(1, 4)),
        elements=st.sampled_from([0.0, 1.0, -2.5, 1e-60, -1e-50, 1e60, np.nan, np.inf, 1e-40]),
    )
)
def test_each_row_is_told_for_what_it_loses(values: Any) -> None:
    ids = [f"a{n}" for n in range(len(values))]
    faults: dict[str, list[str]] = {}
    small: list[str] = []
    rows = narrow(ids, values, faults, small)
    assert rows.dtype == np.float32
    for n, (i, row) in enumerate(zip(ids, values, strict=True)):
        lost = [v for v in row if 0 < abs(v) < 1e-46] if np.isfinite(row).all() else []
        left = [v for v in row if not abs(v) < 1e-46]
        if np.isfinite(row).all() and (abs(row) < 1e39).all():
            assert (i in faults.get(ZERO, [])) == (bool(lost) and not left)
            assert (i in small) == (bool(lost) and bool(left))
        assert (i in faults.get(BROKEN, [])) == (not np.isfinite(row).all())
        if np.isfinite(row).all():
            assert (i in faults.get(LARGE, [])) == bool((abs(row) > 1e39).any())
        same = abs(row) == 1
        assert np.array_equal(rows[n][same], row[same])
    assert bool(notes_on(small)) == bool(small)
