"""Stores with embeddings whose signal is known."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedstore.add import AddOptions, add
from embedstore.slides.patches import D4
from embedstore.store import Store, now
from embedstore.store.layout import model_schema, model_table, view_id, views_schema, views_table
from embedstore.store.sql import connect, fetch_rows
from tests.making.slides import write_csv


def bare_store(uri: str, dataset: str, cells: Sequence[dict[str, Any]]) -> Store:
    """A store in which these cells (slide, source_id and what else is said) are a dataset."""
    store = Store.open(uri, create=True)
    store.merge("datasets", [{"dataset": dataset, "positive_label": "mitotic figure"}])
    slides = dict.fromkeys(c["slide"] for c in cells)
    store.merge(
        "slides",
        [
            {
                "slide_id": f"{dataset}/{s}",
                "dataset": dataset,
                "slide": s,
                "case_id": s,
                "status": "missing",
                "width": 10_000,
                "height": 10_000,
            }
            for s in slides
        ],
    )
    store.merge(
        "annotations",
        [
            {
                "annotation_id": f"{dataset}/{c['slide']}/{c['source_id']}",
                "dataset": dataset,
                "case_id": c["slide"],
                "domain": "a",
                "label": ("mitotic figure", "other")[n % 2],
                "x_l0": 100.0 + n,
                "y_l0": 200.0,
                **c,
            }
            for n, c in enumerate(cells)
        ],
    )
    return store


KEYS = ("annotation_id", "dataset", "domain", "label", "slide")


def vector_table(
    model: str, rows: Sequence[Mapping[str, Any]], vectors: np.ndarray, *, view: str | None = None
) -> pa.Table:
    """Rows of a model's table, or of its table of views: what is known of annotations, vectors.

    rows name the KEYS of n annotations, vectors are (n, dim) and stored as float32.
    """
    dim = vectors.shape[1]
    columns: dict[str, Any] = {k: [r[k] for r in rows] for k in KEYS}
    columns["model"] = [model] * len(rows)
    columns["embedded_at"] = columns["resized"] = [None] * len(rows)
    flat = pa.array(vectors.astype(np.float32).ravel())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, dim)
    if view is not None:
        columns["view"] = [view] * len(rows)
        columns["view_id"] = [view_id(r["annotation_id"], view) for r in rows]
    schema = model_schema(dim) if view is None else views_schema(dim)
    none = [None] * len(rows)
    return pa.table({n: columns.get(n, none) for n in schema.names}, schema=schema)


def keyed_vectors(ids: Sequence[str], vectors: np.ndarray) -> pa.Table:
    """Rows of a model's table whose annotations nothing is known of but their ids."""
    return vector_table(
        "x", [dict.fromkeys(KEYS, "x") | {"annotation_id": i} for i in ids], vectors
    )


