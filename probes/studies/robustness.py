"""What an embedding says of slide, scanner or centre rather than of cells, and what that costs.

Per model and factor: the robustness index, margins with their worst tenth, biased probes, and how
well a linear probe tells the factor itself. Intervals leave slides (or cases) out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect
from probes.methods.linear import UniProbe
from probes.methods.together import Task, fit_many
from probes.scores.classical import holm
from probes.scores.joint import Joint, jointly
from probes.scores.metrics import balanced_accuracy
from probes.scores.results import to_null
from probes.scores.statistics import blocks_of
from probes.slices import Matrix
from probes.studies import neighbors
from probes.studies.biased import Sweep, biased_sweep
from probes.studies.cells import LIMIT, SEED, Cells, cells_of, codes_of, models_of
from probes.studies.measures import Measure, bounds, record_measures
from probes.studies.neighbors import Around, Left, around

STUDY = "robustness"
MOST_VALUES = 50
"""A factor of more values than this is not learnt by a probe: each has too few rows."""
N_FOLDS = 5

Codes = NDArray[np.intp]


def robustness(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    factors: Sequence[str] | None = None,
    limit: int = LIMIT,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Measure], list[str]]:
    """Return the measures of every model, factor and pair of models, recorded, and notes.

    metric robustness_index: of the k nearest annotations on other slides, how many share the label
    and not the factor, of those that share one of the two (details: k); croma, croma_worst_tenth,
    croma_share_below: margins between both kinds; apd, nipd: what training with the factor bound to
    the label costs; factor_accuracy: balanced accuracy of a linear probe that learns the factor.
    Differences are to the model with the highest index (against). factors: columns of annotations
    or slides, or of the slide table; limit 0: all annotations. on_progress counts models.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    names = models_of(con, dataset, models)
    cells, notes = cells_of(con, dataset, factors, limit)
    found = []
    for n, model in enumerate(names):
        on_progress(n, len(names))
        matrix = Matrix(store, model, dataset)
        rows = matrix.rows_of(cells.ids)
        of_model, lost, joints = _of_model(matrix.vectors(rows), cells)
        named = [replace(m, model=model) for m in of_model]
        found.append(Found(model, named, lost, joints))
    on_progress(len(names), len(names))
    measures = [m for f in found for m in f.measures]
    measures += [m for factor in cells.factors for m in _pairs(found, factor, cells)]
    record_measures(store, dataset, STUDY, measures)
    return measures, [*notes, *sorted({n for f in found for n in f.notes})]


@dataclass(frozen=True)
class Found:
    """What a model's measures are, notes, and by (metric, factor) its values without each block."""

    model: str
    measures: list[Measure]
    notes: list[str]
    joints: dict[tuple[str, str], Joint]


def _of_model(
    x: NDArray[np.float32], cells: Cells
) -> tuple[list[Measure], list[str], dict[tuple[str, str], Joint]]:
    labels = codes_of(cells.labels)
    measures, notes = list[Measure](), list[str]()
    joints: dict[tuple[str, str], Joint] = {}
    for factor in cells.factors:
        have, codes = cells.codes(factor)
        groups = cells.groups[have]
        # Of a factor that is the group itself no other of its value lies elsewhere.
        n_both = len(set(zip(groups.tolist(), codes.tolist(), strict=True)))
        is_group = factor == "slide" or n_both == len(set(groups)) == len(set(codes))
        apart = np.full(len(have), -1) if is_group else codes_of(groups)
        near = around(x[have], labels[have], apart, {factor: codes})
        of_factor, more = _of_factor(near, factor, labels[have], codes, groups)
        joints |= {(metric, factor): j for metric, j in more.items()}
        same: dict[str, Any] = {"ci_by": cells.ci_by, "n": len(have), "factor": factor}
        measures += [replace(m, **same) for m in of_factor]
        told, why = _told(x[have], codes, groups, is_group)
        if told is not None:
            joints["factor_accuracy", factor] = told
            chance = {"chance": 1 / (int(codes.max()) + 1)}
            measures.append(_share("factor_accuracy", told, chance, same))
        notes += [f"{factor}: {why}"] if why else []
        sweep = None if is_group else _sweep(x[have], labels[have], codes, groups)
        if sweep is not None and np.isnan(sweep.nipd):
            notes.append(f"{factor}: no biased probes: without any bias they are at chance")
        elif sweep is None and not is_group:
            notes.append(
                f"{factor}: no biased probes: they take two values with both labels on slides of "
                "each, and some dozens of annotations of each"
            )
        elif sweep is not None:
            measures += [
                Measure(
                    metric,
                    to_null(value),
                    details={"draws": sweep.accuracies.shape[1], "n_train": sweep.n_train},
                    **same,
                )
                for metric, value in (("apd", sweep.apd), ("nipd", sweep.nipd))
            ]
    return measures, notes, joints


def _share(metric: str, joint: Joint, details: dict[str, Any], same: dict[str, Any]) -> Measure:
    of = bounds(joint.share(lambda each: each[0]))
    of["details"] = details
    return Measure(metric, n_groups=joint.blocks.n_groups, **same, **of)


