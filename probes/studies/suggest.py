"""Which cells to label next: those a probe is unsure of, unlike each other, spread over slides.

BADGE (Ash et al., ICLR 2020) on a linear probe: k-means++ over the gradients that a cell would give
if its likeliest label were true. One cell of a sure prediction has a short gradient, two alike have
near ones; what is drawn is uncertain and diverse without a weight between the two. Other than
there, no gradient at all counts as taken from the start: else each of many sure cells would be far
from the unsure ones that are taken, and be drawn for it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.exchange.qupath import Cell
from embedstore.reading.vectors import vectors_of
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, where_clause
from embedstore.store.tags import change, check_tag
from probes.methods.table import METHODS, USUAL
from probes.studies.cell_files import Found
from probes.studies.cells import SEED

ABOUT = "annotation_id, slide, case_id, domain, label, x_l0, y_l0, source_id, kind, source_slide"
QUOTA = 3
"""A slide gives at most this many times its equal share, where nothing else is asked for."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SuggestOptions:
    """What is labelled, what is not, and how many are asked for.

    The pool, cells without a label yet: another dataset, or a condition on the view annotations, or
    both. where: of the labelled cells, all those of the dataset that are not in the pool.
    per_slide None: QUOTA times an equal share. tag: what `tag_suggested` calls them in the store.
    """

    model: str
    n: int = 200
    pool: str | None = None
    pool_where: str | None = None
    where: str | None = None
    method: str = USUAL
    per_slide: int | None = None
    seed: int = SEED
    tag: str | None = None

    def check(self) -> None:
        """Raise UsageError for what no store would allow."""
        if self.pool is None and not (self.pool_where or "").strip():
            raise UsageError(
                "say which cells have no label yet: --pool DATASET, another dataset, or "
                "--pool-where SQL, a condition such as \"label = 'candidate'\""
            )
        if self.method not in METHODS:
            raise UsageError(f"unknown method '{self.method}'; allowed: {', '.join(METHODS)}")
        if self.tag is not None:
            check_tag(self.tag)
        if self.n < 1 or (self.per_slide is not None and self.per_slide < 1):
            raise UsageError("-n and --per-slide are at least 1")


@dataclass(frozen=True, kw_only=True)
class Suggested(Found):
    """A cell to label next: what the probe says of it, how sure, and what it is unlike.

    probability is of the label said, margin that less the next one's.
    """

    rank: int
    domain: str | None
    said: str
    probability: float
    margin: float

    def cell(self) -> Cell:
        """Return it for QuPath; its name says what the probe makes of it."""
        numbers = {"rank": self.rank, "probability": self.probability, "margin": self.margin}
        return Cell(self.annotation_id, f"{self.said}? ({self.probability:.2f})", numbers)


def suggest(
    store: Store,
    dataset: str,
    options: SuggestOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Suggested], list[str]]:
    """Return the cells to label next, the one that says most first, and notes.

    EmbedstoreError where nothing is labelled, or the pool is empty.
    """
    options.check()
    con = connect(store)
    check_dataset(store, con, dataset)
    x, labelled, pool_x, pool = _read(store, dataset, options)
    labels = np.array(labelled["label"].to_pylist(), dtype=object)
    if len(set(labels)) < 2:
        raise EmbedstoreError(
            f"the labelled cells have one label, '{labels[0]}': label some of another one first"
        )
    probe = METHODS[options.method].make().fit(x, labels)
    p = np.asarray(probe.predict_proba(pool_x), dtype=np.float64)
    rows = pool.to_pylist()
    slides = np.array([r["source_slide"] or r["case_id"] or r["slide"] for r in rows], dtype=object)
    quota = options.per_slide or share(options.n, len(set(slides)))
    chosen = choose(pool_x, p, slides, options.n, quota, seed=options.seed, on_progress=on_progress)
    top = -np.sort(-p, axis=1)
    found = [
        _suggested(rows[k], rank, str(probe.classes_[p[k].argmax()]), top[k])
        for rank, k in enumerate(chosen, start=1)
    ]
    n_slides = len({slides[k] for k in chosen})
    notes = [
        f"{len(found):,} of {len(rows):,} cells on {n_slides:,} of {len(set(slides)):,} slides, at "
        f"most {quota:,} a slide; by {options.method} on {len(labels):,} labelled cells, seed "
        f"{options.seed}"
    ]
    if len(found) < min(options.n, len(rows)):
        notes.append("more were asked for than --per-slide allows")
    return found, notes


