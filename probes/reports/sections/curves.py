"""Figure 1 of the report, AUROC against training-set size; the tables of models and of metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import Block, Figure, Line, Missing, Panel, Section, Style, TableBlock
from probes.reports.data import Facts, summaries
from probes.reports.makers import Maker, Material
from probes.reports.repeat import run_command
from probes.reports.sections.metrics import metrics
from probes.reports.studied import human_line
from probes.reports.tables import Column, Table, best_of, between, spread
from probes.scores.results import Summary
from probes.scores.sides import Side
from probes.scores.statistics import KIND
from probes.splits.spec import ManifestSpec

MAX_LINES = 10
"""Lines in one pair of axes; with more, each method has its own."""


def curves(material: Material) -> Section:
    """Return the section of Figure 1: a panel per dataset and condition that is not by domain."""
    facts, styles = material.facts, material.styles
    panels: list[Panel] = []
    rows: list[dict[str, Any]] = []
    missing: list[Block] = []
    for d in facts.datasets:
        conditions = facts.conditions(d.dataset, by_domain=False)
        if not conditions:
            missing.append(
                Missing(
                    f"{d.dataset} has no result on splits of all its domains.",
                    f"{run_command(_usual(d.dataset))} --fraction 0.01 --fraction 0.1 --fraction 1",
                )
            )
        for c in conditions:
            by_side = summaries(facts, c)
            rows += [_row(facts, c, e, s) for e, of_side in by_side.items() for s in of_side]
            panels += _panels(facts, c, by_side, styles)
    blocks: list[Block] = []
    if panels:
        shown = {line.name for p in panels for line in p.lines}
        legend = [(facts.names[e], styles[e]) for e in facts.sides if facts.names[e] in shown]
        blocks.append(
            Figure(
                "figure1",
                "Figure 1. AUROC against the size of the training set",
                "Points are means over folds at the actual number of training annotations; the "
                "band is the mean of the runs\u2019 own 95% intervals over slides (or "
                "cases, where the manifest groups by them): how sure one run is, not how sure the "
                f"mean is. {_of_former(facts)}"
                "Thick, with diamonds: trained end to end. "
                "Where many lines are in a panel, point at one in the legend to see its band.",
                panels,
                legend,
            )
        )
        blocks.append(TableBlock(_figure_table(rows), is_open=False))
    return Section("sizes", "How much data does it take?", [*blocks, *missing, *metrics(facts)])


def _usual(dataset: str) -> ManifestSpec:
    return ManifestSpec(dataset)


def _row(facts: Facts, c: ManifestSpec, e: Side, s: Summary) -> dict[str, Any]:
    return {
        "dataset": c.dataset,
        "condition": str(c),
        "name": facts.names[e],
        "model": e.model,
        "method": e.method,
        "weights": e.weights,
        "fraction": s.fraction,
        "n_train": s.n_train,
        "mean": s.mean,
        "sd": s.sd,
        "ci_low": s.low,
        "ci_high": s.high,
        "n_runs": s.n_runs,
        "n_failed": s.n_failed,
    }


def _of_former(facts: Facts) -> str:
    """Return a note on intervals that a former version made, nothing where there are none."""
    runs = {r.run_id for r in facts.results if r.ci_low is not None and r.ci_kind != KIND}
    if not runs:
        return ""
    return (
        f"The intervals of {len(runs):,} runs are a former version\u2019s percentiles, too narrow "
        "with few slides: probes run --force makes them anew. "
    )


def _panels(
    facts: Facts,
    c: ManifestSpec,
    by_side: Mapping[Side, Sequence[Summary]],
    styles: Mapping[Side, Style],
) -> list[Panel]:
    sides = sorted(by_side, key=facts.sides.index)
    methods = list(dict.fromkeys(e.method for e in sides if not e.is_e2e)) or [""]
    apart = len(sides) > MAX_LINES and len(methods) > 1
    panels = []
    for method in methods if apart else [""]:
        lines = []
        for e in sides:
            points = sorted((s for s in by_side[e] if s.mean == s.mean), key=lambda s: s.n_train)
            if points and (e.is_e2e or method in ("", e.method)):
                lines.append(
                    Line(
                        facts.names[e],
                        styles[e],
                        [s.n_train for s in points],
                        [s.mean for s in points],
                        [s.low for s in points],
                        [s.high for s in points],
                        bold=e.is_e2e,
                    )
                )
        title = f"{c.dataset}: {c}" + (f", {method}" if apart else "")
        if lines:
            level = human_line(facts, c.dataset)
            panels.append(Panel(title, lines, "curves", "AUROC", _floor(facts), level=level))
    return panels


def _floor(facts: Facts) -> float:
    """Return where all vertical axes begin: below the lowest bound, at most at 0.5."""
    lows = [
        s.low if s.low == s.low else s.mean
        for d in facts.datasets
        for c in facts.conditions(d.dataset, by_domain=False)
        for m in summaries(facts, c).values()
        for s in m
        if s.mean == s.mean
    ]
    return max(0.0, float(np.floor(min([*lows, 0.52]) * 10 - 0.2) / 10))


def _figure_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("name", "model"),
        Column("fraction", "fraction", lambda r: f"{r['fraction']:g}", number=True),
        Column("n_train", "n train", number=True),
        Column("mean", "AUROC, mean ± SD", lambda r: spread(r["mean"], r["sd"]), number=True),
        Column(
            "ci_low",
            "a run\u2019s 95% CI",
            lambda r: between(r["ci_low"], r["ci_high"]),
            number=True,
        ),
        Column("n_runs", "runs", number=True),
        Column("n_failed", "failed", lambda r: str(r["n_failed"] or ""), number=True),
    ]
    best = best_of(rows, "mean", ("dataset", "condition", "fraction"), "n_runs")
    notes = [
        "Failed: runs whose probe collapsed (a penalty that outweighs every direction, or "
        "kNN where all training rows vote) or did not converge; they count with the AUROC "
        "they have."
    ]
    return Table(
        "figure1",
        "The numbers of Figure 1",
        columns,
        rows,
        notes if any(r["n_failed"] for r in rows) else [],
        frozenset(best),
    )


SECTION = Maker(10, curves)
