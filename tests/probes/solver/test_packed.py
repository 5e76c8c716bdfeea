"""Packed matrices against plain linear algebra."""

import numpy as np
import pytest

from probes.solver import packed


@pytest.mark.parametrize("d", [1, 2, 7, 8, 41])
def test_packed_matrices_are_factored_and_solved(d: int) -> None:
    rng = np.random.default_rng(d)
    Z, columns = rng.normal(size=(3 * d + 9, d)), 0.1 * rng.normal(size=(d, 2))
    matrix = np.asfortranarray(Z.T @ Z / len(Z), dtype=np.float32)
    held = packed.subtract_outer(packed.pack(matrix), np.asfortranarray(columns, dtype=np.float32))
    held[packed.diagonal(d)] += np.float32(0.5)
    assert packed.factor(held, d)
    right = rng.normal(size=(3, d))
    found = packed.solve(held, right.astype(np.float32))
    dense = matrix - columns @ columns.T + 0.5 * np.eye(d)
    np.testing.assert_allclose(found @ dense, right, atol=1e-4)
    assert not packed.factor(packed.pack(-matrix), d)
