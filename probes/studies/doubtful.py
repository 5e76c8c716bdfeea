"""Labels in doubt: what several models, none of which saw the cell, say against its label.

Out-of-fold probabilities of each model on folds that keep slides (or cases) apart; label errors by
confident learning (Northcutt et al. 2021), of each model and of their mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.exchange.qupath import Cell
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from probes.methods.fits import Task, fit_tasks
from probes.slices import Matrix, codes_of, label_order
from probes.splits.candidates import candidates
from probes.splits.draw import keyed_order
from probes.splits.spec import ManifestSpec
from probes.studies.cell_files import Found
from probes.studies.cells import SEED, models_of, random_models
from probes.studies.measures import Measure, record_measures

STUDY = "doubtful"
N_FOLDS = 5
UNSURE = 0.35
"""From here to one less this, the mean probability of a cell's own label is ambiguous."""
ERROR, AMBIGUOUS = "likely error", "ambiguous"
KEPT = 60
"""Cells that are kept on record, for the report; all of them go to a file."""

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Doubt(Found):
    """A cell whose label is in doubt: what it may be, and how many models miss it."""

    kind: str
    suggested: str
    own_probability: float
    n_models: int
    n_missed: int
    n_flagged: int
    votes: str

    def cell(self) -> Cell:
        """Return it for QuPath; its name says what the models make of it."""
        says = f"{self.suggested}?" if self.kind == ERROR else "ambiguous"
        numbers = {k: getattr(self, k) for k in ("own_probability", "n_missed", "n_models")}
        return Cell(self.annotation_id, f"{says} ({self.own_probability:.2f})", numbers)


