"""UNI's linear probe (Chen et al. 2024), minimised to its optimum rather than to a step limit.

The objective over W (K x d) and b (K): mean softmax cross-entropy + (1/C) * 0.5 * ||W||_F with
C = d * K / 100. The norm is not squared; b is not penalised; nothing is scaled or weighted.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

Floats = NDArray[np.float64]
SMALL = 2**22
"""Entries of a matrix below which several BLAS threads cost more than they save."""

BLOCK = 8192
"""Rows taken to float64 at a time, so that no second copy of the matrix is made."""


class UniProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Softmax regression with UNI's penalty; any number of labels.

    After fit: classes_; coef_ float64 (K, d); intercept_ float64 (K,); objective_ (the minimum);
    cost_ (C); n_iter_; collapsed_ (W = 0 is optimal: the penalty outweighs every direction);
    converged_.
    """

    def __init__(self, max_iter: int = 1000, tol: float = 1e-7) -> None:
        """Store max_iter (L-BFGS iterations) and tol (largest entry of the gradient at the end)."""
        self.max_iter = max_iter
        self.tol = tol

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Fit to X (n, d) and labels y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        n_classes, d = len(self.classes_), data.shape[1]
        if n_classes < 2:
            raise ValueError(
                f"UniProbe needs two or more classes, y has one class: {self.classes_}"
            )
        self.cost_ = d * n_classes / 100
        weight = 0.5 / self.cost_
        # W = 0 with b at its own optimum, the log frequencies: the only place the norm has a kink.
        b = np.log(np.bincount(codes) / len(codes))
        value, grad_w, _ = cross_entropy(np.zeros((n_classes, d)), b - b.mean(), data, codes)
        self.collapsed_ = bool(np.linalg.norm(grad_w) <= weight)
        self.coef_, self.intercept_ = np.zeros((n_classes, d)), b - b.mean()
        self.objective_, self.n_iter_, self.converged_ = value, 1, True
        if not self.collapsed_:
            with threadpool_limits(1 if data.size < SMALL else None, user_api="blas"):
                self._minimise(data, codes, weight, grad_w)
        return self

    def _minimise(self, data: Any, codes: NDArray[np.intp], weight: float, grad_w: Floats) -> None:
        shape = self.coef_.shape
        n_w = shape[0] * shape[1]

        def objective(flat: Floats) -> tuple[float, Floats]:
            w, b = flat[:n_w].reshape(shape), flat[n_w:]
            value, grad_w, grad_b = cross_entropy(w, b, data, codes)
            norm = float(np.linalg.norm(w))
            grad_w += weight * w / max(norm, np.finfo(float).tiny)
            return value + weight * norm, np.concatenate((grad_w.ravel(), grad_b))

        # A short step down from the kink, in a descent direction since the gradient beats weight.
        start = np.concatenate(((-1e-3 * grad_w / np.linalg.norm(grad_w)).ravel(), self.intercept_))
        found = minimize(
            objective, start, jac=True, method="L-BFGS-B",
            options={"maxiter": self.max_iter, "maxfun": 10 * self.max_iter, "maxcor": 50,
                     "ftol": 0.0, "gtol": self.tol},
        )  # fmt: skip
        gradient = float(np.abs(found.jac).max())
        self.coef_, self.intercept_ = found.x[:n_w].reshape(shape), found.x[n_w:]
        self.objective_, self.n_iter_ = float(found.fun), int(found.nit)
        # The line search may find nothing lower in float64 a little above tol: that is the optimum.
        self.converged_ = gradient <= max(100 * self.tol, 1e-5)

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return logits: float64 (n,) of the second class for two classes, else (n, K)."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def _logits(self, X: ArrayLike) -> Floats:  # noqa: N803
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        result: Floats = data @ self.coef_.T + self.intercept_
        return result

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        result: Floats = softmax(self._logits(X), axis=1)
        return result

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


def cross_entropy(
    w: Floats, b: Floats, data: NDArray[Any], codes: NDArray[np.intp]
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