def _of_factor(
    near: Around, factor: str, labels: Codes, codes: Codes, groups: NDArray[Any]
) -> tuple[list[Measure], dict[str, Joint]]:
    """Return index and margins with their intervals, and the joints behind them."""
    blocks = blocks_of(groups.tolist())
    left = Left(blocks.of, blocks.n)
    sizes = np.array([len(labels)])
    k = neighbors.chosen_k(near.any, labels)
    counts = neighbors.index_counts(near.any, k, labels, codes).sum(axis=0)
    without = neighbors.index_without(near.any, k, labels, codes, left)
    joints = {
        "robustness_index": Joint(
            np.array([neighbors.index_of(counts)]),
            np.array([[neighbors.index_of(c) for c in without]]),
            blocks,
            sizes,
        )
    }
    measures = [_share("robustness_index", joints["robustness_index"], {"k": k}, {})]
    so, os = near.so[factor], near.os[factor]
    margins = neighbors.margins(so, os)
    each = neighbors.margins_without(so, os, left)
    support = float(np.isfinite(margins).mean())
    for metric, of in (
        ("croma", neighbors.median),
        ("croma_worst_tenth", neighbors.worst_tenth),
        ("croma_share_below", neighbors.share_below),
    ):
        joint = Joint(np.array([of(margins)]), np.array([[of(e) for e in each]]), blocks, sizes)
        joints[metric] = joint
        found = (
            bounds(joint.share(lambda values: values[0]))
            if metric == "croma_share_below"
            else bounds(joint.contrast(lambda values: values[0], 1.0))
        )
        found |= {"p_value": None, "details": {"support": support, "m": neighbors.M}}
        measures.append(Measure(metric, n_groups=blocks.n_groups, **found))
    return measures, joints


def _told(
    x: NDArray[np.float32], codes: Codes, groups: NDArray[Any], is_group: bool
) -> tuple[Joint | None, str]:
    """Return how well a probe tells the factor on slides it has not seen, or why there is none.

    A slide itself is told on other annotations of the same slides.
    """
    n_values = int(codes.max()) + 1
    if n_values > MOST_VALUES:
        return None, f"{n_values} values are too many for a probe to learn"
    units = np.arange(len(x)).astype(str) if is_group else groups
    names = np.unique(units)
    folds = np.random.default_rng(SEED).permutation(len(names)) % N_FOLDS
    fold_of = folds[np.searchsorted(names, units)]
    tasks, tests = [], []
    for fold in range(N_FOLDS):
        train, test = (np.flatnonzero(at) for at in (fold_of != fold, fold_of == fold))
        if len(np.unique(codes[train])) == n_values and len(test):
            tasks.append(Task(UniProbe(), train, codes[train]))
            tests.append(test)
    if len(tasks) < N_FOLDS:
        return None, "some value lies on too few slides for a probe to be tested on others"
    probes = fit_many(np.ascontiguousarray(x), tasks)
    p = np.zeros((len(x), n_values))
    for probe, test in zip(probes, tests, strict=True):
        p[test] = probe.predict_proba(x[test])

    def accuracy(w: NDArray[np.floating]) -> NDArray[np.float64]:
        return balanced_accuracy(codes, p, w, 0.5)

    return jointly([groups.tolist()], [accuracy]), ""


def _sweep(
    x: NDArray[np.float32], labels: Codes, codes: Codes, groups: NDArray[Any]
) -> Sweep | None:
    """Return the biased probes of the two labels and two values that have most rows together."""
    if len(np.unique(labels)) != 2:
        return None
    counts = np.zeros((int(codes.max()) + 1, 2), dtype=np.intp)
    np.add.at(counts, (codes, labels), 1)
    first, second = np.argsort(-counts.min(axis=1), kind="stable")[:2]
    mine = np.isin(codes, (first, second))
    value = (codes[mine] == second).astype(np.intp)
    return biased_sweep(x[mine], labels[mine], value, codes_of(groups[mine]))


def _pairs(found: Sequence[Found], factor: str, cells: Cells) -> list[Measure]:
    """Return every model's index and margin against those of the model with the highest index."""
    able = [f for f in found if ("robustness_index", factor) in f.joints]
    index = {f.model: f.joints["robustness_index", factor].values[0] for f in able}
    best = max(able, key=lambda f: (np.nan_to_num(index[f.model], nan=-1), f.model))
    measures = []
    for metric in ("robustness_index", "croma", "croma_worst_tenth", "factor_accuracy"):
        key = metric, factor
        others = [f for f in able if f is not best and key in f.joints and key in best.joints]
        each = [
            best.joints[key].beside(f.joints[key]).contrast(lambda v: v[0] - v[1], 2.0)
            for f in others
        ]
        for f, c, p in zip(others, each, holm([c.p_value for c in each]), strict=True):
            measures.append(
                Measure(
                    metric,
                    model=best.model,
                    against=f.model,
                    factor=factor,
                    ci_by=cells.ci_by,
                    n=len(cells.ids),
                    n_groups=f.joints[key].blocks.n_groups,
                    p_holm=to_null(p),
                    **bounds(c),
                )
            )
    return measures
