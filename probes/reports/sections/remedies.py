"""Corrections of embeddings by slide or domain, beside the same runs without them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import Block, Missing, Section, TableBlock
from probes.reports.data import Facts, by_side
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command, flat, run_command
from probes.reports.tables import Column, Table, change, number, p_value, signed
from probes.scores.recorded import ResultRow
from probes.scores.results import OUT, from_null, where_of
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec

LEAD = (
    "What the vectors of one slide or domain have in common can be taken off them. Fitted on "
    "training rows alone it is as honest as the probe; transductive corrections look at the test "
    "slides' unlabelled vectors as well, which a user has only after the slide is there."
)


def remedies(material: Material) -> Section:
    """Return the section: before and after, paired by split, of each correction and model."""
    facts = material.facts
    rows, missing = list[Any](), list[Block]()
    for d in facts.datasets:
        for c, of_condition in facts.corrected(d.dataset):
            plain = by_side(facts.rows(c, "auroc"))
            for e, of_side in by_side(of_condition).items():
                rows += _rows(facts, c, e, of_side, plain)
        lacks = [r for r in rows if r["dataset"] == d.dataset and r["command"]]
        if lacks:
            again = "\n".join(dict.fromkeys(r["command"] for r in lacks[:8]))
            more = f" (the first 8 of {len(lacks)})" if len(lacks) > 8 else ""
            missing.append(Missing(f"{d.dataset}: without an interval{more}:", again))
    if not rows:
        first = facts.datasets[0].dataset
        c = ManifestSpec(first, group_by="slide")
        missing = [
            Missing("No correction is tried.", run_command(c, "--correct", "centre:slide")),
        ]
        return Section("correcting", TITLE, missing, LEAD)
    return Section("correcting", TITLE, [TableBlock(_table(rows)), *missing], LEAD)


TITLE = "Does correcting for slide or domain help?"


def _rows(
    facts: Facts,
    c: ManifestSpec,
    e: Side,
    of_side: Sequence[ResultRow],
    plain: Mapping[Side, Sequence[ResultRow]],
) -> list[dict[str, Any]]:
    """Return a row for each kind of test set at the largest fraction that both have."""
    before = next(
        (
            rows
            for p, rows in plain.items()
            if (p.method, p.model, p.weights_sha256) == (e.method, e.model, e.weights_sha256)
            and p.variant is None
        ),
        [],
    )
    found = []
    for where in dict.fromkeys(where_of(r) for r in of_side):
        after_of, before_of = (
            {(r.fraction, r.fold, r.train_domain, r.eval_domain): r for r in rows}
            for rows in (
                [r for r in of_side if where_of(r) == where and r.value is not None],
                [r for r in before if where_of(r) == where and r.value is not None],
            )
        )
        keys = [k for k in after_of if k in before_of]
        keys = [k for k in keys if k[0] == max(k[0] for k in keys)]
        if not keys:
            continue
        values = [(from_null(before_of[k].value), from_null(after_of[k].value)) for k in keys]
        both = [of[k] for of in (before_of, after_of) for k in keys]
        named = Side(e.method, e.model, e.variant), Side(e.method, e.model)
        compared = facts.comparison(str(named[0]), str(named[1]), where, both)
        sides = [("--a", str(named[1])), ("--b", str(named[0]))]
        again = command("probes", "compare", c.dataset, *flat([*c.options, *sides]))
        found.append(
            {
                "dataset": c.dataset,
                "condition": str(c),
                "test": where if where == OUT or where.startswith("in") else "all",
                "model": e.model,
                "method": e.method,
                "correction": e.correction,
                "transductive": e.is_transductive,
                "before": float(np.mean([a for a, _ in values])),
                "after": float(np.mean([b for _, b in values])),
                "gain": float(np.mean([b - a for a, b in values])),
                "ci_low": compared.ci_low if compared else None,
                "ci_high": compared.ci_high if compared else None,
                "p_value": compared.p_value if compared else None,
                "n_runs": len({r.run_id for r in (after_of[k] for k in keys)}),
                "command": None if compared else again,
            }
        )
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("test", "test"),
        Column("model", "model"),
        Column("method", "method"),
        Column("correction", "correction"),
        Column("before", "AUROC before", lambda r: number(r["before"]), number=True),
        Column("after", "after", lambda r: number(r["after"]), number=True),
        Column("gain", "gain", lambda r: signed(r["gain"]), number=True),
        Column("ci_low", "95% interval", lambda r: change(r["ci_low"], r["ci_high"]), number=True),
        Column("p_value", "p", lambda r: p_value(r["p_value"]), number=True),
        Column("n_runs", "runs", number=True),
    ]
    notes = [
        "The same splits, training and test annotations, at the largest fraction; intervals and p "
        "as probes compare recorded them, not corrected for the number of rows. Transductive: "
        "slides (or domains) that training has not seen are corrected by their own unlabelled "
        "annotations; those numbers stand in no other table of this page."
    ]
    ordered = sorted(rows, key=lambda r: (r["dataset"], r["transductive"]))
    return Table("remedies", "Before and after correction", columns, ordered, notes)


SECTION = Maker(37, remedies)
