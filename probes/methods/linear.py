"""The linear probes: classifiers in scikit-learn's grammar, fitted alone or many at once.

`uni` (Chen et al. 2024), minimised to its optimum rather than to a step limit. Over W (K x d) and
b (K,): mean softmax cross-entropy + (1/C) * 0.5 * ||W||_F with C = d * K / 100. The norm is not
squared; b is not penalised; nothing is scaled or weighted.

`logreg`: logistic regression with the squared penalty and scikit-learn's C, chosen on validation.
"""

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.methods.together import Task, fit_many, logits
from probes.solver.problems import (
    MAX_ITER,
    TOLERANCE,
    Floats,
)

C_GRID = 10 ** np.linspace(-6, 5, 20)
"""Values of C for `logreg` to choose from: the range of DINOv2's linear evaluation."""

UNI_TOLERANCE = 5e-7
"""How far above its minimum `uni` may end, as a part of it. `logreg` has the solver's own, which is
less: with this one a fit at C = 1e4 ended more than 1e-6 above its minimum."""


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What the probes share.

    After fit, beside what each adds: classes_; coef_ float64 (K, d), for two labels
    v = coef_[1] - coef_[0] = 2 * coef_[1]; intercept_ float64 (K,); objective_ (the minimum);
    cost_ (C); n_iter_; collapsed_ (W = 0 is optimal: the penalty outweighs every direction);
    converged_.
    """

    squared: ClassVar[bool]
    max_iter: int
    tol: float

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return the values of C to fit; more than one only where validation will choose."""
        raise NotImplementedError

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return the factor of the penalty (on v for two labels, on W for more) for C = cost."""
        raise NotImplementedError

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Fit to X (n, d) and labels y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        fit_many(data, [Task(self, None, labels)])
        return self

    def decision_function(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return logits: float64 (n,) of the second class for two classes, else (n, K)."""
        z = self._logits(X)
        return z[:, 1] - z[:, 0] if z.shape[1] == 2 else z

    def _logits(self, X: ArrayLike) -> Floats:  # noqa: N803
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return logits(data, None, self.coef_, self.intercept_)

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        result: Floats = softmax(self._logits(X), axis=1)
        return result

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


class UniProbe(LinearProbe):
    """UNI's probe: softmax regression with the norm as penalty, C = d * K / 100; no choices."""

    squared = False

    def __init__(self, max_iter: int = MAX_ITER, tol: float = UNI_TOLERANCE) -> None:
        """Store max_iter (steps) and tol (how far above the minimum to end, relative to it)."""
        self.max_iter = max_iter
        self.tol = tol

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return UNI's C alone."""
        return np.array([d * n_classes / 100])

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return 0.5 / C; for two labels ||W||_F = ||v|| / sqrt(2), since W = [-v/2, v/2]."""
        return 0.5 / cost / (np.sqrt(2) if n_classes == 2 else 1)


class LogRegProbe(LinearProbe):
    """Logistic regression, squared penalty: scikit-learn's at the same C.

    The objective is mean log-loss + ||v||^2 / (2 n C) (for more than two labels W's norm). Given
    validation rows, C is the value of C_GRID with the lowest validation log-loss, the smaller one
    of equals. After fit also: choice_ ('given', 'validation', or 'default': C = 1 where validation
    is absent or has one label), val_losses_ (float64 by C_GRID, or None).
    """

    squared = True

    def __init__(
        self,
        C: float | None = None,  # noqa: N803
        max_iter: int = MAX_ITER,
        tol: float = TOLERANCE,
    ) -> None:
        """Store C (None: chosen on validation), max_iter and tol as for UniProbe."""
        self.C = C
        self.max_iter = max_iter
        self.tol = tol

    def candidates(self, d: int, n_classes: int, *, choose: bool) -> NDArray[np.float64]:
        """Return the grid where validation chooses, else C or its default."""
        self.choice_ = "given" if self.C is not None else "validation" if choose else "default"
        self.val_losses_: Floats | None = None
        return C_GRID if self.choice_ == "validation" else np.array([self.C or 1.0])

    def strength(self, cost: float, n: int, n_classes: int) -> float:
        """Return 1 / (n C)."""
        return 1 / (n * cost)
