"""Label efficiency of recorded runs: AUROC by cells, slides and cases, and where curves cross."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embedstore.store.records import fetch_records
from embedstore.store.sql import fetch_rows
from probes.scores.evaluate import left_out_by
from probes.scores.joint import Test, joint, mean_of_folds
from probes.scores.metrics import Floats
from probes.scores.recorded import RunRow
from probes.scores.results import to_null
from probes.scores.scored_set import scored_set
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec
from probes.studies.measures import Measure, bounds

Curve = dict[float, list[RunRow]]
"""The runs of one side by fraction."""


def efficiency(con: Any, spec: ManifestSpec) -> list[Measure]:
    """Return, of a split's recorded runs, curves and where a probe's meets an end-to-end one's.

    metric efficiency: a side's AUROC over folds at a fraction (x), with n_cells, n_slides and
    n_cases of training in details. metric crossing: with how many training cells an end-to-end
    network (against) draws level with a probe; NULL where their curves do not cross.
    """
    curves = _curves(con, spec)
    amounts = _amounts(con, spec)
    by = left_out_by(spec.group_by)
    tests = {
        r.run_id: scored_set(con, r.run_id, r.threshold).whole(by)
        for curve in curves.values()
        for runs in curve.values()
        for r in runs
    }
    ci_by = by.removesuffix("_id")
    measures = []
    for side, curve in curves.items():
        for fraction, runs in sorted(curve.items()):
            of_fraction = joint([tests[r.run_id] for r in runs])
            of = bounds(of_fraction.share(mean_of_folds))
            of["details"] = {k: round(v) for k, v in amounts[fraction].items()}
            measures.append(
                Measure(
                    "efficiency",
                    model=str(side),
                    x=fraction,
                    split=spec.group_by,
                    ci_by=ci_by,
                    n=round(float(of_fraction.sizes.mean())),
                    n_groups=of_fraction.blocks.n_groups,
                    **of,
                )
            )
    for probe, a in curves.items():
        for network, b in curves.items():
            shared = sorted(a.keys() & b.keys())
            if network.is_e2e and not probe.is_e2e and len(shared) > 1:
                cells = [amounts[f]["n_cells"] for f in shared]
                found = _crossing(tests, [(a[f], b[f]) for f in shared], cells)
                same = {"split": spec.group_by, "ci_by": ci_by}
                named = {"model": str(probe), "against": str(network)}
                measures.append(Measure("crossing", **found | same | named))
    return measures


def _curves(con: Any, spec: ManifestSpec) -> dict[Side, Curve]:
    """Return the sides with runs of several fractions, each fraction with the same folds."""
    condition, values = spec.condition()
    rows = fetch_records(
        con,
        RunRow,
        "from (select distinct on (run_id) * from results where eval_dataset is null and "
        f"target = 'label' and train_domain is null and {condition}) order by fold, run_id",
        values,
    )
    curves: dict[Side, Curve] = {}
    for r in rows:
        side = Side.named(r)
        if not Side.of(r).is_transductive:
            curves.setdefault(side, {}).setdefault(r.fraction, []).append(r)
    # Several kinds of runs under one name have no one curve.
    return {
        side: curve
        for side, curve in curves.items()
        if len(curve) > 1
        and all(len({r.fold for r in runs}) == len(runs) for runs in curve.values())
    }


def _amounts(con: Any, spec: ManifestSpec) -> dict[float, dict[str, float]]:
    """Return how many cells, slides and cases train at each fraction, as means over folds."""
    condition, values = spec.condition()
    rows = fetch_rows(
        con,
        "select fraction, avg(n_cells) as n_cells, avg(n_slides) as n_slides, avg(n_cases) as "
        "n_cases from (select fraction, fold, count(*) as n_cells, count(distinct "
        "coalesce(source_slide, slide)) as n_slides, count(distinct case_id) as n_cases from "
        f"(select * from manifests where role = 'train' and manifest_id not in (select manifest_id "
        f"from superseded) and {condition}) join (select annotation_id, slide, source_slide, "
        "case_id from annotations) using (annotation_id) group by 1, 2) group by 1",
        values,
    )
    return {r.pop("fraction"): r for r in rows}


def _crossing(
    tests: Mapping[str, Test],
    pairs: Sequence[tuple[list[RunRow], list[RunRow]]],
    cells: Sequence[float],
) -> dict[str, Any]:
    """Return where a probe's lead over a network ends, with an interval on the scale of log n."""
    sets, parts = list[Test](), []
    for runs in pairs:
        halves = []
        for side in runs:
            halves.append(slice(len(sets), len(sets) + len(side)))
            sets += [tests[r.run_id] for r in side]
        parts.append(halves)
    of_all = joint(sets)
    log_n = np.log(np.asarray(cells, dtype=np.float64))

    def leads(each: Floats) -> Floats:
        return np.array([mean_of_folds(each[a]) - mean_of_folds(each[b]) for a, b in parts])

    found = of_all.contrast(_first_zero(leads, log_n))
    n_groups = of_all.blocks.n_groups
    fields = {"n_groups": n_groups, "value": to_null(np.exp(found.difference))}
    low, high = (to_null(np.exp(v)) for v in (found.low, found.high))
    kind = bounds(found)["ci_kind"]
    if low == high:  # the same without each slide: nothing says how sure it is
        return fields
    return fields | {"ci_low": low, "ci_high": high, "ci_kind": kind}


def _first_zero(leads: Callable[[Floats], Floats], log_n: Floats) -> Callable[[Floats], Floats]:
    """Return what makes log n where leads first fall from above zero to below; NaN if never."""

    def of(each: Floats) -> Floats:
        by_n = leads(each)
        result = np.full(by_n.shape[1], np.nan)
        for k in range(len(log_n) - 1, 0, -1):
            above, below = by_n[k - 1], by_n[k]
            falls = (above > 0) & (below <= 0)
            share = above[falls] / (above[falls] - below[falls])
            result[falls] = log_n[k - 1] + share * (log_n[k] - log_n[k - 1])
        return result

    return of
