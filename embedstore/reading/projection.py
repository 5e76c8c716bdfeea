"""Vectors on a map: two principal components, or UMAP with its seed."""

import importlib.util
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from embedstore.errors import EmbedstoreError

N_NEIGHBORS, MIN_DIST = 15, 0.1
"""What UMAP looks at: the nearest of each cell by cosine, its usual numbers."""


def principal_components(
    vectors: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return places, float32 (n, 2), and what share of the variance each of the two explains.

    The sign of each component is such that its largest loading is positive (scikit-learn's rule).
    """
    from sklearn.decomposition import PCA

    n, d = vectors.shape
    if min(n, d) < 2 or not (vectors != vectors[0]).any():
        return np.zeros((n, 2), dtype=np.float32), (0.0, 0.0)
    solver = "full" if min(n, d) < 3 else "covariance_eigh" if n > d else "arpack"
    pca = PCA(n_components=2, svd_solver=solver, random_state=0)
    places = pca.fit_transform(vectors)
    first, second = pca.explained_variance_ratio_
    return places.astype(np.float32), (float(first), float(second))


def check_umap() -> None:
    """Raise EmbedstoreError where umap-learn is not installed."""
    if importlib.util.find_spec("umap") is None:
        raise EmbedstoreError(
            "UMAP needs the package umap-learn: pip install 'mitosis-embedstore[explore]'"
        )


def umap(vectors: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """Return UMAP's places, float32 (n, 2): the same for the same seed, on one thread.

    Neighbours by cosine. EmbedstoreError for fewer cells than it needs.
    """
    check_umap()
    if len(vectors) <= N_NEIGHBORS:
        raise EmbedstoreError(
            f"UMAP needs more than {N_NEIGHBORS} cells, here are {len(vectors)}; do without --umap"
        )
    with warnings.catch_warnings(action="ignore"), _as_many_threads():
        from umap import UMAP

        places = UMAP(
            n_neighbors=N_NEIGHBORS,
            min_dist=MIN_DIST,
            metric="cosine",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(vectors)
    return np.asarray(places, dtype=np.float32)


@contextmanager
def _as_many_threads() -> Iterator[None]:
    """Give OpenMP its threads back: Numba takes one per core from then on, also for PyTorch.

    A network trained after a map would else differ in its last digits from one trained before.
    """
    pools = ThreadpoolController().select(user_api="openmp").lib_controllers
    before = [pool.num_threads for pool in pools]
    try:
        yield
    finally:
        for pool, n in zip(pools, before, strict=True):
            pool.set_num_threads(n)
