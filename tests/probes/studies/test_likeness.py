"""Likeness by definition, left out by hand; a rotation is the same model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from probes.reports import report
from probes.studies.likeness import N_BLOCKS, K, likeness, pairs_of
from tests.making.commands import call_command
from tests.making.stores import bare_store, plant_cells, put_embeddings


def cka(x: Any, y: Any) -> float:
    """Oracle: Kornblith's definition through Gram matrices and the centring matrix."""
    n = len(x)
    h = np.eye(n) - 1 / n
    k, m = h @ x @ x.T @ h, h @ y @ y.T @ h
    return float((k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum()))


def test_it_is_the_definition_with_and_without_blocks() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 12)) + 3
    y = np.column_stack((x[:, :4] * 2, rng.normal(size=(150, 20))))
    slides = [f"s{k}" for k in rng.integers(0, 15, 150)]
    of: Any = {m.metric: m for m in pairs_of({"x": x, "y": y}, slides)}
    assert of["cka"].value == pytest.approx(cka(x, y))
    near = [
        NearestNeighbors(n_neighbors=K + 1, metric="cosine").fit(v).kneighbors(v)[1][:, 1:]
        for v in (x, y)
    ]
    shared = [len(set(a) & set(b)) / K for a, b in zip(*near, strict=True)]
    assert of["mutual_knn"].value == pytest.approx(np.mean(shared))
    assert of["mutual_knn"].details == {"k": K, "chance": pytest.approx(K / 149)}
    assert of["cka"].ci_low < of["cka"].value < of["cka"].ci_high
    # Fewer slides than blocks: each is left out by itself.
    from scipy.special import expit, logit
    from scipy.stats import t

    names = sorted(set(slides))
    assert len(names) <= N_BLOCKS
    at = [np.array(slides) != s for s in names]
    each = logit([cka(x[k], y[k]) for k in at])
    error = np.sqrt((len(each) - 1) / len(each) * ((each - each.mean()) ** 2).sum())
    sizes = np.array([(~k).sum() for k in at])
    freedom = sizes.sum() ** 2 / (sizes**2).sum() - 1
    low = expit(logit(of["cka"].value) - t.ppf(0.975, freedom) * error)
    assert of["cka"].ci_low == pytest.approx(low)


def test_a_rotation_is_the_same_and_noise_is_not(tmp_path: Path) -> None:
    store = plant_cells(str(tmp_path / "s"), "cells", ("a", "b"), n=300)
    from probes.slices import Matrix

    matrix = Matrix(store, "a", "cells")
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(60, 60)))[0]
    put_embeddings(store, "a-turned", matrix.ids.tolist(), matrix.X @ turned.astype(np.float32))
    measures, _ = likeness(store, "cells")
    of: Any = {(m.metric, m.model, m.against): m for m in measures}
    assert of["cka", "a", "a-turned"].value == pytest.approx(1, abs=1e-6)
    assert of["mutual_knn", "a", "a-turned"].value == pytest.approx(1, abs=0.01)
    assert of["mutual_knn", "a", "b"].value < 0.3
    report(store, [], tmp_path / "r")
    assert "How alike models are" in (tmp_path / "r" / "index.html").read_text()


def test_one_model_is_said(tmp_path: Path) -> None:
    store = bare_store(
        str(tmp_path / "s"), "c", [{"slide": "s", "source_id": f"{k}"} for k in range(20)]
    )
    put_embeddings(store, "m", [f"c/s/{k}" for k in range(20)], np.eye(20))
    done = call_command("probes", "likeness", "c", "--store", store.uri)
    assert done.code == 1
    assert "one model" in done.err
    put_embeddings(store, "n", [f"c/s/{k}" for k in range(20)], np.eye(20) + 0.1)
    two, _ = likeness(store, "c")  # of one slide: values, and no intervals
    assert all(m.value is not None and m.ci_low is None for m in two)
