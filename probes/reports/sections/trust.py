"""Can I believe it? Leakage, grouping, paired differences, calibration, domain in the embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.store.sql import fetch_rows, literal
from probes.reports.blocks import Block, Figure, Line, Missing, Panel, Section, Style, TableBlock
from probes.reports.data import Facts, by_side
from probes.reports.makers import Maker, Material
from probes.reports.predictions import Scores
from probes.reports.repeat import command, run_command
from probes.reports.sections.pairs import pairs
from probes.reports.sections.seen import seen
from probes.reports.tables import Column, Table, best_of, number, percent, signed, spread
from probes.scores.metrics import N_BINS
from probes.scores.results import summarise, to_null
from probes.scores.sides import Side
from probes.splits.audit import PATCH_UM
from probes.splits.recorded import SplitRow
from probes.splits.spec import ManifestSpec

AUDIT = {
    "shared_slides": "on a slide seen in training",
    "shared_cases": "from a case seen",
    "overlapping_patches": "overlap a training patch",
    "shared_centres": "hold a training centre",
}


def trust(material: Material) -> Section:
    """Return the section of everything that says how far the numbers carry."""
    facts, scores, styles = material.facts, material.scores, material.styles
    return Section(
        "trust",
        "Can I believe it?",
        [
            *_leakage(facts),
            *seen(facts),
            *_grouping(facts),
            *pairs(facts),
            *_calibration(facts, scores, styles),
            *_domain(facts),
        ],
    )


def _leakage(facts: Facts) -> list[Block]:
    """Return the audit of each condition's largest fraction, as means over its splits."""
    by: dict[ManifestSpec, list[SplitRow]] = {}
    for s in facts.splits:
        by.setdefault(ManifestSpec.of(s), []).append(s)
    rows = []
    for c, splits in by.items():
        top = max(s.fraction for s in splits)
        at_top = [s for s in splits if s.fraction == top]
        row: dict[str, Any] = {
            "dataset": c.dataset,
            "condition": str(c),
            "fraction": top,
            "n_splits": len(at_top),
        }
        for key in AUDIT:
            shares = [v for s in at_top if (v := getattr(s, key)) is not None]
            row[key] = float(np.mean(shares)) if shares else None
        row["patch_um"] = max(s.patch_um or PATCH_UM for s in at_top)
        rows.append(row)
    if not rows:
        return [
            Missing(
                "No split is recorded, so there is nothing to audit.",
                command("probes", "split", facts.datasets[0].dataset),
            )
        ]
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        *(Column(k, head, _share(k), number=True) for k, head in AUDIT.items()),
        Column("patch_um", "patch, um", lambda r: f"{r['patch_um']:g}", number=True),
        Column("n_splits", "splits", number=True),
    ]
    notes = [
        "Shares of the test annotations, means over splits at the largest fraction. With "
        "annotation-level splits test cells lie on slides that training has seen; only splits "
        "by slide or case measure what a new slide or patient would give. A patch is taken as "
        "wide as the widest field that a model was given."
    ]
    return [
        TableBlock(Table("leakage", "What training has seen of the test", columns, rows, notes))
    ]


def _share(key: str) -> Any:
    return lambda r: percent(r[key]) or "unknown"


GROUPINGS = ("annotation", "slide", "case")


def _grouping(facts: Facts) -> list[Block]:
    """Return AUROC by how the test set was held apart: annotation, slide or case."""
    rows: list[dict[str, Any]] = []
    blocks: list[Block] = []
    for d in facts.datasets:
        alike: dict[ManifestSpec, dict[str, ManifestSpec]] = {}
        for by_domain in (False, True):
            for c in facts.conditions(d.dataset, by_domain=by_domain):
                key = replace(c, group_by=ManifestSpec.group_by)
                alike.setdefault(key, {})[c.group_by] = c
        for key, conditions in alike.items():
            rows += _grouping_rows(facts, key, conditions)
        groupings = {g for conditions in alike.values() for g in conditions}
        if gone := [g for g in GROUPINGS if g not in groupings]:
            usual = ManifestSpec(d.dataset)
            blocks.append(
                Missing(
                    f"{d.dataset} has no result on splits by {' or '.join(gone)}.",
                    "\n".join(run_command(replace(usual, group_by=g)) for g in gone),
                )
            )
    if not rows:
        return blocks
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "scheme"),
        Column("name", "model"),
        *(Column(g, f"by {g}", _mean_sd(g), number=True) for g in GROUPINGS),
        Column("fall", "change", lambda r: signed(r["fall"]), number=True),
    ]
    notes = [
        "AUROC at the largest fraction that all groupings have; across domains in domain. "
        "Change: the strictest grouping less the one by annotation."
    ]
    title = "By annotation, by slide, by case"
    return [TableBlock(Table("grouping", title, columns, rows, notes)), *blocks]


def _mean_sd(key: str) -> Any:
    return lambda r: spread(r[key], r[f"{key}_sd"])


