"""How few labels do: probes on small support sets, and where training end to end draws level."""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.reports.blocks import (
    Block,
    Figure,
    Level,
    Line,
    Panel,
    Prose,
    Section,
    Style,
    TableBlock,
    legend_of,
    style_of,
)
from probes.reports.makers import Maker, Material
from probes.reports.studied import human_line, of_metric, studied
from probes.reports.tables import Column, Table, between, number
from probes.scores.results import from_null
from probes.scores.sides import Side
from probes.studies.measures import MeasureRow
from probes.studies.shots import STUDY


def shots(material: Material) -> Section:
    """Return the section: curves over small support sets, the tables behind, and crossings."""
    facts = material.facts
    panels, rows, curves, said = list[Panel](), list[Any](), list[Any](), list[Block]()
    missing: list[Block] = []
    for d in facts.datasets:
        found, lacks = studied(facts, d.dataset, STUDY, "how few labels do is unknown.")
        missing += lacks
        few = of_metric(found, "auroc")
        if few:
            panels.append(_panel(d.dataset, few, material.styles, human_line(facts, d.dataset)))
            rows += [_row(d.dataset, m) for m in few]
        curves += [_curve(d.dataset, m) for m in of_metric(found, "efficiency")]
        said += [Prose(_crossing(d.dataset, m)) for m in of_metric(found, "crossing")]
    blocks: list[Block] = []
    if panels:
        caption = (
            "Mean AUROC over support sets drawn from the training side of folds that keep slides "
            "apart; bars: 95% intervals over the test slides. The spread of single support sets, "
            "which is wider, is in the table."
        )
        title = "A handful of labels"
        blocks = [Figure("figure-shots", title, caption, panels, legend_of(panels)), *said]
        blocks.append(TableBlock(_table(rows), is_open=False))
    if curves:
        blocks.append(TableBlock(_curve_table(curves), is_open=False))
    return Section("few-labels", "How few labels do?", [*blocks, *missing])


def _panel(
    dataset: str,
    found: Sequence[MeasureRow],
    styles: Mapping[Side, Style],
    level: Level | None,
) -> Panel:
    sizes = sorted({from_null(m.x) for m in found})
    lines = []
    for model in dict.fromkeys(str(m.model) for m in found):
        mine = [m for m in found if m.model == model and m.value is not None]
        lines.append(
            Line(
                model,
                style_of(styles, model),
                [sizes.index(from_null(m.x)) for m in mine],
                [from_null(m.value) for m in mine],
                [from_null(m.ci_low) for m in mine],
                [from_null(m.ci_high) for m in mine],
            )
        )
    unit = found[0].factor
    label = "cells a class" if unit == "cell" else f"{unit}s"
    title = f"{dataset}: {found[0].more.get('method')}, split by {found[0].split}"
    ticks = [f"{s:g}" for s in sizes]
    return Panel(title, lines, "plain", "AUROC", x_label=label, ticks=ticks, level=level)


def _row(dataset: str, m: MeasureRow) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "model": m.model,
        "unit": m.factor,
        "size": int(from_null(m.x)),
        "mean": m.value,
        "ci_low": m.ci_low,
        "ci_high": m.ci_high,
        **{k: m.more.get(k) for k in ("sd_draws", "n_sets", "n_train", "collapsed", "method")},
        "n_groups": m.n_groups,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("model", "model"),
        Column("unit", "drawn in"),
        Column("size", "size", number=True),
        Column("n_train", "cells", lambda r: number(r["n_train"], 0), number=True),
        Column("mean", "AUROC, mean", lambda r: number(r["mean"]), number=True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
        Column("sd_draws", "SD of support sets", lambda r: number(r["sd_draws"]), number=True),
        Column("n_sets", "sets", number=True),
    ]
    notes = [
        "SD of support sets: the variance of training, one drawing of labels against another. The "
        "interval is of the mean over them, test slides (or cases) left out."
    ]
    return Table("shots", "Few labels, by model", columns, rows, notes)


def _curve(dataset: str, m: MeasureRow) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "name": m.model,
        "split": m.split,
        "fraction": m.x,
        **{k: m.more.get(k) for k in ("n_cells", "n_slides", "n_cases")},
        "auroc": m.value,
        "ci_low": m.ci_low,
        "ci_high": m.ci_high,
    }


def _curve_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("name", "method:model"),
        Column("fraction", "fraction", lambda r: f"{r['fraction']:g}", number=True),
        Column("n_cells", "cells", number=True),
        Column("n_slides", "slides", number=True),
        Column("n_cases", "cases", number=True),
        Column("auroc", "AUROC, mean", lambda r: number(r["auroc"]), number=True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
    ]
    notes = ["The interval is of the mean over folds, slides (or cases) left out of all of them."]
    return Table("efficiency", "Learning curves in cells, slides and cases", columns, rows, notes)


def _crossing(dataset: str, m: MeasureRow) -> str:
    """Return where a network trained end to end draws level with a probe, in words."""
    if m.value is None:
        return f"{dataset}: {m.against} does not draw level with {m.model} within what was trained."
    text = f"{dataset}: {m.against} draws level with {m.model} at about {m.value:,.0f} cells"
    if m.ci_low is None or m.ci_high is None:
        return f"{text} (no interval: without some slide the curves do not cross)."
    return f"{text} (95% interval {m.ci_low:,.0f} to {m.ci_high:,.0f})."


SECTION = Maker(12, shots)
