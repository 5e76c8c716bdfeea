"""Does a second model earn its place? The greedy path on test, and what it costs."""

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
from probes.reports.tables import Column, Table, between, change, number, p_value, signed
from probes.scores.results import from_null
from probes.scores.sides import Side
from probes.studies.fusion import STUDY
from probes.studies.measures import MeasureRow

LEAD = (
    "Models are added to the best one, side by side, as validation says. A second one doubles the "
    "cost: it earns its place where the gain on test is told from none."
)


def fusion(material: Material) -> Section:
    """Return the section: AUROC against parameters, the path, and its verdict in words."""
    facts = material.facts
    panels, rows, said, missing = list[Panel](), list[Any](), list[Block](), list[Block]()
    for d in facts.datasets:
        found, lacks = studied(facts, d.dataset, STUDY, "no fusion of models is tried.")
        if len(facts.models) < 2:
            lacks = []  # nothing to put side by side
        missing += lacks
        if found:
            panels.append(_panel(d.dataset, found, material.styles, human_line(facts, d.dataset)))
            rows += _rows(d.dataset, found)
            said.append(Prose(_verdict(d.dataset, found)))
    blocks: list[Block] = []
    if panels:
        caption = (
            "Each point a model or a fusion; bars: 95% intervals, slides (or cases) left out. The "
            "line joins what is best for its cost (Pareto): every other point costs more than one "
            "that is as good."
        )
        title = "What more parameters buy"
        figure = Figure("figure-fusion", title, caption, panels, legend_of(panels))
        blocks = [figure, *said, TableBlock(_table(rows))]
    title = "Does a second model earn its place?"
    return Section("together", title, [*blocks, *missing], LEAD)


def _panel(
    dataset: str,
    found: Sequence[MeasureRow],
    styles: Mapping[Side, Style],
    level: Level | None,
) -> Panel:
    points = [m for m in of_metric(found, "auroc") if m.value is not None]
    points.sort(key=lambda m: (m.more["n_params"], -from_null(m.value)))
    lines = [
        Line(
            str(m.model),
            style_of(styles, str(m.model)),
            [m.more["n_params"] / 1e6],
            [from_null(m.value)],
            [from_null(m.ci_low)],
            [from_null(m.ci_high)],
        )
        for m in points
    ]
    best, front = -1.0, []
    for m in points:
        if from_null(m.value) > best:
            best = from_null(m.value)
            front.append((m.more["n_params"] / 1e6, best))
    x, y = ([p[k] for p in front] for k in (0, 1))
    path = Line("best for its cost", Style(None, 2, 11), x, y)
    label = "parameters, millions"
    return Panel(dataset, [*lines, path], "plain", "AUROC", x_label=label, level=level)


def _rows(dataset: str, found: Sequence[MeasureRow]) -> list[dict[str, Any]]:
    gains = {str(m.model): m for m in of_metric(found, "auroc_gain")}
    rows = []
    for m in of_metric(found, "auroc"):
        gain = gains.get(str(m.model))
        rows.append(
            {
                "dataset": dataset,
                "name": m.model,
                "kind": m.factor,
                "n_models": int(from_null(m.x)),
                "val_log_loss": m.more["val_log_loss"],
                "auroc": m.value,
                "ci_low": m.ci_low,
                "ci_high": m.ci_high,
                "gain": gain.value if gain else None,
                "gain_low": gain.ci_low if gain else None,
                "gain_high": gain.ci_high if gain else None,
                "p_value": gain.p_value if gain else None,
                "n_params": m.more["n_params"],
                "gb": m.more["gb"],
                "split": m.split,
            }
        )
    order = ["alone", "side by side", "mean"]
    return sorted(rows, key=lambda r: (order.index(r["kind"]), r["val_log_loss"]))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("name", "models"),
        Column("kind", "how"),
        Column("val_log_loss", "validation log-loss", lambda r: number(r["val_log_loss"]), True),
        Column("auroc", "AUROC, test", lambda r: number(r["auroc"]), True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), True),
        Column("gain", "gain of the last", lambda r: signed(r["gain"]), True),
        Column("gain_low", "95% interval", lambda r: change(r["gain_low"], r["gain_high"]), True),
        Column("p_value", "p", lambda r: p_value(r["p_value"]), True),
        Column("n_params", "parameters, M", lambda r: number(r["n_params"] / 1e6, 1), True),
        Column("gb", "GB a million cells", lambda r: number(r["gb"], 2), True),
    ]
    notes = [
        "Which model joins is decided by validation log-loss, test had no say; the gain is that of "
        "the last model, paired, slides (or cases) left out jointly. Mean: of the log-odds of each "
        "model's own probe. Imported vectors have no known number of parameters."
    ]
    return Table("fusion", "Models together", columns, rows, notes)


def _verdict(dataset: str, found: Sequence[MeasureRow]) -> str:
    gains = of_metric(found, "auroc_gain")
    if not gains:
        return f"{dataset}: no second model lowers the validation log-loss of the best one."
    said = []
    for m in sorted(gains, key=lambda m: len(str(m.model))):
        sure = m.ci_low is not None and m.ci_low > 0
        interval = change(m.ci_low, m.ci_high)
        said.append(
            f"{m.model} gains {signed(m.value)} over {m.against}"
            + (f" ({interval})" if interval else " (no interval)")
            + ("" if sure else ", not told from none")
        )
    return f"{dataset}: " + "; ".join(said) + "."


SECTION = Maker(38, fusion)
