"""Recorded runs on the labels of now: what mended labels change of scores and ranking."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.records import fetch_records
from embedstore.store.sql import check_dataset, connect, fetch
from probes.scores.evaluate import left_out_by
from probes.scores.joint import Test, joint, mean_of_folds
from probes.scores.metrics import Floats
from probes.scores.recorded import RunRow
from probes.scores.results import to_null
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "rescore"
THEN, NOW = "labels then", "labels now"


def rescore(store: Store, dataset: str) -> tuple[list[Measure], list[str]]:
    """Return the AUROC of every recorded side on the labels then and now, recorded, and notes.

    metric auroc, split 'labels then' or 'labels now', and auroc_change, what the labels of now add;
    details: rank among the sides of one split, and n_changed labels. Runs of manifests whose
    annotations have changed since count too; the probes are those of then. Of two labels alone, and
    of splits that do not go by domain.
    """
    con = connect(store)
    check_dataset(store, con, dataset)
    rows = fetch_records(
        con,
        RunRow,
        "from (select distinct on (run_id) * from all_results where eval_dataset is null and "
        "target = 'label' and train_domain is null and fraction = 1 and dataset = $dataset) "
        "order by fold, run_id",
        {"dataset": dataset},
    )
    sides: dict[tuple[str, str], list[RunRow]] = defaultdict(list)
    for r in rows:
        sides[r.manifest_id, str(Side.named(r))].append(r)
    found = []
    for (manifest, side), runs in sides.items():
        sets = [s for r in runs if (s := _both(con, r)) is not None]
        if sets and (n := sum(changed for *_, changed in sets)):
            found.append((manifest, side, runs[0], sets, n))
    if not rows:
        raise EmbedstoreError(f"'{dataset}' has no runs; `probes run {dataset}` makes some")
    if not found:
        return [], ["no label has changed since any run was made: nothing to score again"]
    measures = []
    for manifest, side, run, sets, n in found:
        both = joint([t for old, new, _ in sets for t in (old, new)])
        by = left_out_by(run.group_by).removesuffix("_id")
        what = ManifestSpec.of(run).words()
        same: dict[str, Any] = {"model": side, "factor": f"{what} ({manifest})", "ci_by": by}
        same |= {"n_groups": both.blocks.n_groups, "n": n}
        for k, split in enumerate((THEN, NOW)):
            estimate = both.share(_every_other(k))
            measures.append(Measure("auroc", split=split, **same, **bounds(estimate)))
        change = both.contrast(lambda each: mean_of_folds(each[1::2]) - mean_of_folds(each[::2]), 1)
        measures.append(Measure("auroc_change", **same, **bounds(change)))
    return _ranked(store, dataset, measures), []


def _every_other(k: int) -> Callable[[Floats], Floats]:
    """Return what makes the mean over folds of those with one kind of labels."""
    return lambda each: mean_of_folds(each[k::2])


def _both(con: Any, run: RunRow) -> tuple[Test, Test, int] | None:
    """Return a run's test set with the labels then and now, and how many differ.

    None beyond two labels.
    """
    table = fetch(
        con,
        "select p.truth, a.label, p.label as positive, p.decision, coalesce(a.source_slide, "
        "a.slide) as slide, a.case_id from predictions p join annotations a using (annotation_id) "
        "where p.run_id = $run and p.role = 'test' order by annotation_id",
        {"run": run.run_id},
    )
    positive = set(table["positive"].to_pylist())
    if len(positive) != 1:
        return None
    (name,) = positive
    groups = table[left_out_by(run.group_by)].to_pylist()
    score = np.asarray(table["decision"].to_numpy(), dtype=np.float64)
    p = np.column_stack((-score, score))
    then, now = (
        np.array([v == name for v in table[c].to_pylist()], dtype=np.intp)
        for c in ("truth", "label")
    )
    return Test(then, p, groups), Test(now, p, groups), int((then != now).sum())


def _ranked(store: Store, dataset: str, measures: list[Measure]) -> list[Measure]:
    """Record the measures with each side's rank among those of its split and labels."""
    out = []
    for m in measures:
        if m.metric != "auroc":
            out.append(m)
            continue
        rivals = [
            to_null(o.value) or 0.0
            for o in measures
            if (o.metric, o.factor, o.split) == (m.metric, m.factor, m.split)
        ]
        rank = 1 + sum(v > (to_null(m.value) or 0.0) for v in rivals)
        out.append(replace(m, details={"rank": rank, "of": len(rivals)}))
    record_measures(store, dataset, STUDY, out)
    return out