def tag_suggested(store: Store, options: SuggestOptions, found: Sequence[Suggested]) -> list[str]:
    """Tag the cells where that is asked for; return what is to be said of it."""
    if options.tag is None:
        return []
    return change(store, options.tag, [c.annotation_id for c in found])[1]


def share(n: int, n_slides: int) -> int:
    """Return how many cells a slide gives at most where nothing is asked for."""
    return max(1, -(-QUOTA * n // max(n_slides, 1)))


def _read(store: Store, dataset: str, options: SuggestOptions) -> tuple[Any, Any, Any, Any]:
    """Return the labelled cells and the pool: vectors (n, d) and what is known of each."""
    pool_of = options.pool or dataset
    is_elsewhere = pool_of != dataset
    in_pool = where_clause(options.pool_where)
    labelled = options.where
    if not is_elsewhere:
        labelled = f"{where_clause(options.where)} and ({in_pool}) is not true"
    try:
        pool = vectors_of(store, options.model, pool_of, in_pool, ABOUT)
    except EmbedstoreError as e:
        raise EmbedstoreError(f"the pool: {e}") from e
    try:
        known = vectors_of(store, options.model, dataset, labelled, ABOUT)
    except EmbedstoreError as e:
        raise EmbedstoreError(f"the labelled cells: {e}") from e
    return *known, *pool


def choose(
    x: NDArray[np.floating[Any]],
    p: Floats,
    slides: NDArray[Any],
    n: int,
    quota: int,
    *,
    seed: int = SEED,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[int]:
    """Return which rows of a pool to label, in order: k-means++ over gradients, a quota a slide.

    Args:
        x: vectors (m, d). They count by direction from their mean, so that long ones say no more.
        p: probabilities (m, K).
        slides: what each is of (m,); at most quota are taken of one.
        n: how many at most.
        quota: at least 1.
        seed: of what is drawn.
        on_progress: called with how many are chosen, and of how many.
    """
    codes = np.unique(slides.astype(str), return_inverse=True)[1]
    left = np.full(codes.max(initial=-1) + 1, quota)
    unit = x - (x.mean(axis=0, dtype=np.float64) if len(x) else 0)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    residual = p.copy()
    residual[np.arange(len(p)), p.argmax(axis=1)] -= 1
    norms = (residual**2).sum(axis=1)  # of each gradient, squared: unit has length 1
    rng = np.random.default_rng(seed)
    is_open = np.ones(len(p), dtype=bool)
    nearest = norms.copy()
    chosen: list[int] = []
    total = min(n, len(p))
    while len(chosen) < total and is_open.any():
        k = _next(nearest, norms, is_open, rng, is_first=not chosen)
        chosen.append(k)
        on_progress(len(chosen), total)
        dot = (residual @ residual[k]) * (unit @ unit[k])
        nearest = np.minimum(nearest, np.maximum(norms + norms[k] - 2 * dot, 0))
        is_open[k] = False
        left[codes[k]] -= 1
        if not left[codes[k]]:
            is_open[codes == codes[k]] = False
    return chosen


def _next(
    nearest: Floats,
    norms: Floats,
    is_open: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    is_first: bool,
) -> int:
    """Return the longest gradient first, then one drawn by its squared distance to those taken."""
    weights = np.where(is_open, norms if is_first else nearest, 0)
    # What is alike to one that is taken has a distance of rounding alone.
    weights[weights < 1e-12 * max(weights.max(), 1e-300)] = 0
    if is_first or not weights.any():
        return int(np.argmax(np.where(is_open, norms, -1)))
    return int(rng.choice(len(weights), p=weights / weights.sum()))


def _suggested(row: dict[str, Any], rank: int, said: str, top: Floats) -> Suggested:
    is_patch = row["kind"] == "patch"
    return Suggested(
        slide=row["slide"],
        x=None if is_patch else row["x_l0"],
        y=None if is_patch else row["y_l0"],
        label=row["label"],
        id=row["source_id"],
        annotation_id=row["annotation_id"],
        rank=rank,
        domain=row["domain"],
        said=said,
        probability=float(top[0]),
        margin=float(top[0] - top[1]),
    )
