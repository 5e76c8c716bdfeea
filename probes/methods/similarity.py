"""Probes without training: nearest neighbours and class prototypes, as UNI evaluates them.

Both centre embeddings by the training mean and scale each to length one (Wang et al. 2019,
SimpleShot), so that Euclidean distance is one of angles.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

Floats = NDArray[np.float64]
BLOCK = 2**22
"""Similarities held at a time."""


class _SimilarityProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """What both share: labels as codes, and rows on the sphere around the training mean."""

    def _learn(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[Any], NDArray[np.intp]]:  # noqa: N803
        data, labels = validate_data(self, X, y, dtype=(np.float32, np.float64))
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs two or more classes, y has one class: {self.classes_}"
            )
        self.mean_ = data.mean(axis=0, dtype=np.float64)
        return self._on_sphere(data), codes

    def _on_sphere(self, data: NDArray[Any]) -> NDArray[Any]:
        centred = data - self.mean_.astype(data.dtype)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        # The mean itself has no direction; it stays at the centre.
        whole = np.zeros_like(centred)
        return np.asarray(np.divide(centred, lengths, out=whole, where=lengths > 0))

    def _checked(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        check_is_fitted(self)
        data = validate_data(self, X, dtype=(np.float32, np.float64), reset=False)
        return self._on_sphere(data)

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        raise NotImplementedError

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """Return the most probable class of each row."""
        codes = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[codes])


class KnnProbe(_SimilarityProbe):
    """The share of each label among the nearest training rows; UNI takes 20 (Chen et al. 2024).

    After fit: classes_; mean_ float64 (d,); rows_ (n, d) on the unit sphere; codes_ (n,);
    collapsed_ (there are no more rows than neighbours, so that all vote alike on everything).
    """

    def __init__(self, n_neighbors: int = 20) -> None:
        """Store n_neighbors; with fewer training rows all of them vote."""
        self.n_neighbors = n_neighbors

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Keep X (n, d) and its labels y (n,); ValueError where y has one label only."""
        self.rows_, self.codes_ = self._learn(X, y)
        self.collapsed_ = len(self.rows_) <= self.n_neighbors
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return the share of votes, float64 (n, K), columns in the order of classes_."""
        data = self._checked(X)
        k = min(self.n_neighbors, len(self.rows_))
        step = max(1, BLOCK // len(self.rows_))
        shares = np.empty((len(data), len(self.classes_)))
        for i in range(0, len(data), step):
            similarity = data[i : i + step] @ self.rows_.T
            # Of equally near rows the earlier ones vote: argpartition alone would leave it open.
            kth = -np.partition(-similarity, k - 1, axis=1)[:, k - 1 : k]
            nearer, tied = similarity > kth, similarity == kth
            room = k - nearer.sum(axis=1, keepdims=True)
            votes = nearer | (tied & (np.cumsum(tied, axis=1) <= room))
            shares[i : i + step] = votes @ np.eye(len(self.classes_))[self.codes_] / k
        return shares


class PrototypeProbe(_SimilarityProbe):
    """Nearest class mean on the sphere: softmax of negative squared distances (Snell et al. 2017).

    After fit: classes_; mean_ float64 (d,); prototypes_ float64 (K, d).
    """

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Average the rows of X (n, d) by label y (n,); ValueError where y has one label only."""
        rows, codes = self._learn(X, y)
        n_classes = len(self.classes_)
        self.prototypes_ = np.stack(
            [rows[codes == k].mean(axis=0, dtype=np.float64) for k in range(n_classes)]
        )
        return self

    def predict_proba(self, X: ArrayLike) -> Floats:  # noqa: N803
        """Return probabilities, float64 (n, K), columns in the order of classes_."""
        data = self._checked(X)
        # ||x - p||^2 without ||x||^2, which is the same for every label.
        logits = 2 * (data @ self.prototypes_.T) - (self.prototypes_**2).sum(axis=1)
        return np.asarray(softmax(logits, axis=1))
