"""The human line: each expert scored against the others as if a model, and models as experts are.

Experts answer yes or no, so that their area under the ROC curve is their balanced accuracy: it may
stand in a figure of AUROC. A model's may use every threshold, which an expert cannot.
"""

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import check_dataset, connect, fetch, fetch_rows
from probes.scores.joint import Joint, Test, joint, jointly, mean_of_folds
from probes.scores.metrics import Floats
from probes.scores.scored_set import scored_set
from probes.scores.statistics import Weighted
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "raters"
MAJORITY, UNANIMOUS, SOFT = "majority", "unanimous", "soft"
Votes = NDArray[np.float64]


def raters(store: Store, dataset: str) -> tuple[list[Measure], list[str]]:
    """Return the measures of experts and of recorded models, recorded, and notes.

    metric rater: each expert's balanced accuracy against the majority of the others; human: their
    mean, with its interval; kappa: Fleiss' of all. Of models on grouped splits: auroc against the
    majority of votes, and on unanimous cells alone (split), brier against the share of votes
    (soft). Intervals leave out slides, or cases where they are named. Two labels alone.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    table = fetch(
        con,
        "select annotation_id, votes, coalesce(source_slide, slide) as slide, case_id from "
        "annotations where dataset = $dataset and status = 'ok' and len(votes) > 1 order by 1",
        {"dataset": dataset},
    )
    if not len(table):
        raise EmbedstoreError(
            f"'{dataset}' has no votes of several experts; `embedstore add` takes them by "
            "--column 'vote=COLUMN*', and from MIDOG's json, where annotations have labels"
        )
    positive, labels = _labels(con, dataset)
    votes = _numbers(table["votes"].to_pylist(), positive, labels)
    cases, slides = (table[c].to_pylist() for c in ("case_id", "slide"))
    by_case = any(c not in (None, s) for c, s in zip(cases, slides, strict=True))
    groups = [str(g) for g in (cases if by_case else slides)]
    same: dict[str, Any] = {"ci_by": "case" if by_case else "slide"}
    measures = _humans(votes, groups, same)
    place = {i: n for n, i in enumerate(table["annotation_id"].to_pylist())}
    share = _mean(votes)
    notes = []
    sides = _sides(con, dataset)
    for side, runs in sides.items():
        measures += _model(con, side, runs, place, share, groups, same)
    if not sides:
        notes.append(f"no runs by slide or case: `probes gap {dataset}` makes them")
    record_measures(store, dataset, STUDY, measures)
    return measures, notes


def _labels(con: Any, dataset: str) -> tuple[str, dict[str, str]]:
    """Return the positive label, and which label each class of the file is."""
    (of,) = fetch_rows(
        con, "select positive_label, classes from datasets where dataset = $d", {"d": dataset}
    )
    (n,) = fetch_rows(
        con,
        "select count(distinct label) as n from annotations where dataset = $d",
        {"d": dataset},
    )
    if n["n"] > 2:
        raise EmbedstoreError(f"'{dataset}' has {n['n']} labels; experts are scored on two")
    return of["positive_label"], json.loads(of["classes"] or "{}")


def _numbers(votes: Sequence[Sequence[str]], positive: str, labels: dict[str, str]) -> Votes:
    """Return votes as 1 for the positive label, 0 for any other, NaN for none, (n, raters)."""
    width = max(map(len, votes))
    out = np.full((len(votes), width), np.nan)
    for n, of in enumerate(votes):
        for k, vote in enumerate(of):
            if vote:
                out[n, k] = float(labels.get(vote, vote) == positive)
    return out


def _humans(votes: Votes, groups: Sequence[str], same: dict[str, Any]) -> list[Measure]:
    joints, measures = [], []
    for k in range(votes.shape[1]):
        others = np.delete(votes, k, axis=1)
        share = _mean(others)
        able = np.isfinite(votes[:, k]) & np.isfinite(share) & (share != 0.5)
        said, truth = votes[:, k] == 1, share > 0.5

        def accuracy(w: Weighted, said: Any = said, truth: Any = truth, able: Any = able) -> Floats:
            return balanced(w, said, truth, able)

        joints.append(accuracy)
        one = jointly([groups], [accuracy])
        of = bounds(one.share(lambda each: each[0]))
        n_groups = one.blocks.n_groups
        measures.append(
            Measure(
                "rater", model=f"expert {k + 1}", n=int(able.sum()), n_groups=n_groups, **same | of
            )
        )
    every = jointly([groups] * len(joints), joints)
    of = bounds(every.share(mean_of_folds))
    measures.append(
        Measure("human", n=len(votes), n_groups=every.blocks.n_groups, split=MAJORITY, **same | of)
    )
    agreed = jointly([groups], [lambda w: kappa(w, votes)])
    of = bounds(agreed.contrast(lambda each: each[0], 1.0)) | {"p_value": None}
    measures.append(Measure("kappa", n=len(votes), n_groups=every.blocks.n_groups, **same | of))
    return measures


def _mean(votes: Votes) -> Floats:
    """Return the mean vote of each row, NaN where there is none."""
    there = np.isfinite(votes)
    n = there.sum(axis=1)
    total = np.where(there, votes, 0).sum(axis=1)
    return np.asarray(np.divide(total, n, out=np.full(len(votes), np.nan), where=n > 0))


def balanced(
    w: Weighted, said: NDArray[np.bool_], truth: NDArray[np.bool_], able: NDArray[np.bool_]
) -> Floats:
    """Return balanced accuracy (B,) of yes or no answers for weights (B, n)."""
    recalls = []
    for label in (True, False):
        mine = able & (truth == label)
        total = w @ mine.astype(np.float64)
        right = w @ (mine & (said == label)).astype(np.float64)
        recalls.append(np.divide(right, total, out=np.full(len(w), np.nan), where=total > 0))
    return np.asarray((recalls[0] + recalls[1]) / 2)


def kappa(w: Weighted, votes: Votes) -> Floats:
    """Return Fleiss' kappa (1971) (B,) of yes or no votes for weights (B, n).

    Rows with fewer than two votes do not count; those with unlike numbers count with their own.
    """
    n = np.isfinite(votes).sum(axis=1)
    able = n >= 2
    yes = np.nansum(votes, axis=1)
    agree = np.zeros(len(votes))
    agree[able] = (yes * (yes - 1) + (n - yes) * (n - yes - 1))[able] / (n * (n - 1))[able]
    total = w @ able.astype(np.float64)
    n_votes = w @ (n * able).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = (w @ agree) / total
        share = (w @ (yes * able)) / n_votes
        chance = share**2 + (1 - share) ** 2
        return np.asarray((observed - chance) / (1 - chance))


def _sides(con: Any, dataset: str) -> dict[str, list[str]]:
    """Return the runs of each model by slide, or by case where there are such, by uni's probe."""
    rows = fetch_rows(
        con,
        "select distinct run_id, model, group_by from results where dataset = $d and method = "
        "'uni' and scheme = 'monte-carlo' and stratify = 'none' and where_sql is null and "
        "seed = 42 and fraction = 1 and target = 'label' and eval_dataset is null and "
        "params not like '%views%' and params not like '%correct%' and params not like '%pool%' "
        "and group_by in ('slide', 'case') order by model, run_id",
        {"d": dataset},
    )
    hardest = "case" if any(r["group_by"] == "case" for r in rows) else "slide"
    sides: dict[str, list[str]] = {}
    for r in rows:
        if r["group_by"] == hardest:
            sides.setdefault(r["model"], []).append(r["run_id"])
    return sides


