"""What embeddings say of slides, scanners and domains, and whether it costs anything elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import (
    Block,
    Figure,
    Line,
    Panel,
    Prose,
    Section,
    TableBlock,
    legend_of,
    style_of,
)
from probes.reports.makers import Maker, Material
from probes.reports.studied import of_metric, studied
from probes.reports.tables import Column, Table, between, change, number, p_value
from probes.scores.classical import FEWEST, spearman
from probes.scores.results import from_null
from probes.studies import gap
from probes.studies.measures import MeasureRow, load_measures
from probes.studies.robustness import STUDY

LEAD = (
    "An embedding also holds what is not of cells: the slide, the scanner, the domain. How near "
    "does the same label lie elsewhere, against another label on the same slide or scanner? And "
    "does it tell what is lost in a new domain?"
)


def robustness(material: Material) -> Section:
    """Return the section: a table a dataset, and robustness against the loss out of domain."""
    facts = material.facts
    rows, panels, said, missing = list[Any](), list[Panel](), list[Block](), list[Block]()
    for d in facts.datasets:
        found, lacks = studied(
            facts, d.dataset, STUDY, "what embeddings say of slides and scanners is unknown."
        )
        missing += lacks
        rows += _rows(d.dataset, found)
        drops = {
            str(m.model): m
            for m in load_measures(facts.con, d.dataset, gap.STUDY)
            if m.metric == "auroc_drop" and m.against is None and m.split == gap.DOMAIN
        }
        panel, text = _predicts(d.dataset, found, drops, material)
        panels += panel
        said += [Prose(t) for t in text]
    blocks: list[Block] = []
    if panels:
        caption = (
            "A point a model: the median margin against the domain (above 0 the label lies nearer) "
            "and the AUROC lost from splits by annotation to a new domain, with its 95% interval."
        )
        title = "Does robustness tell what is lost in a new domain?"
        blocks.append(Figure("figure-robustness", title, caption, panels, legend_of(panels)))
    blocks += said
    if rows:
        blocks.append(TableBlock(_table(rows)))
    return Section("embedding", "What else is in the embedding?", [*blocks, *missing], LEAD)


METRICS = (
    "robustness_index",
    "croma",
    "croma_worst_tenth",
    "croma_share_below",
    "factor_accuracy",
    "apd",
    "nipd",
)


def _rows(dataset: str, found: Sequence[MeasureRow]) -> list[dict[str, Any]]:
    """Return a row a factor and model, by index."""
    own = {(str(m.factor), str(m.model), m.metric): m for m in found if m.against is None}
    pairs = {
        (str(m.factor), str(m.against)): m
        for m in of_metric(found, "croma")
        if m.against is not None
    }
    rows = []
    for factor, model in dict.fromkeys(key[:2] for key in own):
        row: dict[str, Any] = {"dataset": dataset, "factor": factor, "model": model}
        for metric in METRICS:
            m = own.get((factor, model, metric))
            row[metric] = m.value if m else None
            row[f"{metric}_low"] = m.ci_low if m else None
            row[f"{metric}_high"] = m.ci_high if m else None
        first = own.get((factor, model, "robustness_index"))
        told = own.get((factor, model, "factor_accuracy"))
        pair = pairs.get((factor, model))
        row |= {
            "k": first.more.get("k") if first else None,
            "chance": told.more.get("chance") if told else None,
            "p_holm": pair.p_holm if pair else None,
            "n": first.n if first else None,
            "n_groups": first.n_groups if first else None,
        }
        rows.append(row)
    return sorted(rows, key=lambda r: (r["factor"], -from_null(r["robustness_index"])))


def _with_interval(key: str) -> Any:
    def text(r: Mapping[str, Any]) -> str:
        low, high = r[f"{key}_low"], r[f"{key}_high"]
        is_signed = key.startswith("croma") and key != "croma_share_below"
        interval = change(low, high) if is_signed else between(low, high, 2)
        return number(r[key], 3 if is_signed else 2) + (f" ({interval})" if interval else "")

    return text


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("factor", "column"),
        Column("model", "model"),
        Column("robustness_index", "robustness index", _with_interval("robustness_index"), True),
        Column("croma", "margin, median", _with_interval("croma"), True),
        Column("p_holm", "p of the margin, corrected", lambda r: p_value(r["p_holm"]), True),
        Column("croma_worst_tenth", "worst tenth", _with_interval("croma_worst_tenth"), True),
        Column("croma_share_below", "share below 0", _with_interval("croma_share_below"), True),
        Column(
            "factor_accuracy",
            "column told by a probe (chance)",
            lambda r: (
                _with_interval("factor_accuracy")(r)
                + (f" ({number(r['chance'], 2)})" if r["factor_accuracy"] is not None else "")
            ),
            True,
        ),
        Column("apd", "APD", lambda r: number(r["apd"]), True),
        Column("nipd", "nIPD", lambda r: number(r["nipd"]), True),
    ]
    notes = [
        "Robustness index: of the nearest annotations on other slides (or cases), how many share "
        "the label and not the column, of those that share one of the two. Margins: (distance to "
        "another label at the same value - distance to the same label elsewhere) / their sum. "
        "Brackets: 95% intervals, slides (or cases) left out as rows and as neighbours; p against "
        "the model with the highest index, corrected by Holm. APD: mean change of balanced "
        "accuracy where training binds the column to the label, 0 is none; nIPD: the area under "
        "the loss of skill. Of both there is no interval: training sets are drawn, slides are "
        "not left out."
    ]
    columns = [c for c in columns if any(r[c.key] is not None for r in rows)]
    return Table("robustness", "Robustness by column and model", columns, rows, notes)


def _predicts(
    dataset: str,
    found: Sequence[MeasureRow],
    drops: Mapping[str, MeasureRow],
    material: Material,
) -> tuple[list[Panel], list[str]]:
    """Return margins against losses as a panel, and their rank correlation in words."""
    margins = {
        str(m.model): m
        for m in of_metric(found, "croma")
        if m.against is None and m.factor == "domain" and m.value is not None
    }
    able = [m for m in margins if m in drops and drops[m].value is not None]
    if not able:
        return [], []
    lines = [
        Line(
            model,
            style_of(material.styles, model),
            [from_null(margins[model].value)],
            [from_null(drops[model].value)],
            [from_null(drops[model].ci_low)],
            [from_null(drops[model].ci_high)],
        )
        for model in able
    ]
    panel = Panel(
        dataset, lines, "plain", "AUROC lost in a new domain", x_label="median margin, by domain"
    )
    r = spearman([line.x[0] for line in lines], [line.y[0] for line in lines])
    if np.isnan(r.value):
        return [panel], [f"{dataset}: of {len(able)} models no rank correlation can be said."]
    interval = between(r.low, r.high, 2)
    if len(able) < FEWEST or not interval:
        sure = f"{len(able)} models are too few to say how sure that is"
    elif r.low <= 0 <= r.high:
        sure = f"95% interval over models {interval}: not told from none"
    else:
        sure = f"95% interval over models {interval}"
    return [panel], [
        f"{dataset}: rank correlation of the margin with the loss in a new domain "
        f"{number(r.value, 2)} of {len(able)} models ({sure}). Below 0: what is more robust loses "
        "less."
    ]


SECTION = Maker(35, robustness)
