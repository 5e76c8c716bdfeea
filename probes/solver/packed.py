"""Symmetric float32 matrices in LAPACK's rectangular full packed format: half the memory, as fast.

See Gustavson and others (2010), "Rectangular full packed format for Cholesky's algorithm". Of each
matrix the lower triangle is held, in float32 (d (d + 1) / 2,). Factoring and solving call LAPACK
without Python's lock, which SciPy's own functions keep: other threads would wait for them.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cython_lapack, lapack

Single = NDArray[np.float32]


def _routine(name: str) -> Callable[..., int]:
    """Return a LAPACK routine; all of its arguments are addresses."""
    capsule = cython_lapack.__pyx_capi__[name]
    api = ctypes.pythonapi
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    function: Any = ctypes.CFUNCTYPE(None)(address)

    def call(*args: bytes | int | Single) -> int:
        """Call with characters, integers and arrays; return LAPACK's info."""
        info = ctypes.c_int(0)
        kept: list[Any] = [ctypes.c_int(a) if isinstance(a, int) else a for a in args]
        function(
            *(
                ctypes.c_char_p(a)
                if isinstance(a, bytes)
                else ctypes.c_void_p(a.ctypes.data)
                if isinstance(a, np.ndarray)
                else ctypes.byref(a)
                for a in [*kept, info]
            )
        )
        return info.value

    return call


_spftrf, _spftrs = _routine("spftrf"), _routine("spftrs")


def pack(lower: Single) -> Single:
    """Return the lower triangle of a matrix (d, d) in Fortran's order, packed."""
    packed: Single = lapack.strttf(lower, uplo="L")[0]
    return packed


def diagonal(d: int) -> NDArray[np.intp]:
    """Return where the diagonal of a d x d matrix lies when packed."""
    odd = d % 2
    column = d + 1 - odd  # left half as it is (a row lower if d is even), right half turned beside
    left = np.arange((d + 1) // 2) * (column + 1) + 1 - odd
    right = np.arange(d // 2) * (column + 1) + odd * column
    return np.concatenate((left, right))


def subtract_outer(packed: Single, columns: Single) -> Single:
    """Return packed - columns columns' as a new matrix; columns (d, m) in Fortran's order."""
    result: Single = lapack.ssfrk(
        *columns.shape, -1, columns, 1, packed.copy(), uplo="L", overwrite_c=1
    )
    return result


def factor(packed: Single, d: int) -> bool:
    """Replace a matrix by its Cholesky factor; False (what is there is void) if not positive."""
    return _spftrf(b"N", b"L", d, packed) == 0


def solve(factored: Single, right: Single) -> Single:
    """Return the solutions (m, d) for right sides (m, d), which they replace."""
    m, d = right.shape
    _spftrs(b"N", b"L", d, m, factored, right, d)
    return right
