"""Stores that benchmarks fill: one dataset's annotations, and vectors of them by model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.embeddings.writer import embeddings_table
from embedstore.store import Store, now
from embedstore.store.layout import CUT, model_table

MPP, FINGERPRINT = 0.25, "made up"
POSITIVE, NEGATIVE = "mitotic figure", "non-mitotic figure"


@dataclass(frozen=True)
class Cell:
    """One annotation of a dataset; its slide is a case of its own."""

    source_id: str
    slide: str
    domain: str
    label: str
    x_l0: float
    y_l0: float


def make_store(uri: str, dataset: str, cells: Sequence[Cell]) -> Store:
    """Return a store with one dataset, which has these annotations added to it."""
    store = Store.open(uri, create=True)
    store.merge("datasets", [{"dataset": dataset, "positive_label": POSITIVE}])
    slides = dict.fromkeys(c.slide for c in cells)
    store.merge(
        "slides",
        [
            {
                "slide_id": f"{dataset}/{slide}",
                "dataset": dataset,
                "slide": slide,
                "kind": "slide",
                "case_id": slide,
                "case_source": "slide",
                "mpp": MPP,
                "fingerprint": FINGERPRINT,
                "status": "ok",
                "width": 10**5,
                "height": 10**5,
            }
            for slide in slides
        ],
    )
    store.merge(
        "annotations",
        [
            {
                "annotation_id": f"{dataset}/{c.slide}/{c.source_id}",
                "dataset": dataset,
                "slide": c.slide,
                "case_id": c.slide,
                "domain": c.domain,
                "label": c.label,
                "x_l0": c.x_l0,
                "y_l0": c.y_l0,
                "source_id": c.source_id,
            }
            for c in cells
        ],
    )
    return store


def make_model(store: Store, model: str, dim: int) -> None:
    """Record a model and make its table, empty."""
    store.make_model_table(model, dim)
    made_up = {"weights": "made up", "dtype": "float32", "patch_px": 224, "mpp_out": MPP}
    store.merge("models", [{"model": model, "registry_name": model, "dim": dim, **made_up}])


def put_vectors(
    store: Store, model: str, dataset: str, cells: Sequence[Cell], vectors: NDArray[np.float32]
) -> None:
    """Add the vectors, float32 (n, dim), of these annotations to a model's table in one write."""
    rows = [
        {
            "annotation_id": f"{dataset}/{c.slide}/{c.source_id}",
            "dataset": dataset,
            "domain": c.domain,
            "label": c.label,
            "slide": c.slide,
            **dict(zip(CUT, (c.x_l0, c.y_l0, MPP, FINGERPRINT), strict=True)),
        }
        for c in cells
    ]
    table = embeddings_table(model, rows, vectors, [None] * len(rows), now())
    store.merge(model_table(model), table)
