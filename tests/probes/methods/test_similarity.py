"""kNN by its definition, prototypes against scikit-learn on the same sphere."""

import contextlib
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.utils.estimator_checks import estimator_checks_generator

from probes.methods.similarity import KnnProbe, PrototypeProbe


def sample(seed: int, n: int = 200, d: int = 12, k: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    X = rng.normal(size=(n, d)) + 5 + 1.2 * np.eye(d)[y]
    return X, np.array(["a", "b", "c"])[y]


def sphere(X: Any, mean: Any) -> Any:
    return (X - mean) / np.linalg.norm(X - mean, axis=1, keepdims=True)


@pytest.mark.parametrize("n_neighbors", [1, 5, 20, 1000])
def test_knn_is_by_the_distances_on_the_sphere(n_neighbors: int) -> None:
    X, y = sample(0)
    test, _ = sample(1)
    probe = KnnProbe(n_neighbors).fit(X, y)
    rows = sphere(X, X.mean(0))
    for t, shares in zip(sphere(test, X.mean(0)), probe.predict_proba(test), strict=True):
        nearest = y[np.argsort(((rows - t) ** 2).sum(1), kind="stable")[:n_neighbors]]
        np.testing.assert_allclose(shares, [(nearest == c).mean() for c in "abc"], atol=1e-12)
    assert (probe.predict(test) == probe.classes_[probe.predict_proba(test).argmax(1)]).all()


def test_of_equally_near_rows_the_earlier_vote() -> None:
    X = np.array([[1.0, 0], [1, 0], [1, 0], [-3, 0]])
    probe = KnnProbe(2).fit(X, ["a", "b", "b", "b"])
    assert probe.predict_proba([[2.0, 0]]).tolist() == [[0.5, 0.5]]


def test_neighbours_that_are_all_rows_vote_alike_and_say_so() -> None:
    X, y = sample(2)
    probe = KnnProbe(len(X)).fit(X, y)
    assert probe.collapsed_
    assert len(np.unique(probe.predict_proba(sample(3)[0]), axis=0)) == 1
    assert not KnnProbe(len(X) - 1).fit(X, y).collapsed_


def test_prototypes_are_nearest_centroids_on_the_sphere() -> None:
    X, y = sample(2)
    test, _ = sample(3)
    probe = PrototypeProbe().fit(X, y)
    oracle = NearestCentroid().fit(sphere(X, X.mean(0)), y)
    np.testing.assert_allclose(probe.prototypes_, oracle.centroids_, atol=1e-12)
    assert (probe.predict(test) == oracle.predict(sphere(test, X.mean(0)))).all()
    distances = ((sphere(test, X.mean(0))[:, None] - oracle.centroids_) ** 2).sum(2)
    expected = np.exp(-distances) / np.exp(-distances).sum(1, keepdims=True)
    np.testing.assert_allclose(probe.predict_proba(test), expected, atol=1e-9)


@pytest.mark.parametrize("probe", [KnnProbe, PrototypeProbe])
def test_types_and_one_label(probe: Any) -> None:
    X, y = sample(4)
    whole = probe().fit(X, y).predict_proba(X)
    half = probe().fit(X.astype(np.float32), y).predict_proba(X.astype(np.float32))
    assert half.dtype == np.float64
    np.testing.assert_allclose(half, whole, atol=0.05)
    with pytest.raises(ValueError, match="one class"):
        probe().fit(X, ["a"] * len(X))


@pytest.mark.parametrize("probe", [KnnProbe(), PrototypeProbe()])
def test_scikit_learns_checks_pass(probe: Any) -> None:
    passed = 0
    for instance, check in estimator_checks_generator(probe):
        with contextlib.suppress(SkipTest):  # checks of packages that are not here
            check(instance)
            passed += 1
    assert passed > 40
