"""Nearest neighbours by cosine, of a kind, on other slides: what robustness is measured on.

Robustness index (Kömen et al. 2025, PathoROB) and cross-confounder robustness margin (CRoMa), both
as croma 1.0.0 defines them, with a jackknife over slides that leaves a slide out on both sides: as
rows that are asked about, and as neighbours of the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]
Flags = NDArray[np.bool_]

CHUNK = 512
"""Rows whose similarities to all others are held at a time."""
M = 5
"""Neighbours of a kind whose distances a margin is made of (croma's usual)."""
KS = (1, 3, 5, 11, 21, 31, 51)
"""Neighbours of any kind among which the robustness index chooses, by balanced accuracy."""
SAME = 1e-9
"""Distances below this, summed, are of rows that are one and the same but for rounding."""
SPARE = 32
"""Neighbours kept beyond those that count: they take the place of a slide's that is left out."""


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of each row, nearest first: numbers (n, L), -1 where there are no more."""

    rows: Codes
    distances: Floats

    @property
    def is_there(self) -> Flags:
        """Return which places are filled, (n, L)."""
        return np.asarray(self.rows >= 0)


@dataclass(frozen=True)
class Around:
    """What lies around each row: of any kind, and by factor of two kinds.

    so: of the same label at another value of the factor; os: of another label at the same value.
    """

    any: Nearest
    so: Mapping[str, Nearest]
    os: Mapping[str, Nearest]


def around(
    x: NDArray[np.floating],
    labels: Codes,
    groups: Codes,
    factors: Mapping[str, Codes],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Around:
    """Return the neighbours of rows x (n, d) that lie in other groups (n,); codes are (n,) each.

    Distances are 1 - cosine, in float64. A row whose group is -1 is alone in it.
    """
    unit = np.asarray(x, dtype=np.float64)
    unit = unit / (np.linalg.norm(unit, axis=1, keepdims=True) + 1e-12)
    small = unit.astype(np.float32)
    n = len(unit)
    size_any, size = min(max(KS) + SPARE, n), min(M + SPARE, n)
    found: dict[str, list[NDArray[np.intp]]] = {"any": []}
    for start in range(0, n, CHUNK):
        mine = np.arange(start, min(start + CHUNK, n))
        similar = small[mine] @ small.T
        similar[np.arange(len(mine)), mine] = -np.inf
        similar[(groups[mine, None] == groups) & (groups[mine, None] >= 0)] = -np.inf
        same_label = labels[mine, None] == labels
        found["any"].append(_top(similar, size_any))
        for name, codes in factors.items():
            same = codes[mine, None] == codes
            for kind, wanted in (("so", same_label & ~same), ("os", ~same_label & same)):
                of_kind = np.where(wanted, similar, -np.inf)
                found.setdefault(f"{kind} {name}", []).append(_top(of_kind, size))
        on_progress(int(mine[-1]) + 1, n)
    exact = {k: _exact(unit, np.concatenate(parts)) for k, parts in found.items()}
    by_kind = {kind: {name: exact[f"{kind} {name}"] for name in factors} for kind in ("so", "os")}
    return Around(exact["any"], by_kind["so"], by_kind["os"])


def _top(similar: NDArray[np.float32], size: int) -> NDArray[np.intp]:
    """Return the places of the `size` largest of each row, in no order; -1 for minus infinity."""
    n = similar.shape[1]
    at = (
        np.argpartition(similar, n - size, axis=1)[:, n - size :]
        if size < n
        else np.tile(np.arange(n), (len(similar), 1))
    )
    is_there = np.isfinite(np.take_along_axis(similar, at, axis=1))
    return np.where(is_there, at, -1)


def _exact(unit: Floats, at: NDArray[np.intp]) -> Nearest:
    """Return the neighbours in order of their distances in float64."""
    distances = np.empty(at.shape)
    for start in range(0, len(at), CHUNK // 4):
        mine = slice(start, start + CHUNK // 4)
        near = unit[np.maximum(at[mine], 0)]
        distances[mine] = 1 - np.einsum("ikd,id->ik", near, unit[mine])
    distances[at < 0] = np.inf
    order = np.argsort(distances, axis=1, kind="stable")
    return Nearest(
        np.take_along_axis(at, order, axis=1), np.take_along_axis(distances, order, axis=1)
    )


@dataclass(frozen=True)
class Left:
    """Blocks of slides that are left out in turn: of each row (n,), and how many blocks."""

    of: Codes
    n: int


def _first(nearest: Nearest, k: int, kept: Flags) -> Flags:
    """Return which neighbours (n, L) are the first k of those kept."""
    usable = kept & nearest.is_there
    return usable & (np.cumsum(usable, axis=1) <= k)


def _affected(nearest: Nearest, k: int, of: Codes, block: int) -> Codes:
    """Return the rows outside a block that have one of it among their first k neighbours."""
    blocks = np.where(nearest.is_there, of[nearest.rows], -1)[:, :k]
    return np.flatnonzero((blocks == block).any(axis=1) & (of != block))


def margins(so: Nearest, os: Nearest) -> Floats:
    """Return CRoMa's margin of each row, (n,) in (-1, 1): above 0 the label lies nearer.

    (d_os - d_so) / (d_os + d_so), means of the M nearest of each kind; NaN where there are fewer,
    or where both are 0.
    """
    return _margins(so, os, np.ones(so.rows.shape, bool), np.ones(os.rows.shape, bool))


def _margins(so: Nearest, os: Nearest, keep_so: Flags, keep_os: Flags) -> Floats:
    means = []
    for nearest, kept in ((so, keep_so), (os, keep_os)):
        first = _first(nearest, M, kept)
        total = np.where(first, nearest.distances, 0).sum(axis=1)
        means.append(np.where(first.sum(axis=1) == M, total / M, np.nan))
    both, nothing = means[0] + means[1], np.full(len(so.rows), np.nan)
    return np.asarray(np.divide(means[1] - means[0], both, out=nothing, where=both > SAME))


def _rows_of(nearest: Nearest, rows: Codes) -> Nearest:
    return Nearest(nearest.rows[rows], nearest.distances[rows])


def margins_without(so: Nearest, os: Nearest, left: Left) -> list[Floats]:
    """Return the margins of the rows that are left without each block, by block."""
    whole = margins(so, os)
    each = []
    for block in range(left.n):
        values = whole.copy()
        touched = np.union1d(
            _affected(so, M, left.of, block), _affected(os, M, left.of, block)
        ).astype(np.intp)
        if len(touched):
            near_so, near_os = _rows_of(so, touched), _rows_of(os, touched)
            kept = [left.of[np.maximum(near.rows, 0)] != block for near in (near_so, near_os)]
            values[touched] = _margins(near_so, near_os, *kept)
        each.append(values[left.of != block])
    return each


def worst_tenth(values: Floats) -> float:
    """Return the mean of those at or below the tenth percentile (croma's lower tail mean)."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float("nan")
    return float(finite[finite <= np.percentile(finite, 10)].mean())


def median(values: Floats) -> float:
    """Return the median of what is finite, NaN where nothing is."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def share_below(values: Floats) -> float:
    """Return the share of margins at or below 0, where the factor lies nearer than the label."""
    finite = values[np.isfinite(values)]
    return float((finite <= 0).mean()) if len(finite) else float("nan")


def chosen_k(nearest: Nearest, labels: Codes) -> int:
    """Return the k of KS whose votes have the highest balanced accuracy; the least of equals."""
    n_labels = int(labels.max()) + 1
    votes = np.zeros((len(labels), n_labels))
    near = np.where(nearest.is_there, labels[nearest.rows], -1)
    best, chosen, done = -1.0, KS[0], 0
    for k in KS:
        for at in range(done, min(k, near.shape[1])):
            filled = near[:, at] >= 0
            votes[np.flatnonzero(filled), near[filled, at]] += 1
        done = k
        able = votes.sum(axis=1) > 0
        if not able.any():
            continue
        right = votes.argmax(axis=1) == labels
        recalls = [right[able & (labels == c)].mean() for c in np.unique(labels[able])]
        if (accuracy := float(np.mean(recalls))) > best:
            best, chosen = accuracy, k
    return chosen


def index_counts(nearest: Nearest, k: int, labels: Codes, factor: Codes) -> NDArray[np.int64]:
    """Return of each row how many of its k neighbours are so, and how many os: (n, 2)."""
    every = np.ones(nearest.rows.shape, dtype=bool)
    return _counts(nearest, every, k, np.arange(len(labels)), labels, factor)


def _counts(
    nearest: Nearest, kept: Flags, k: int, mine: Codes, labels: Codes, factor: Codes
) -> NDArray[np.int64]:
    first = _first(nearest, k, kept)
    same_label = labels[nearest.rows] == labels[mine, None]
    same = factor[nearest.rows] == factor[mine, None]
    kinds = (same_label & ~same, ~same_label & same)
    return np.column_stack([(first & kind).sum(axis=1) for kind in kinds])


def index_without(
    nearest: Nearest, k: int, labels: Codes, factor: Codes, left: Left
) -> Sequence[NDArray[np.int64]]:
    """Return the sums of both counts without each block, (2,) by block."""
    whole = index_counts(nearest, k, labels, factor)
    each = []
    for block in range(left.n):
        counts = whole[left.of != block].sum(axis=0)
        touched = _affected(nearest, k, left.of, block)
        if len(touched):
            near = _rows_of(nearest, touched)
            kept = left.of[np.maximum(near.rows, 0)] != block
            again = _counts(near, kept, k, touched, labels, factor)
            counts = counts + again.sum(axis=0) - whole[touched].sum(axis=0)
        each.append(counts)
    return each


def index_of(counts: NDArray[np.int64]) -> float:
    """Return so / (so + os) of the sums (2,); NaN where there is neither."""
    total = int(counts.sum())
    return float(counts[0] / total) if total else float("nan")
