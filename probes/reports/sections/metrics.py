"""All metrics of the newest runs, as a table."""

from typing import Any

from probes.reports.blocks import Block, TableBlock
from probes.reports.data import Facts, summaries
from probes.reports.tables import Column, Table, best_of, number, percent
from probes.scores.metrics import METRICS
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec


def metrics(facts: Facts) -> list[Block]:
    """Return a table of every metric at the largest fraction, per condition not by domain."""
    rows = []
    for d in facts.datasets:
        for c in facts.conditions(d.dataset, by_domain=False):
            top = max(r.fraction for r in facts.rows(c, "auroc"))
            each = {m: summaries(facts, c, m) for m in METRICS}
            for e in each["auroc"]:
                row: dict[str, Any] = {
                    "dataset": c.dataset,
                    "condition": str(c),
                    "fraction": top,
                    "name": facts.names[e],
                    "n_pos_share": _positives(facts, c, e),
                }
                for m in METRICS:
                    at_top = [s for s in each[m].get(e, []) if s.fraction == top]
                    row |= {
                        m: at_top[0].mean if at_top else None,
                        f"{m}_sd": at_top[0].sd if at_top else None,
                    }
                rows += [row] if row["auroc"] is not None else []
    if not rows:
        return []
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("name", "model"),
        Column("n_pos_share", "positive", lambda r: percent(r["n_pos_share"]), number=True),
    ]
    columns += [Column(m, m.replace("_", " "), _shower(m), number=True) for m in METRICS]
    best = set()
    for m in METRICS:
        sign = -1 if METRICS[m].is_lower_better else 1
        signed = [{**r, m: None if r[m] is None else sign * r[m]} for r in rows]
        best |= best_of(signed, m, ("dataset", "condition"))
    lower = " and ".join(m.replace("_", " ") for m, row in METRICS.items() if row.is_lower_better)
    notes = [
        f"Means over folds at the largest fraction; SDs are in the CSV file. Of {lower} the lowest "
        "is best; read average precision beside the share of "
        "positives, which is what chance has."
    ]
    return [
        TableBlock(
            Table(
                "metrics",
                "Every metric at the largest fraction",
                columns,
                rows,
                notes,
                frozenset(best),
            ),
            is_open=False,
        )
    ]


def _shower(metric: str) -> Any:
    return lambda r: number(r[metric])


def _positives(facts: Facts, c: ManifestSpec, e: Side) -> float | None:
    counted = [r for r in facts.rows(c, "auroc") if Side.of(r) == e and r.n_pos is not None]
    n = sum(r.n_test for r in counted)
    return sum(r.n_pos or 0 for r in counted) / n if n else None
