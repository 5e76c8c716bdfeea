"""The first figure of the report: what is left of each model on honest splits."""

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
from probes.reports.data import Facts
from probes.reports.makers import Maker, Material
from probes.reports.studied import human_line, of_metric, random_twin, studied
from probes.reports.tables import Column, Table, between, change, number, p_value, signed
from probes.scores.results import from_null
from probes.scores.sides import Side
from probes.studies.gap import ANNOTATION, LEVELS, STUDY
from probes.studies.measures import MeasureRow

MAX_OPEN = 45
"""Rows of a table that is shown open; more of them hide what follows."""
LEAD = (
    "A test set drawn by annotation shares slides, and often pixels, with training. What is left "
    "of a model when whole slides, whole cases, or a whole domain are kept out?"
)


def gap(material: Material) -> Section:
    """Return the section: a panel a dataset, a table, and whether the ranking survives."""
    facts = material.facts
    panels, rows, said, missing = list[Panel](), list[Any](), list[Block](), list[Block]()
    for d in facts.datasets:
        measures, lacks = studied(facts, d.dataset, STUDY, "the cost of honest splits is unknown.")
        missing += lacks
        if not measures:
            continue
        levels = [k for k in LEVELS if any(m.split == k for m in measures)]
        panels.append(
            _panel(d.dataset, measures, levels, material.styles, human_line(facts, d.dataset))
        )
        rows += _rows(facts, d.dataset, measures, levels)
        said += [Prose(text) for text in _ranking(d.dataset, measures)]
    blocks: list[Block] = []
    if panels:
        caption = (
            "AUROC, mean over folds, with the 95% interval of leaving out slides (or cases, where "
            "they are named) jointly in all folds and splits; the variance of training is not in "
            "it. In a new domain annotations are ranked within that domain alone."
        )
        title = "What honest splits leave of each model"
        blocks = [Figure("figure-gap", title, caption, panels, legend_of(panels)), *said]
        blocks.append(TableBlock(_table(rows), is_open=len(rows) <= MAX_OPEN))
    return Section("honest-splits", "What do honest splits leave?", [*blocks, *missing], LEAD)


def _panel(
    dataset: str,
    measures: Sequence[MeasureRow],
    levels: Sequence[str],
    styles: Mapping[Side, Style],
    level: Level | None,
) -> Panel:
    of = {(m.model, m.split): m for m in of_metric(measures, "auroc")}
    lines = []
    for model in dict.fromkeys(str(m.model) for m in of.values()):
        each = [of[model, k] for k in levels if (model, k) in of]
        each = [m for m in each if m.value is not None]
        lines.append(
            Line(
                model,
                style_of(styles, model),
                [levels.index(str(m.split)) for m in each],
                [from_null(m.value) for m in each],
                [from_null(m.ci_low) for m in each],
                [from_null(m.ci_high) for m in each],
            )
        )
    ticks = [k if k.startswith("new") else f"by {k}" for k in levels]
    return Panel(dataset, lines, "plain", "AUROC", ticks=ticks, level=level)


def _rows(
    facts: Facts, dataset: str, measures: Sequence[MeasureRow], levels: Sequence[str]
) -> list[dict[str, Any]]:
    values = {(str(m.model), m.split): m for m in of_metric(measures, "auroc")}
    drops = {(m.model, m.split): m for m in of_metric(measures, "auroc_drop") if not m.against}
    against = {(m.against, m.split): m for m in of_metric(measures, "auroc_drop") if m.against}
    rows = []
    for m in values.values():
        model, level = str(m.model), str(m.split)
        twin = values.get((random_twin(facts, model) or "", level))
        drop, pair = drops.get((model, level)), against.get((model, level))
        rows.append(
            {
                "dataset": dataset,
                "model": model,
                "split": level,
                "auroc": m.value,
                "floor": twin.value if twin else None,
                "ci_low": m.ci_low,
                "ci_high": m.ci_high,
                "drop": drop.value if drop else None,
                "drop_low": drop.ci_low if drop else None,
                "drop_high": drop.ci_high if drop else None,
                "best": pair.model if pair else None,
                "less": None if pair is None or pair.value is None else -pair.value,
                "p_holm": pair.p_holm if pair else None,
                "n_test": m.n,
                "n_groups": m.n_groups,
                "ci_by": m.ci_by,
            }
        )
    return sorted(rows, key=lambda r: (-levels.index(r["split"]), -from_null(r["auroc"])))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("split", "split"),
        Column("model", "model"),
        Column("auroc", "AUROC", lambda r: number(r["auroc"]), number=True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
        Column("floor", "random twin", lambda r: number(r["floor"]), number=True),
        Column("drop", "lost", lambda r: signed(r["drop"]), number=True),
        Column("drop_low", "95% CI", lambda r: change(r["drop_low"], r["drop_high"]), number=True),
        Column("less", "lost more than the best", lambda r: signed(r["less"]), number=True),
        Column("p_holm", "p, corrected", lambda r: p_value(r["p_holm"]), number=True),
        Column("n_test", "n test", number=True),
        Column("n_groups", "slides or cases", number=True),
    ]
    notes = [
        "Lost: against splits by annotation, the same slides (or cases) left out of both. The best "
        "is that of the hardest split; p is of losing as much as it does, corrected by Holm for "
        "the models of a split. Random twin: the same architecture with random weights, where it "
        "is ingested: what it reaches is not what pretraining gave."
    ]
    columns = [c for c in columns if any(r[c.key] is not None for r in rows)]
    return Table("gap", "What honest splits leave", columns, rows, notes)


def _ranking(dataset: str, measures: Sequence[MeasureRow]) -> list[str]:
    """Return whether the ranking by annotation is that of each honest split, in words."""
    said = []
    for m in of_metric(measures, "rank_correlation"):
        if m.value is None:
            continue
        interval = between(m.ci_low, m.ci_high, 2)
        sure = f"95% interval over models {interval}" if interval else "too few for an interval"
        where = str(m.split) if str(m.split).startswith("new") else f"split by {m.split}"
        said.append(f"{where}: {number(m.value, 2)} of {m.n} models ({sure})")
    if not said:
        return []
    return [
        f"{dataset}: rank correlation of the models by {ANNOTATION} with that of each honest "
        "split. " + "; ".join(said).capitalize() + ". 1 is the same ranking."
    ]


SECTION = Maker(5, gap)
