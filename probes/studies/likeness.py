"""How alike models are: linear CKA of their vectors, and how many nearest neighbours they share.

CKA as Kornblith et al. 2019, of centred vectors; mutual nearest neighbours as Huh et al. 2024, the
mean share of the k nearest of a cell that two models have in common. Two models may be alike in one
and not in the other: CKA follows the few directions with most variance.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from probes.scores.joint import Joint
from probes.scores.statistics import blocks_of
from probes.slices import Matrix
from probes.studies.cells import drawn, models_of
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "likeness"
K = 10
"""Nearest neighbours that are compared (Huh et al.)."""
LIMIT = 2_000
"""Annotations drawn where a dataset has more."""
N_BLOCKS = 20
"""Blocks of slides that are left out in turn for the intervals of CKA."""

Floats = NDArray[np.float64]


def likeness(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    limit: int = LIMIT,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Measure], list[str]]:
    """Return CKA and mutual nearest neighbours of every pair of models, recorded, and notes.

    metric cka (0 to 1, the same but for a rotation and one scale) and mutual_knn (0 to 1; details:
    k, chance). Intervals leave blocks of slides out. EmbedstoreError with fewer than two models.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    names = models_of(con, dataset, models)
    if len(names) < 2:
        raise EmbedstoreError(f"'{dataset}' has embeddings of one model, {names[0]}: none is alike")
    rows = fetch_rows(
        con,
        "select annotation_id, coalesce(source_slide, slide) as slide from annotations where "
        f"dataset = {literal(dataset)} and status = 'ok' order by 1",
    )
    at, notes = drawn([r["annotation_id"] for r in rows], limit)
    rows = rows if at is None else [rows[i] for i in at]
    ids, slides = [r["annotation_id"] for r in rows], [str(r["slide"]) for r in rows]
    if len(ids) <= K:
        raise EmbedstoreError(f"'{dataset}' has {len(ids)} annotations; likeness takes {K + 1}")
    data = {}
    for n, name in enumerate(names):
        on_progress(n, len(names))
        matrix = Matrix(store, name, dataset)
        data[name] = np.asarray(matrix.vectors(matrix.rows_of(ids)), dtype=np.float64)
    measures = pairs_of(data, slides)
    on_progress(len(names), len(names))
    record_measures(store, dataset, STUDY, measures)
    return measures, notes


def pairs_of(data: dict[str, Floats], slides: Sequence[str]) -> list[Measure]:
    """Return the measures of every pair of models; data: vectors (n, d) of the same cells."""
    n = len(slides)
    blocks = blocks_of(slides)
    of_cka = blocks_of([f"{b % N_BLOCKS}" for b in blocks.of])
    sizes = np.array([n])
    products = {name: _Products(x, x, of_cka.of, of_cka.n) for name, x in data.items()}
    near = {name: nearest(x) for name, x in data.items()}
    measures = []
    for a, b in combinations(data, 2):
        both = _Products(data[a], data[b], of_cka.of, of_cka.n)
        value, without = _cka(both, products[a], products[b])
        joint = Joint(np.array([value]), without[None], of_cka, sizes)
        same: dict[str, Any] = {"model": a, "against": b, "ci_by": "slide", "n": n}
        of = bounds(joint.share(lambda each: each[0]))
        measures.append(Measure("cka", n_groups=blocks.n_groups, **same, **of))
        shared = np.array([len(set(p) & set(q)) / K for p, q in zip(near[a], near[b], strict=True)])
        totals = np.bincount(blocks.of, shared, blocks.n)
        rest, nan = n - blocks.sizes, np.full((1, blocks.n), np.nan)
        left = np.divide((shared.sum() - totals)[None], rest, out=nan, where=rest > 0)
        joint = Joint(shared.mean(keepdims=True), left, blocks, sizes)
        of = bounds(joint.share(lambda each: each[0])) | {
            "details": {"k": K, "chance": K / (n - 1)}
        }
        measures.append(Measure("mutual_knn", n_groups=blocks.n_groups, **same, **of))
    return measures


class _Products:
    """The squared norm of two models' centred cross-product, as a whole and without blocks."""

    def __init__(self, x: Floats, y: Floats, of: NDArray[np.intp], n_blocks: int) -> None:
        """Sum up x (n, d) times y (n, e) by block."""
        n = len(x)
        # Shifts of all rows change nothing that is centred, and keep sums small.
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        whole = x.T @ y
        self.value = float((whole**2).sum())
        self.without = np.empty(n_blocks)
        for b in range(n_blocks):
            mine = of == b
            m = n - int(mine.sum())
            left = whole - x[mine].T @ y[mine]
            if m:
                left = left - np.outer(-x[mine].sum(axis=0), -y[mine].sum(axis=0)) / m
            self.without[b] = float((left**2).sum())


def _cka(both: _Products, one: _Products, two: _Products) -> tuple[float, Floats]:
    whole = np.sqrt(one.value * two.value)
    each = np.sqrt(one.without * two.without)
    nan = np.full(len(each), np.nan)
    value = both.value / whole if whole > 0 else float("nan")
    return float(value), np.divide(both.without, each, out=nan, where=each > 0)


def nearest(x: Floats) -> NDArray[np.intp]:
    """Return the K nearest other rows of each row by cosine, (n, K), in no order."""
    unit = (x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-12)).astype(np.float32)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.asarray(np.argpartition(similar, len(x) - K, axis=1)[:, len(x) - K :])
