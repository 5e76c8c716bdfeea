"""More than two labels: softmax regression, one fit at a time, by L-BFGS-B in float64.

The objective over W (K x d) and b (K,): mean softmax cross-entropy + strength * ||W||_F, or
+ strength / 2 * ||W||_F^2.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits

from probes.solver.problems import Floats, Indices, Matrix, check_finite

SMALL = 2**22
"""Entries of a matrix below which several BLAS threads cost more than they save."""

BLOCK = 8192
"""Rows taken to float64 at a time, so that no second copy of the matrix is made."""

GRADIENT = 1e-7
"""Largest entry of the gradient, in the coordinates of `fit_softmax`, at which to stop."""

SAMPLE, FLAT = 8, 1e-2
"""Sampled rows per column, and how flat a direction counts, in mean variances."""


@dataclass(frozen=True)
class Softmax:
    """W float64 (K, d), b (K,), the objective there, iterations; see problems.Solution."""

    w: Floats
    b: Floats
    value: float
    n_iter: int
    collapsed: bool
    converged: bool


_LIMITS = {"maxcor": 50, "ftol": 0.0, "gtol": GRADIENT}


def fit_softmax(
    data: Matrix,
    codes: Indices,
    strength: float,
    *,
    squared: bool,
    max_iter: int,
    start: Softmax | None = None,
) -> Softmax:
    """Return the optimum for rows data (n, d) with labels codes (n,) in 0..K-1, all present.

    Solved about the mean of the rows, which b makes up for, and in coordinates in which a sample of
    the rows varies alike in all directions: without that, thousands of steps would be needed.
    """
    counts = np.bincount(codes)
    shape = (len(counts), data.shape[1])
    w, b = np.zeros(shape), np.log(counts / len(codes))
    b -= b.mean()
    with threadpool_limits(1 if data.size < SMALL else None, user_api="blas"):
        value, grad_w, _ = cross_entropy(w, b, data, codes)
        check_finite(grad_w)
        steep = float(np.linalg.norm(grad_w))
        if not squared and steep <= strength:
            return Softmax(w, b, value, 1, collapsed=True, converged=True)
        mean, basis = _coordinates(data)
        if start is not None:
            w, b = start.w, start.b + start.w @ mean
        elif not squared:
            # A short step down from the kink at W = 0: descent, since the gradient beats strength.
            w = -1e-3 * grad_w / steep

        def objective(flat: Floats) -> tuple[float, Floats]:
            w, b = flat[:w_size].reshape(shape) @ basis.T, flat[w_size:]
            value, grad_w, grad_b = cross_entropy(w, b - w @ mean, data, codes)
            grad_w -= np.outer(grad_b, mean)
            norm = float(np.linalg.norm(w))
            grad_w += strength * w / (1 if squared else max(norm, np.finfo(float).tiny))
            value += strength * (0.5 * norm**2 if squared else norm)
            return value, np.concatenate(((grad_w @ basis).ravel(), grad_b))

        w_size = w.size
        first = np.concatenate((np.linalg.solve(basis, w.T).T.ravel(), b))
        minimum = minimize(
            objective,
            first,
            jac=True,
            method="L-BFGS-B",
            options=_LIMITS | {"maxiter": max_iter, "maxfun": 10 * max_iter},
        )
        w, b = minimum.x[:w_size].reshape(shape) @ basis.T, minimum.x[w_size:]
    # The line search may find nothing lower in float64 a little above GRADIENT: that's the optimum.
    converged = float(np.abs(minimum.jac).max()) <= 100 * GRADIENT
    return Softmax(
        w, b - w @ mean, float(minimum.fun), int(minimum.nit), collapsed=False, converged=converged
    )


def _coordinates(data: Matrix) -> tuple[Floats, Floats]:
    """Return the mean of the rows (d,), and a basis (d, d) in which a sample of them is round."""
    d = data.shape[1]
    mean = np.zeros(d)
    for i in range(0, len(data), BLOCK):
        mean += data[i : i + BLOCK].sum(axis=0, dtype=np.float64)
    mean /= len(data)
    step = max(1, len(data) // (SAMPLE * d))
    centred = data[::step].astype(np.float64) - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    # Directions that hardly vary are not blown up: the penalty rules them.
    scale = np.maximum(values, 0) + FLAT * max(float(values.mean()), np.finfo(float).tiny)
    return mean, vectors / np.sqrt(scale)


def cross_entropy(
    w: Floats, b: Floats, data: Matrix, codes: NDArray[np.intp]
) -> tuple[float, Floats, Floats]:
    """Return mean softmax cross-entropy and its gradients by w (K, d) and b (K,), in float64."""
    value, grad_w, grad_b = 0.0, np.zeros_like(w), np.zeros_like(b)
    for i in range(0, len(data), BLOCK):
        rows = data[i : i + BLOCK].astype(np.float64, copy=False)
        code = codes[i : i + BLOCK]
        log_p = log_softmax(rows @ w.T + b, axis=1)
        value -= float(log_p[np.arange(len(code)), code].sum())
        residual = np.exp(log_p)
        residual[np.arange(len(code)), code] -= 1
        grad_w += residual.T @ rows
        grad_b += residual.sum(axis=0)
    n = len(data)
    return value / n, grad_w / n, grad_b / n