def doubtful(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    method: str = "uni",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Doubt], list[Measure], list[str]]:
    """Return the cells in doubt, the least credible first; measures of them, recorded; and notes.

    kind: a likely error, flagged by the mean of all models and missed by more than half of them, or
    ambiguous: torn between labels, or between experts where votes are recorded. n_missed: how many
    models take it for another label, n_flagged: how many are sure of that. Random weights are left
    out unless they are asked for.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    names, notes = _named(con, dataset, models)
    manifest = candidates(store, ManifestSpec(dataset))
    order = label_order(store, manifest)
    if len(order) < 2:
        raise EmbedstoreError(f"'{dataset}' has one label: none can be in doubt")
    ids = list(manifest.pool.ids)
    y = codes_of(manifest.pool.labels, order)
    groups = _groups(manifest.cases, manifest.slides, manifest.images)
    each = []
    for n, model in enumerate(names):
        on_progress(n, len(names))
        each.append(out_of_fold(Matrix(store, model, dataset), ids, y, groups, method, len(order)))
    on_progress(len(names), len(names))
    p = np.array(each)
    doubts = _doubts(con, dataset, ids, y, p, order)
    measures = _measures(doubts, names, p, y, len(ids))
    record_measures(store, dataset, STUDY, measures)
    return doubts, measures, notes


def _named(con: Any, dataset: str, asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    names = models_of(con, dataset, asked)
    if asked is not None:
        return names, []
    random = random_models(con)
    left = [n for n in names if n not in random]
    if not left:
        return names, ["all models have random weights: their doubts say little"]
    lost = [n for n in names if n not in left]
    return left, [f"left out, random weights: {', '.join(lost)}"] if lost else []


def _groups(
    cases: Sequence[str | None], slides: Sequence[str | None], images: Sequence[str]
) -> list[str]:
    return [c or s or i for c, s, i in zip(cases, slides, images, strict=True)]


def out_of_fold(
    matrix: Matrix, ids: Sequence[str], y: Codes, groups: Sequence[str], method: str, n_labels: int
) -> Floats:
    """Return each annotation's probabilities (n, K) by a probe that saw none of its group.

    Folds are whole groups in an order keyed by their names. EmbedstoreError where some fold's
    training lacks a label.
    """
    at = matrix.rows_of(ids)
    names = sorted(set(groups))
    n_folds = min(N_FOLDS, len(names))
    if n_folds < 2:
        raise EmbedstoreError(
            f"'{matrix.dataset}' has one slide (or case): no model can be trained on others"
        )
    place = np.empty(len(names), dtype=np.intp)
    place[keyed_order(names, SEED, STUDY)] = np.arange(len(names))
    fold_of = place[np.searchsorted(names, groups)] % n_folds
    codes = np.full(len(matrix.ids), -1, dtype=np.intp)
    codes[at] = y
    tasks = []
    for fold in range(n_folds):
        val = (fold_of == (fold + 1) % n_folds) if n_folds > 2 else np.zeros(len(ids), bool)
        train = (fold_of != fold) & ~val
        rows = {
            role: at[np.flatnonzero(mine)]
            for role, mine in (("train", train), ("val", val), ("test", fold_of == fold))
        }
        tasks.append(Task(method, rows, codes, n_labels))
    p = np.empty((len(ids), n_labels))
    for fold, fit in enumerate(fit_tasks(matrix, tasks, lambda done, total: None)):
        mine = np.flatnonzero(fold_of == fold)
        p[mine] = fit.scores(matrix, at[mine])[0]
    return p


def label_errors(y: Codes, p: Floats) -> NDArray[np.bool_]:
    """Return which labels y (n,) are likely wrong by probabilities p (n, K): confident learning.

    A label's threshold is the mean probability of it among its own. An annotation counts for the
    likeliest label whose threshold it reaches; one that counts for, and is likeliest, another than
    its own is in error.
    """
    thresholds = np.array(
        [p[y == k, k].mean() if (y == k).any() else np.inf for k in range(p.shape[1])]
    )
    reached = np.where(p >= thresholds - 1e-6, p, -np.inf)
    counted = np.where(np.isfinite(reached).any(axis=1), reached.argmax(axis=1), y)
    return np.asarray((counted != y) & (p.argmax(axis=1) != y))


def _doubts(
    con: Any, dataset: str, ids: Sequence[str], y: Codes, p: Floats, order: Sequence[str]
) -> list[Doubt]:
    mean = p.mean(axis=0)
    own = mean[np.arange(len(y)), y]
    flagged = label_errors(y, mean)
    n_missed = (p.argmax(axis=2) != y).sum(axis=0)
    n_flagged = np.array([label_errors(y, one) for one in p]).sum(axis=0)
    is_error = flagged & (2 * n_missed > len(p))
    facts = {
        r["annotation_id"]: r
        for r in fetch_rows(
            con,
            "select annotation_id, slide, x_l0, y_l0, source_id, votes, kind from annotations "
            f"where dataset = {literal(dataset)}",
        )
    }
    torn = np.array([len(set(facts[i]["votes"] or ())) > 1 for i in ids], dtype=bool)
    is_ambiguous = ~is_error & (((own > UNSURE) & (own < 1 - UNSURE)) | torn)
    found = []
    for n in np.argsort(own, kind="stable"):
        if not (is_error[n] or is_ambiguous[n]):
            continue
        of = facts[ids[n]]
        is_patch = of["kind"] == "patch"
        found.append(
            Doubt(
                slide=of["slide"],
                x=None if is_patch else of["x_l0"],
                y=None if is_patch else of["y_l0"],
                label=order[y[n]],
                id=of["source_id"],
                annotation_id=ids[n],
                kind=ERROR if is_error[n] else AMBIGUOUS,
                suggested=order[int(mean[n].argmax())],
                own_probability=float(own[n]),
                n_models=len(p),
                n_missed=int(n_missed[n]),
                n_flagged=int(n_flagged[n]),
                votes="; ".join(of["votes"] or ()),
            )
        )
    return sorted(found, key=lambda d: (d.kind != ERROR, d.own_probability))


def _measures(
    doubts: Sequence[Doubt], names: Sequence[str], p: Floats, y: Codes, n: int
) -> list[Measure]:
    measures = []
    for kind in (ERROR, AMBIGUOUS):
        mine = [d for d in doubts if d.kind == kind]
        cells = [{**vars(d)} for d in mine[:KEPT]]
        details = {"cells": cells, "models": list(names)}
        measures.append(Measure("n_cells", float(len(mine)), split=kind, n=n, details=details))
    missed = (p.argmax(axis=2) != y).sum(axis=0)
    for k in range(len(names) + 1):
        measures.append(Measure("n_missed_by", float((missed == k).sum()), x=float(k), n=n))
    for model, one in zip(names, p, strict=True):
        alone = float(((one.argmax(axis=1) != y) & (missed == 1)).sum()) if len(names) > 1 else None
        measures.append(Measure("n_missed_alone", alone, model=model, n=n))
    return measures
