"""The leaderboard: a row a model and split, as JSON beside the page."""

from collections.abc import Mapping
from typing import Any

from probes.reports.data import Facts, summaries
from probes.scores.results import OUT, Summary, to_null
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec
from probes.studies.cells import SEED
from probes.studies.gap import LEVELS, STUDY, specs
from probes.studies.measures import MeasureRow, load_measures

LEADERBOARD = "leaderboard.json"
"""Its schema is in docs/protocol.md."""


def leaderboard(facts: Facts) -> list[dict[str, Any]]:
    """Return a row per dataset, split, side, fraction and kind of test set, in that order.

    value is AUROC, the mean over runs, and sd their spread (test sets overlap: it is no error).
    ci_low and ci_high are of that mean, slides or cases left out of all folds at once, where
    `probes gap` recorded it, else null: a single run's interval is another thing.
    """
    rows = []
    for d in facts.datasets:
        levels = {
            (str(m.model), str(m.split)): m
            for m in load_measures(facts.con, d.dataset, STUDY)
            if m.metric == "auroc"
        }
        found = [k for k in LEVELS if any(split == k for _, split in levels)]
        level_of = {spec: level for level, spec in specs(d.dataset, found, SEED).items()}
        for by_domain in (False, True):
            for c in facts.conditions(d.dataset, by_domain=by_domain):
                for e, of_side in summaries(facts, c).items():
                    rows += [
                        _row(facts, c, e, s, _interval(levels, level_of, c, e, s)) for s in of_side
                    ]
    return rows


def _interval(
    levels: Mapping[tuple[str, str], MeasureRow],
    level_of: Mapping[ManifestSpec, str],
    c: ManifestSpec,
    e: Side,
    s: Summary,
) -> MeasureRow | None:
    """Return the measure that is of the very runs of a summary, None where there is none."""
    level = level_of.get(c)
    if level is None or s.fraction != 1 or s.where not in ("all", OUT):
        return None
    found = levels.get((e.model, level))
    is_same = found is not None and to_null(found.value) is not None
    if not is_same or found is None or found.value is None or abs(found.value - s.mean) > 1e-9:
        return None
    return found


def _row(
    facts: Facts, c: ManifestSpec, e: Side, s: Summary, interval: MeasureRow | None
) -> dict[str, Any]:
    return {
        "dataset": c.dataset,
        "model": e.model,
        "method": e.method,
        "variant": e.variant,
        "name": facts.names[e],
        "weights": e.weights,
        "weights_sha256": e.weights_sha256 or None,
        "scheme": c.scheme,
        "group_by": c.group_by,
        "stratify": c.stratify,
        "where_sql": c.where,
        "seed": c.seed,
        "fraction": s.fraction,
        "test": s.where,
        "metric": "auroc",
        "value": to_null(s.mean),
        "sd": to_null(s.sd),
        "ci_low": interval.ci_low if interval else None,
        "ci_high": interval.ci_high if interval else None,
        "ci_kind": interval.ci_kind if interval else None,
        "ci_by": interval.ci_by if interval else None,
        "n_groups": interval.n_groups if interval else None,
        "n_train": s.n_train,
        "n_runs": s.n_runs,
        "n_failed": s.n_failed,
    }