def _model(
    con: Any,
    side: str,
    runs: Sequence[str],
    place: dict[str, int],
    share: Floats,
    groups: Sequence[str],
    same: dict[str, Any],
) -> list[Measure]:
    """Return a model's scores against each kind of truth that votes give."""
    folds = []
    for run in runs:
        found = scored_set(con, run, None)
        have = np.array([n for n, i in enumerate(found.ids) if i in place], dtype=np.intp)
        at = np.array([place[i] for i in found.ids[have]], dtype=np.intp)
        folds.append((at, found.p[have], found.rank[have]))
    measures = []
    for split in (MAJORITY, UNANIMOUS):
        tests = []
        for at, p, rank in folds:
            mine = _has_truth(share[at], split)
            y = (share[at[mine]] > 0.5).astype(np.intp)
            tests.append(Test(y, p[mine], [groups[i] for i in at[mine]], rank=rank[mine]))
        measures.append(_of_model("auroc", side, split, joint(tests), same))
    names = [[groups[i] for i in at] for at, _, _ in folds]
    soft = [(p[:, 1] - share[at]) ** 2 for at, p, _ in folds]
    of_soft = jointly(names, [functools.partial(_weighted, of) for of in soft])
    return [*measures, _of_model("brier", side, SOFT, of_soft, same)]


def _of_model(metric: str, side: str, split: str, of_all: Joint, same: dict[str, Any]) -> Measure:
    of = bounds(of_all.share(mean_of_folds))
    n = round(float(of_all.sizes.mean()))
    more = {"model": side, "split": split, "n": n, "n_groups": of_all.blocks.n_groups}
    return Measure(metric, **same | more | of)


def _weighted(of: Floats, w: Weighted) -> Floats:
    return np.asarray((w @ of) / w.sum(axis=1))


def _has_truth(share: Floats, split: str) -> NDArray[np.bool_]:
    return np.isin(share, (0, 1)) if split == UNANIMOUS else np.isfinite(share) & (share != 0.5)
