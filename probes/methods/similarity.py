"""Probes without training: nearest neighbours and class prototypes, as UNI evaluates them.

Both centre embeddings by the training mean and scale each to length one (Wang et al. 2019,
SimpleShot), so that Euclidean distance is one of angles, whatever the scale of the embeddings.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]

ROUNDING = 1e-12
"""Beside the largest number of an embedding, what is left of it by this share is rounding."""


def _two_or_more(probe: Any, labels: NDArray[Any]) -> NDArray[Any]:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{type(probe).__name__} needs two or more classes, y has one class: {classes}"
        )
    return classes


def _mean(data: NDArray[Any]) -> Floats:
    """Return the mean row, float64 (d,), of finite rows of any size."""
    largest = float(np.abs(data).max()) or 1.0
    return np.asarray((data / data.dtype.type(largest)).mean(axis=0, dtype=np.float64) * largest)


def on_sphere(data: NDArray[Any], mean: Floats) -> Floats:
    """Return rows less the mean, each of length one, float64; one that is the mean stays zero."""
    rows = data.astype(np.float64) - mean
    reach = np.abs(rows).max(axis=1, keepdims=True)
    whole = reach > ROUNDING * np.maximum(
        np.abs(data).max(axis=1, keepdims=True), np.abs(mean).max()
    )
    # By its largest number first: squares of very large or small ones would not be numbers.
    np.divide(rows, reach, out=rows, where=whole)
    rows[~whole[:, 0]] = 0
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=rows, where=lengths > 0))


class KnnProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The share of each label among the nearest training rows; UNI takes 20 (Chen et al. 2024).

    After fit: classes_; mean_ float64 (d,); neighbors_, scikit-learn's, by brute force; collapsed_
    (all vote alike on everything: no more rows than neighbours, or all rows are one).
    """

    def __init__(self, n_neighbors: int = 20) -> None:
        """Store n_neighbors; with fewer training rows all of them vote."""
        self.n_neighbors = n_neighbors

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Keep X (n, d) and its labels y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_ = _two_or_more(self, labels)
        self.mean_ = _mean(data)
        rows = on_sphere(data, self.mean_).astype(data.dtype)
        self.collapsed_ = len(data) <= self.n_neighbors or not rows.any()
        n_neighbors = min(self.n_neighbors, len(data))
        self.neighbors_ = KNeighborsClassifier(n_neighbors, algorithm="brute").fit(rows, labels)
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the share of votes, float64 (n, K), columns in the order of classes_."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        rows = on_sphere(data, self.mean_).astype(data.dtype)
        return np.asarray(self.neighbors_.predict_proba(rows), dtype=np.float64)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the label with most votes of each row."""
        codes = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


class PrototypeProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest class mean on the sphere: softmax of negative squared distances (Snell et al. 2017).

    After fit: classes_; mean_ float64 (d,); prototypes_ float64 (K, d); collapsed_ (all are one).
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Average the rows of X (n, d) by label y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_ = _two_or_more(self, labels)
        self.mean_ = _mean(data)
        rows, codes = on_sphere(data, self.mean_), np.searchsorted(self.classes_, labels)
        n_classes = len(self.classes_)
        self.prototypes_ = np.stack(
            [rows[codes == k].mean(axis=0, dtype=np.float64) for k in range(n_classes)]
        )
        self.collapsed_ = bool((self.prototypes_ == self.prototypes_[0]).all())
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        data = on_sphere(data, self.mean_)
        # ||x - p||^2 without ||x||^2, which is the same for every label.
        logits = 2 * (data @ self.prototypes_.T) - (self.prototypes_**2).sum(axis=1)
        return np.asarray(softmax(logits, axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])
