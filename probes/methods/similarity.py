"""Probes without training: nearest neighbours and class prototypes, as UNI evaluates them.

Both centre embeddings by the training mean and scale each to length one (Wang et al. 2019,
SimpleShot), so that Euclidean distance is one of angles.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]


def _two_or_more(probe: Any, labels: NDArray[Any]) -> NDArray[Any]:
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"{type(probe).__name__} needs two or more classes, y has one class: {classes}"
        )
    return classes


class KnnProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The share of each label among the nearest training rows; UNI takes 20 (Chen et al. 2024).

    After fit: classes_; pipeline_, scikit-learn's, by brute force; collapsed_ (there are no more
    rows than neighbours, so that all vote alike on everything).
    """

    def __init__(self, n_neighbors: int = 20) -> None:
        """Store n_neighbors; with fewer training rows all of them vote."""
        self.n_neighbors = n_neighbors

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Keep X (n, d) and its labels y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_ = _two_or_more(self, labels)
        self.collapsed_ = len(data) <= self.n_neighbors
        self.pipeline_ = make_pipeline(
            StandardScaler(with_std=False),
            Normalizer(),
            KNeighborsClassifier(min(self.n_neighbors, len(data)), algorithm="brute"),
        ).fit(data, labels)
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the share of votes, float64 (n, K), columns in the order of classes_."""
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return np.asarray(self.pipeline_.predict_proba(data), dtype=np.float64)

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the label with most votes of each row."""
        codes = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


class PrototypeProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest class mean on the sphere: softmax of negative squared distances (Snell et al. 2017).

    After fit: classes_; mean_ float64 (d,); prototypes_ float64 (K, d).
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Average the rows of X (n, d) by label y (n,); ValueError where y has one label only."""
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_ = _two_or_more(self, labels)
        self.mean_ = data.mean(axis=0, dtype=np.float64)
        rows, codes = self._on_sphere(data), np.searchsorted(self.classes_, labels)
        n_classes = len(self.classes_)
        self.prototypes_ = np.stack(
            [rows[codes == k].mean(axis=0, dtype=np.float64) for k in range(n_classes)]
        )
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        check_is_fitted(self)
        data = self._on_sphere(validate_data(self, X, dtype=(np.float32, np.float64), reset=False))
        # ||x - p||^2 without ||x||^2, which is the same for every label.
        logits = 2 * (data @ self.prototypes_.T) - (self.prototypes_**2).sum(axis=1)
        return np.asarray(softmax(logits, axis=1))

    def _on_sphere(self, data: NDArray[Any]) -> NDArray[Any]:
        centred = data - self.mean_.astype(data.dtype)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        # The mean itself has no direction; it stays at the centre.
        whole = np.zeros_like(centred)
        return np.asarray(np.divide(centred, lengths, out=whole, where=lengths > 0))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])
