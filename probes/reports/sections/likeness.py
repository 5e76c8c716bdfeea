"""How alike the models are: matrices, and every pair with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.reports.blocks import Block, Figure, MatrixPanel, Missing, Section, TableBlock
from probes.reports.makers import Maker, Material
from probes.reports.studied import of_metric, studied
from probes.reports.tables import Column, Table, between, number
from probes.scores.results import from_null
from probes.studies.likeness import STUDY
from probes.studies.measures import MeasureRow

MOST = 12
"""Models of a matrix whose numbers can be read; of more the pairs are listed alone."""
MAX_OPEN = 45
"""Rows of a table that is shown open."""
LEAD = (
    "Two models that are alike make the same mistakes, and a second one of them adds little. 1 is "
    "the same but for a rotation."
)
METRICS = {"cka": "linear CKA", "mutual_knn": "shared nearest neighbours"}


def likeness(material: Material) -> Section:
    """Return the section: two matrices a dataset, and the pairs behind them."""
    facts = material.facts
    blocks, rows, missing = list[Block](), list[Any](), list[Missing]()
    for n, d in enumerate(facts.datasets):
        found, lacks = studied(facts, d.dataset, STUDY, "how alike its models are is unknown.")
        if len(facts.models) < 2:
            lacks = []  # one model alone is like no other
        missing += lacks
        names = sorted({str(x) for m in found for x in (m.model, m.against)})
        if found and len(names) <= MOST:
            blocks.append(_figure(d.dataset, n + 1, found, names))
        rows += _rows(d.dataset, found)
    if rows:
        blocks.append(TableBlock(_table(rows), is_open=len(rows) <= MAX_OPEN))
    return Section("likeness", "How alike are the models?", [*blocks, *missing], LEAD)


def _figure(dataset: str, n: int, found: Sequence[MeasureRow], names: Sequence[str]) -> Figure:
    panels = []
    for metric, title in METRICS.items():
        values = {(str(m.model), str(m.against)): m.value for m in of_metric(found, metric)}
        values |= {(b, a): v for (a, b), v in values.items()} | {(a, a): 1.0 for a in names}
        table = [[from_null(values.get((a, b))) for b in names] for a in names]
        panels.append(MatrixPanel(f"{dataset}: {title}", names, names, table, axes=("", "")))
    caption = (
        "Linear CKA of centred vectors, and the mean share of a cell\u2019s ten nearest cells that "
        f"two models have in common, on {found[0].n:,} cells."
    )
    title = f"How alike models are, {dataset}"
    return Figure(f"figure-likeness-{n}", title, caption, panels, is_wide=True)


def _rows(dataset: str, found: Sequence[MeasureRow]) -> list[dict[str, Any]]:
    knn = {(m.model, m.against): m for m in of_metric(found, "mutual_knn")}
    rows = []
    for m in of_metric(found, "cka"):
        near = knn[m.model, m.against]
        rows.append(
            {
                "dataset": dataset,
                "a": m.model,
                "b": m.against,
                "cka": m.value,
                "cka_low": m.ci_low,
                "cka_high": m.ci_high,
                "mutual_knn": near.value,
                "mutual_knn_low": near.ci_low,
                "mutual_knn_high": near.ci_high,
                "chance": near.more.get("chance"),
                "n": m.n,
                "n_groups": m.n_groups,
            }
        )
    return sorted(rows, key=lambda r: -from_null(r["mutual_knn"]))


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("a", "model"),
        Column("b", "and"),
        Column("cka", "linear CKA", lambda r: number(r["cka"], 2), number=True),
        Column("cka_low", "95% CI", lambda r: between(r["cka_low"], r["cka_high"], 2), number=True),
        Column(
            "mutual_knn", "shared neighbours", lambda r: number(r["mutual_knn"], 2), number=True
        ),
        Column(
            "mutual_knn_low",
            "95% CI",
            lambda r: between(r["mutual_knn_low"], r["mutual_knn_high"], 2),
            number=True,
        ),
        Column("n", "cells", number=True),
    ]
    notes = ["Intervals leave slides out, of CKA in twenty blocks; neighbours stay those of all."]
    return Table("likeness-pairs", "Pairs of models", columns, rows, notes)


SECTION = Maker(39, likeness)
