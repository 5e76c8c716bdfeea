"""How many labels it takes: probes on k cells a class, or k slides, over many support sets.

Test annotations are those of grouped folds, whole slides (or cases) kept out; support sets are
drawn from a fold's training and validation annotations. What the drawing of support sets adds is
training variance, and has its own name: sd_draws. Intervals are of the test slides alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError, UsageError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect
from probes.methods.linear import UniProbe
from probes.methods.similarity import on_sphere
from probes.methods.together import Task, fit_many, logits
from probes.scores.evaluate import left_out_by
from probes.scores.joint import Joint, mean_of_folds
from probes.scores.ranking import auroc_without
from probes.scores.statistics import Blocks, blocks_of
from probes.slices import Matrix, label_order
from probes.splits.asked import splits_for
from probes.splits.manifests import StoredSplit
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.cells import SEED, models_of
from probes.studies.efficiency import efficiency
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "shots"
SHOTS = (1, 2, 4, 8, 16, 32)
"""Cells a class (or slides) of a support set, where none are named."""
SETS = 100
"""Support sets of each size, over all folds, where nothing else is asked for."""
METHODS = ("prototype", "uni")
"""Probes that are fitted on support sets: the nearest class mean, and UNI's."""
UNITS = ("cell", "slide", "case")
"""What a support set is drawn in."""
TOGETHER = 250
"""Support sets that are fitted and scored at a time."""

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fold:
    """A fold's pool to draw support sets from, and its test set, as rows; their blocks."""

    pool: Codes
    test: Codes
    blocks: Codes


def shots(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    method: str = METHODS[0],
    unit: str = UNITS[0],
    sizes: Sequence[int] = SHOTS,
    n_sets: int = SETS,
    group_by: str = "slide",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Measure], list[str]]:
    """Return the AUROC of each model at each size of support set, recorded, and notes.

    x is the size: cells a class, or slides or cases with all their cells. The value is the mean
    over support sets; details have sd_draws (their spread: training variance), n_sets, n_train (the
    mean number of cells) and collapsed (the share whose probe learnt nothing). Two labels alone.
    Of runs recorded by fractions of the same split the curves and crossings are measured as well:
    see `efficiency`.
    """
    _check(method, unit, sizes, n_sets)
    con = connect(store)
    check_dataset(store, con, dataset)
    names = models_of(con, dataset, models)
    spec = ManifestSpec(dataset, group_by=group_by)
    manifest, splits, notes = splits_for(store, spec, Asked())
    order = label_order(store, manifest)
    if len(order) != 2:
        raise EmbedstoreError(
            f"'{dataset}' has {len(order)} labels; support sets are drawn of two: see curves over "
            "`probes run --fraction` for more"
        )
    measures, missing = list[Measure](), set[int]()
    ci_by = left_out_by(group_by).removesuffix("_id")
    same = {"factor": unit, "split": group_by, "ci_by": ci_by}
    for n, model in enumerate(names):
        on_progress(n, len(names))
        cells = _cells(Matrix(store, model, dataset), splits, order[1], unit, group_by)
        for size in sizes:
            drawn = cells.draw(size, n_sets)
            if not all(drawn):
                missing.add(size)
                continue
            found = score_sets(cells.x, cells.y, cells.folds, drawn, method, cells.blocks.n)
            of = _measure(found, cells.blocks, cells.folds, drawn, {"method": method})
            measures.append(Measure("auroc", model=model, x=float(size), **of | same))
    on_progress(len(names), len(names))
    if missing:
        some = ", ".join(map(str, sorted(missing)))
        notes = [*notes, f"too few {unit}s for support sets of {some}"]
    if not measures:
        raise EmbedstoreError(f"'{dataset}' has too few {unit}s for any of these support sets")
    measures += efficiency(con, spec)
    record_measures(store, dataset, STUDY, measures)
    return measures, notes


@dataclass(frozen=True)
class _Cells:
    """A model's vectors (n, d), labels (n,) and folds; units: what support sets are drawn in."""

    x: NDArray[np.float32]
    y: Codes
    folds: list[Fold]
    blocks: Blocks
    units: NDArray[Any] | None

    def draw(self, size: int, n_sets: int) -> list[list[Codes]]:
        """Return the support sets of each fold, together n_sets."""
        per_fold = n_sets // len(self.folds)
        return [
            support_sets(f.pool, self.y, self.units, size, per_fold, k)
            for k, f in enumerate(self.folds)
        ]


def _cells(
    matrix: Matrix, splits: Sequence[StoredSplit], positive: str, unit: str, group_by: str
) -> _Cells:
    y = (matrix.facts["label"] == positive).astype(np.intp)
    groups = matrix.facts[left_out_by(group_by)]
    rows = [matrix.rows(s) for s in splits]
    blocks = blocks_of([g for r in rows for g in groups[r["test"]].tolist()])
    ends = np.cumsum([len(r["test"]) for r in rows])[:-1]
    folds = [
        Fold(np.concatenate((r["train"], r["val"])), r["test"], of)
        for r, of in zip(rows, np.split(blocks.of, ends), strict=True)
    ]
    units = None if unit == "cell" else matrix.facts[left_out_by(unit)]
    return _Cells(matrix.vectors(np.arange(len(matrix.ids))), y, folds, blocks, units)