def put_embeddings(store: Store, model: str, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Write float32 vectors (n, dim) of annotations straight into a model's table, and a record."""
    dim = vectors.shape[1]
    of_id = {r["annotation_id"]: r for r in query(store, "from annotations")}
    store.make_model_table(model, dim)
    record = {
        "model": model,
        "arch": "a",
        "dim": dim,
        "pooling": "token",
        "dtype": "float16",
        "patch_px": 224,
        "mpp_out": 0.25,
        "n_params": 7,
        "weights": "w@1",
        "weights_sha256": "ab",
        "created_at": now(),
        "mean": [0.1, 0.2, 0.3],
        "std": [0.7, 0.8, 0.9],
    }
    store.merge("models", [record], replace=False)
    store.merge(model_table(model), vector_table(model, [of_id[i] for i in ids], vectors))


def plant(store: Store, model: str, dim: int, signal: float, weights: str = "w.pth") -> None:
    """Store vectors whose first number tells the label with strength `signal`, the rest is noise."""
    rng = np.random.default_rng(sum(model.encode()))
    rows = query(store, "select * from annotations where status = 'ok'")
    vectors = rng.normal(size=(len(rows), dim)).astype(np.float32)
    vectors[:, 0] += [signal * (r["label"] == "mitotic figure") for r in rows]
    store.make_model_table(model, dim)
    order = rng.permutation(len(rows))  # rows lie in no order, in several fragments
    table = vector_table(model, rows, vectors).take(pa.array(order))
    for start in range(0, len(rows), 150):
        store.merge(model_table(model), table.slice(start, 150))
    record = {"model": model, "dim": dim, "weights": weights, "weights_sha256": "0" * 64}
    store.merge("models", [record])


def plant_two(uri: str, n_d: int, n_e: int) -> Store:
    """Register datasets d and e, 3 domains of unequal size, 30 slides of 15 cases each."""
    rng = np.random.default_rng(3)
    for name, n in (("d", n_d), ("e", n_e)):
        rows = []
        for k in range(n):
            s = min(int(rng.integers(0, 30)), int(rng.integers(0, 30)))
            rows.append(
                {
                    "slide": f"{name}{s:02d}.tiff",
                    "x": k,
                    "y": k % 50,
                    "case": f"c{s // 2}",
                    "label": ("mitosis", "imposter")[int(rng.random() < 0.6)],
                    "domain": f"dom{(s // 2) % 3}",
                }
            )
        add(uri, name, write_csv(Path(f"{uri}-{name}.csv"), rows), AddOptions())
    return Store.open(uri)


def plant_views(store: Store, model: str, dim: int, views: Sequence[str] = tuple(D4)) -> None:
    """Views that are the model's vectors with noise of their own, r0 the vectors themselves."""
    rng = np.random.default_rng(9)
    rows = query(store, f'select * from "{model}"')
    base = np.array([r["vector"] for r in rows], dtype=np.float32)
    store.make_views_table(model, dim)
    for view in views:
        noise = 0 if view == "r0" else rng.normal(0, 0.7, base.shape)
        store.merge(views_table(model), vector_table(model, rows, base + noise, view=view))


EVIL = "<script>alert(1)</script>"


DATASET = f"set {EVIL}"


MODELS = ("$x_1$ & <b>|m|</b> %#{y}", "_under\\score")


DOMAINS = ("a|b & $c$", "<img src=x onerror=alert(2)>", "\\alpha {d}")


OTHER = "other </script> \"label\" 'x'"


def cells(n: int) -> list[dict[str, Any]]:
    return [
        {
            "slide": f"{'abc'[k % 3]}{k % 4}<i>.tiff",
            "source_id": f"{k}&",
            "domain": DOMAINS[k % 3],
            "label": ("mitotic figure", OTHER)[k // 3 % 2],
        }
        for k in range(n)
    ]


def plant_cells(
    uri: str, dataset: str, models: Any, n: int = 150, domains: Any = DOMAINS, other: Any = OTHER
) -> Store:
    """A store with vectors that tell labels a little, the first model better than the second."""
    mine = [
        {**c, "domain": domains[k % 3], "label": c["label"].replace(OTHER, other)}
        for k, c in enumerate(cells(n))
    ]
    store = bare_store(uri, dataset, mine)
    ids = [f"{dataset}/{c['slide']}/{c['source_id']}" for c in mine]
    rng = np.random.default_rng(3)
    signal = np.array([c["label"] == "mitotic figure" for c in mine])[:, None]
    place = np.array([domains.index(c["domain"]) for c in mine])[:, None]
    first = np.arange(60)
    for k, m in enumerate(models):
        vectors = rng.normal(size=(n, 60))
        vectors += signal * (first < 4) * (1.3 - 0.6 * k) + place * (first == 9) * (k + 1)
        put_embeddings(store, m, ids, vectors.astype(np.float32))
    return store


def query(store: Store, sql: str) -> list[dict[str, Any]]:
    """The rows of a query over the store's views."""
    return fetch_rows(connect(store), sql)


def query_of(uri: str, sql: str) -> list[dict[str, Any]]:
    """The rows of a query over the views of the store at this place."""
    return query(Store.open(uri), sql)