def _grouping_rows(
    facts: Facts, key: ManifestSpec, conditions: Mapping[str, ManifestSpec]
) -> list[dict[str, Any]]:
    each = {g: by_side(facts.rows(c, "auroc")) for g, c in conditions.items()}
    rows = []
    for e in (e for e in facts.sides if any(e in rows_of for rows_of in each.values())):
        by_grouping = {g: rows_of[e] for g, rows_of in each.items() if e in rows_of}
        shared = set.intersection(*({r.fraction for r in rs} for rs in by_grouping.values()))
        if not shared:
            continue
        row: dict[str, Any] = {
            "dataset": key.dataset,
            "condition": key.words("group_by"),
            "name": facts.names[e],
            "fraction": max(shared),
        }
        for g in GROUPINGS:
            at_largest = [r for r in by_grouping.get(g, []) if r.fraction == max(shared)]
            rows_of = [s for s in summarise(at_largest) if s.where in ("all", "in domain")]
            row |= {
                g: rows_of[0].mean if rows_of else None,
                f"{g}_sd": rows_of[0].sd if rows_of else None,
            }
        means = [to_null(row[g]) for g in GROUPINGS]
        strict = [v for v in means[1:] if v is not None]
        row["fall"] = strict[-1] - means[0] if strict and means[0] is not None else None
        rows.append(row)
    return rows


def _calibration(
    facts: Facts, scores: Sequence[Scores], styles: Mapping[Side, Style]
) -> list[Block]:
    """Return reliability curves, binned by DuckDB from every test prediction."""
    panels, rows = [], []
    for s in scores:
        bins = s.bins()
        rows += [
            {
                "dataset": s.condition.dataset,
                "condition": str(s.condition),
                "name": facts.names[e],
                **b,
            }
            for e, of_side in bins.items()
            for b in of_side
        ]
        panels += [
            Panel(
                f"{s.condition.dataset}: {facts.names[e]}",
                [
                    Line(
                        facts.names[e],
                        styles[e],
                        [b["mean_score"] for b in of_side],
                        [b["share_positive"] for b in of_side],
                        bold=e.is_e2e,
                    )
                ],
                "calibration",
                "share that is " + ("positive" if s.positive else "right"),
            )
            for e, of_side in bins.items()
        ]
    if not rows:
        return [Missing("There are no predictions to draw calibration curves from.")]
    columns = [
        Column("dataset", "dataset"),
        Column("name", "model"),
        Column("bin", "bin", number=True),
        Column("n", "predictions", number=True),
        Column("mean_score", "mean score", lambda r: number(r["mean_score"]), number=True),
        Column(
            "share_positive",
            "share positive (beyond two labels: right)",
            lambda r: number(r["share_positive"]),
            number=True,
        ),
    ]
    of = "; ".join(f"{s.condition.dataset}: {s.condition}, fraction {s.fraction:g}" for s in scores)
    caption = (
        f"Test predictions in {N_BINS} bins of equal width: the share that is positive "
        "against the mean score; beyond two labels of the likeliest label, and the share "
        f"that is right. On the diagonal a probability means what it says. {of}."
    )
    table = Table("calibration", "Calibration, bin by bin", columns, rows)
    return [
        Figure("calibration", "Do the probabilities mean what they say?", caption, panels),
        TableBlock(table, is_open=False),
    ]


def _domain(facts: Facts) -> list[Block]:
    """Return how well each embedding tells the domain: runs whose target is the domain."""
    rows: list[dict[str, Any]] = []
    blocks: list[Block] = []
    learnt = _n_learnt(facts)
    for d in facts.datasets:
        conditions = facts.conditions(d.dataset, by_domain=False, target="domain")
        if not conditions and len(facts.domains[d.dataset]) > 1:
            blocks.append(
                Missing(
                    f"How much domain the embeddings of {d.dataset} carry is not measured.",
                    command("probes", "run", d.dataset, "--target", "domain"),
                )
            )
        for c in conditions:
            each = {m: by_side(facts.rows(c, m, "domain")) for m in ("auroc", "balanced_accuracy")}
            for e, of_side in each["auroc"].items():
                top = max(r.fraction for r in of_side)
                n_domains = max(learnt[r.run_id] for r in of_side)
                row: dict[str, Any] = {
                    "dataset": c.dataset,
                    "condition": str(c),
                    "fraction": top,
                    "name": facts.names[e],
                    "n_domains": n_domains,
                    "chance": 1 / n_domains,
                }
                for m, by_metric in each.items():
                    s = summarise([r for r in by_metric.get(e, []) if r.fraction == top], m)
                    row |= {m: s[0].mean if s else None, f"{m}_sd": s[0].sd if s else None}
                rows.append(row)
    if not rows:
        return blocks
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("name", "model"),
        Column("auroc", "AUROC of the domain", _mean_sd("auroc"), number=True),
        Column(
            "balanced_accuracy", "balanced accuracy", _mean_sd("balanced_accuracy"), number=True
        ),
        Column("chance", "chance", lambda r: number(r["chance"]), number=True),
    ]
    notes = [
        "A probe that predicts the domain from the embedding. The higher, the more of the "
        "scanner, the stain or the species a model has kept; bold is the least."
    ]
    less = [{**r, "auroc": None if r["auroc"] is None else -r["auroc"]} for r in rows]
    best = frozenset(best_of(less, "auroc", ("dataset", "condition")))
    table = Table("domain", "How much domain an embedding carries", columns, rows, notes, best)
    return [TableBlock(table), *blocks]


def _n_learnt(facts: Facts) -> dict[str, int]:
    """Return how many domains each run told apart; of two, the scores of one are stored."""
    runs = {r.run_id for r in facts.results if r.target == "domain"} or {""}
    rows = fetch_rows(
        facts.con,
        "select run_id, greatest(count(distinct label), 2) as n from _predictions where run_id in "
        f"({', '.join(map(literal, sorted(runs)))}) group by 1",
    )
    return {r["run_id"]: r["n"] for r in rows}


SECTION = Maker(40, trust)
