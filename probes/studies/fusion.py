"""Fusion that earns its place: models added one by one, as validation says, while it gains.

Each step's probe is fitted on the models side by side; which model joins is decided by validation
log-loss alone. Test says afterwards what each step gained, paired, and how sure that is.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch_rows, literal
from probes.runs import RunOptions, run
from probes.scores.best_pool import validation_log_loss
from probes.scores.evaluate import left_out_by
from probes.scores.joint import Joint, joint, mean_of_folds
from probes.scores.metrics import Floats
from probes.scores.results import RunReport
from probes.scores.scored_set import scored_set
from probes.slices.fusion import MEAN
from probes.splits.spec import ManifestSpec
from probes.studies.cells import models_of
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "fusion"
STEPS = 4
"""Models of the largest fusion that is tried, where nothing else is asked for."""


def fusion(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    method: str = "uni",
    group_by: str = "slide",
    steps: int = STEPS,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Measure], list[str]]:
    """Return the measures of the greedy path, of single models and of the mean; recorded; notes.

    metric auroc: of every single model, of each fusion of the path (x is its number of models) and
    of the mean of log-odds of the same; auroc_gain: a step's AUROC less that of the step before
    (against). details: val_log_loss, n_params, dim, gb (of vectors of a million cells). The path
    ends where no model lowers validation log-loss. EmbedstoreError with fewer than two models.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    names = models_of(con, dataset, models)
    if len(names) < 2:
        raise EmbedstoreError(
            f"'{dataset}' has embeddings of one model, {names[0]}: fusion takes two"
        )
    spec, ran = ManifestSpec(dataset, group_by=group_by), dict[str, RunReport]()

    def losses(wanted: Sequence[str]) -> dict[str, float]:
        for name in wanted:
            if name not in ran:
                ran[name] = run(store, spec, RunOptions([name], (method,)))
        return {n: _loss(store, ran[n]) for n in wanted}

    total, done = len(names) + (steps - 1) * len(names), 0
    loss = losses(names)
    path = [min(loss, key=lambda n: (loss[n], n))]
    at, val = [path[0]], {path[0]: loss[path[0]]}
    val |= loss
    while len(at) < min(steps, len(names)):
        done += len(names)
        on_progress(done, total)
        tried = losses(["+".join([*at, n]) for n in names if n not in at])
        best = min(tried, key=lambda n: (tried[n], n))
        val |= tried
        if tried[best] >= val[path[-1]]:
            break
        at.append(best.removeprefix(path[-1] + "+"))
        path.append(best)
    on_progress(total, total)
    averaged = [f"{MEAN}{name}" for name in path[1:]]
    val |= losses(averaged)
    by = left_out_by(group_by)
    con = connect(store)  # what was run since is in it
    joints = {n: _joint(con, ran[n], by) for n in [*names, *path[1:], *averaged]}
    measures = _measures(con, dataset, names, path, averaged, val, joints, group_by)
    record_measures(store, dataset, STUDY, measures)
    notes = []
    if len(path) == 1:
        notes.append(f"no second model lowers the validation log-loss of {path[0]}")
    return measures, notes


def _loss(store: Store, report: RunReport) -> float:
    """Return the mean validation log-loss of a model's runs, infinite where one has none."""
    ids = sorted({r.run_id for r in report.rows})
    found = validation_log_loss(store, ids)
    return float(np.mean([found.get(i, np.inf) for i in ids]))


def _joint(con: Any, report: RunReport, by: str) -> Joint:
    rows = {r.run_id: r for r in report.rows}
    ordered = sorted(rows.values(), key=lambda r: r.fold)
    sets = [scored_set(con, r.run_id, r.threshold) for r in ordered]
    return joint([s.whole(by) for s in sets])


def _measures(
    con: Any,
    dataset: str,
    names: Sequence[str],
    path: Sequence[str],
    averaged: Sequence[str],
    val: dict[str, float],
    joints: dict[str, Joint],
    group_by: str,
) -> list[Measure]:
    costs = _costs(con, names)
    ci_by = left_out_by(group_by).removesuffix("_id")
    measures = []
    for kind, of_kind in (("alone", names), ("side by side", path[1:]), ("mean", averaged)):
        for name in of_kind:
            j = joints[name]
            of = bounds(j.share(mean_of_folds))
            parts = [name] if kind == "alone" else _parts(name, path)
            cost = {k: sum(costs[p][k] for p in parts) for k in ("n_params", "dim", "gb")}
            of["details"] = {**cost, "val_log_loss": val[name], "parts": parts}
            measures.append(
                Measure(
                    "auroc",
                    model=name,
                    factor=kind,
                    split=group_by,
                    x=float(len(parts)),
                    ci_by=ci_by,
                    n=round(float(j.sizes.mean())),
                    n_groups=j.blocks.n_groups,
                    **of,
                )
            )
    for before, after in itertools.pairwise(path):
        both = joints[after].beside(joints[before])
        gain = both.contrast(_gain, 1.0)
        same: dict[str, Any] = {"split": group_by, "ci_by": ci_by}
        same |= {"n_groups": both.blocks.n_groups, "against": before}
        measures.append(Measure("auroc_gain", model=after, **same, **bounds(gain)))
    return measures


def _gain(each: Floats) -> Floats:
    half = len(each) // 2
    return np.asarray(mean_of_folds(each[:half]) - mean_of_folds(each[half:]))


def _parts(name: str, path: Sequence[str]) -> list[str]:
    """Return the models of a fusion of the path, in the order in which they joined."""
    longest = name.removeprefix(MEAN)
    steps = path[: path.index(longest) + 1]
    return [steps[0], *(b.removeprefix(a + "+") for a, b in itertools.pairwise(steps))]


def _costs(con: Any, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what each model costs: parameters, width, and GB of vectors of a million cells."""
    listed = ", ".join(map(literal, names))
    rows = fetch_rows(con, f"select model, n_params, dim from models where model in ({listed})")
    of = {r["model"]: r for r in rows}
    return {
        n: {
            "n_params": float(of[n]["n_params"] or 0),
            "dim": float(of[n]["dim"]),
            "gb": of[n]["dim"] * 4e6 / 1e9,
        }
        for n in names
    }
