"""Problems for the solver, and plain minimisers to hold it against."""

from typing import Any

import numpy as np
from scipy.optimize import minimize


def data(n: Any = 300, d: Any = 80, seed: Any = 0, signal: Any = 1.0, share: Any = 0.5) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.random(n) < share
    y[:2] = [True, False]
    direction = rng.normal(size=d) / np.sqrt(d)
    scale = np.arange(1, d + 1) ** -0.5
    X = (rng.normal(size=(n, d)) + signal * np.outer(y, direction * np.sqrt(d) / 2)) * scale + 0.3
    return X.astype(np.float32), y


def formula(v: Any, b: Any, X: Any, y: Any, strength: Any, squared: Any) -> Any:
    """The objective in plain float64."""
    z = X.astype(np.float64) @ v + b
    norm = np.sqrt(np.sum(v**2))
    penalty = strength / 2 * norm**2 if squared else strength * norm
    return np.mean(np.logaddexp(0, np.where(y, -z, z))) + penalty


def oracle(X: Any, y: Any, strength: Any, squared: Any) -> Any:
    """A plain minimiser that shares no code: columns standardised, penalty on the original v."""
    X = X.astype(np.float64)
    mean, sd = X.mean(axis=0), X.std(axis=0)
    sd[sd == 0] = 1
    Z = (X - mean) / sd

    def flat(p: Any) -> Any:
        v, z = p[:-1] / sd, Z @ p[:-1] + p[-1]
        norm = np.sqrt(np.sum(v**2))
        r = (1 / (1 + np.exp(-z)) - y) / len(y)
        penalty = strength / 2 * norm**2 if squared else strength * norm
        slope = Z.T @ r + strength * v / sd / (1 if squared else norm)
        return np.mean(np.logaddexp(0, np.where(y, -z, z))) + penalty, np.append(slope, r.sum())

    best: Any = None
    for seed in range(2):
        start = np.random.default_rng(seed).normal(size=X.shape[1] + 1) * 0.01
        found = minimize(
            flat,
            start,
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": 50_000,
                "maxfun": 200_000,
                "maxcor": 100,
                "ftol": 1e-15,
                "gtol": 1e-11,
            },
        )
        best = found if best is None or found.fun < best.fun else best
    v = best.x[:-1] / sd
    return v, best.x[-1] - mean @ v, best.fun