def _check(method: str, unit: str, sizes: Sequence[int], n_sets: int) -> None:
    for value, allowed, option in ((method, METHODS, "--method"), (unit, UNITS, "--unit")):
        if value not in allowed:
            raise UsageError(f"unknown {option} '{value}'; allowed: {', '.join(allowed)}")
    if min(sizes) < 1 or n_sets < 10:
        raise UsageError("--shots are 1 or more, and --sets 10 or more")


def support_sets(
    pool: Codes, y: Codes, units: NDArray[Any] | None, size: int, n_sets: int, seed: int
) -> list[Codes]:
    """Return n_sets support sets, rows of the pool each; none where it is too small.

    Of cells `size` a class, of slides (units) `size` with all their cells, drawn again while a
    class is lacking. Every size draws from the same orders, so that larger sets hold smaller ones.
    """
    rng = np.random.default_rng([SEED, seed])
    sets = []
    by_label = [pool[y[pool] == k] for k in (0, 1)]
    if units is None:
        if min(map(len, by_label)) < size:
            return []
        for _ in range(n_sets):
            sets.append(np.concatenate([rng.permutation(of)[:size] for of in by_label]))
        return sets
    names = np.unique(units[pool].astype(str))
    if len(names) < size:
        return []
    of_unit = np.searchsorted(names, units[pool].astype(str))
    for _ in range(20 * n_sets):
        taken = rng.permutation(len(names))[:size]
        rows = pool[np.isin(of_unit, taken)]
        if len(np.unique(y[rows])) == 2:
            sets.append(rows)
        if len(sets) == n_sets:
            return sets
    return []


@dataclass(frozen=True)
class Scored:
    """AUROC of every support set (S,), the same without each block (S, B), who learnt nothing."""

    values: Floats
    without: Floats
    collapsed: NDArray[np.bool_]


def score_sets(
    x: NDArray[np.float32],
    y: Codes,
    folds: Sequence[Fold],
    drawn: Sequence[Sequence[Codes]],
    method: str,
    n_blocks: int,
) -> Scored:
    """Fit a probe on each support set of each fold and score that fold's test set."""
    values, without, collapsed = [], [], []
    for fold, sets in zip(folds, drawn, strict=True):
        positive, test = y[fold.test] == 1, np.asarray(x[fold.test])
        for start in range(0, len(sets), TOGETHER):
            part = sets[start : start + TOGETHER]
            if method == "uni":
                scores, flat = _uni(x, y, part, test)
            else:
                scores, flat = prototypes(x, y, part, test)
            collapsed += flat
            for score in scores.T:
                value, each = auroc_without(positive, score, fold.blocks, n_blocks)
                values.append(value)
                without.append(each)
    return Scored(np.array(values), np.array(without), np.array(collapsed))


def _uni(
    x: NDArray[np.float32], y: Codes, sets: Sequence[Codes], test: NDArray[np.float32]
) -> tuple[Floats, list[bool]]:
    probes = fit_many(x, [Task(UniProbe(), rows, y[rows]) for rows in sets])
    w = np.stack([p.coef_[1] - p.coef_[0] for p in probes])
    b = np.array([p.intercept_[1] - p.intercept_[0] for p in probes])
    return logits(test, None, w, b), [bool(p.collapsed_) for p in probes]


def prototypes(
    x: NDArray[np.float32], y: Codes, sets: Sequence[Codes], test: NDArray[np.float32]
) -> tuple[Floats, list[bool]]:
    """Return what ranks test rows (n, d) by `PrototypeProbe` on each set, (n, S), in two products.

    |z - p0|^2 - |z - p1|^2 of z = (t - mean) / |t - mean| is linear in t but for that length.
    """
    means, ways, shifts, flat = [], [], [], []
    for rows in sets:
        data = np.asarray(x[rows], dtype=np.float64)
        mean = data.mean(axis=0)
        unit = on_sphere(data, mean)
        zero, one = (unit[y[rows] == k].mean(axis=0) for k in (0, 1))
        means.append(mean)
        ways.append(2 * (one - zero))
        shifts.append(zero @ zero - one @ one)
        flat.append(bool(np.allclose(zero, one)))
    m, w = np.array(means), np.array(ways)
    t = np.asarray(test, dtype=np.float64)
    squares = (t**2).sum(axis=1)[:, None] - 2 * t @ m.T + (m**2).sum(axis=1)
    lengths = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))
    return (t @ w.T - (m * w).sum(axis=1)) / lengths + np.array(shifts), flat


def _measure(
    found: Scored,
    blocks: Blocks,
    folds: Sequence[Fold],
    drawn: Sequence[Sequence[Codes]],
    details: dict[str, Any],
) -> dict[str, Any]:
    """Return what is found of one model and size, as fields of a `Measure`."""
    sizes = np.array([len(f.test) for f in folds])
    without = mean_of_folds(found.without)[None]
    mean = Joint(mean_of_folds(found.values[:, None]), without, blocks, sizes)
    of = bounds(mean.share(lambda each: each[0]))
    of["details"] = details | {
        "sd_draws": float(np.nanstd(found.values, ddof=1)),
        "n_sets": len(found.values),
        "n_train": float(np.mean([len(rows) for sets in drawn for rows in sets])),
        "collapsed": float(found.collapsed.mean()),
    }
    return of | {"n": round(float(sizes.mean())), "n_groups": blocks.n_groups}
