"""What the labels allow: experts against each other, cells in doubt, and mended labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedstore.reading.images import SHOT_PX, data_address
from embedstore.reading.pixels import Patches
from embedstore.store.sql import fetch_rows
from probes.reports.blocks import Block, Gallery, Missing, Prose, Section, Shot, TableBlock
from probes.reports.data import Facts
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command
from probes.reports.studied import of_metric, studied
from probes.reports.tables import Column, Table, between, change, number, p_value, signed
from probes.studies import doubtful, raters, rescore
from probes.studies.measures import MeasureRow, load_measures

N_SHOWN = 12


def labels(material: Material) -> Section:
    """Return the section: the human line, labels in doubt, and what mended labels change."""
    facts = material.facts
    blocks, missing = list[Block](), list[Block]()
    scored, mended = list[Any](), list[Any]()
    for d in facts.datasets:
        if _has_votes(facts, d.dataset):
            found, lacks = studied(facts, d.dataset, raters.STUDY, "experts are not scored yet.")
            missing += lacks
            blocks += [Prose(text) for text in _humans(d.dataset, found)]
            scored += _rows(d.dataset, found)
        doubts, lacks = studied(facts, d.dataset, doubtful.STUDY, "labels are not looked into yet.")
        missing += lacks
        blocks += _doubts(facts, d.dataset, doubts)
        again = load_measures(facts.con, d.dataset, rescore.STUDY)
        mended += [
            r for m in of_metric(again, "auroc_change") if (r := _mended(d.dataset, m, again))
        ]
        missing += _unscored(facts, d.dataset, again)
    if scored:
        blocks.insert(0, TableBlock(_table(scored)))
    if mended:
        blocks.append(TableBlock(_mended_table(mended)))
    return Section("labels", "What do the labels allow?", [*blocks, *missing])


def _has_votes(facts: Facts, dataset: str) -> bool:
    sql = "select count(*) as n from annotations where dataset = $d and len(votes) > 1"
    return bool(fetch_rows(facts.con, sql, {"d": dataset})[0]["n"])


def _humans(dataset: str, found: Sequence[MeasureRow]) -> list[str]:
    said = []
    for m in of_metric(found, "human"):
        (kappa,) = of_metric(found, "kappa")
        interval = between(m.ci_low, m.ci_high)
        said.append(
            f"{dataset}: an expert against the majority of the others reaches a balanced accuracy "
            f"of {number(m.value)}"
            + (f" (95% interval {interval})" if interval else "")
            + f", mean over {len(of_metric(found, 'rater'))} experts; Fleiss' kappa "
            f"{number(kappa.value)}. An answer of yes or no has this as its area under the ROC "
            "curve: it is the dashed line in the figures of AUROC."
        )
    return said


def _rows(dataset: str, found: Sequence[MeasureRow]) -> list[dict[str, Any]]:
    named = {"rater": "majority of the others", "auroc": None, "brier": None}
    return [
        {
            "dataset": dataset,
            "who": m.model,
            "metric": "balanced accuracy" if m.metric == "rater" else m.metric,
            "truth": named[m.metric] or m.split,
            "value": m.value,
            "ci_low": m.ci_low,
            "ci_high": m.ci_high,
            "n": m.n,
        }
        for m in found
        if m.metric in named
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("who", "expert or model"),
        Column("metric", "metric"),
        Column("truth", "against"),
        Column("value", "value", lambda r: number(r["value"]), number=True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
        Column("n", "n test", number=True),
    ]
    notes = [
        "Models: AUROC on test cells of folds that keep slides (or cases) apart, against the "
        "majority of all votes, and on the cells that all experts agree on; Brier: the mean square "
        "of probability less the share of votes, so that a model may be as torn as experts are."
    ]
    return Table("raters", "Experts and models against votes", columns, rows, notes)


def _doubts(facts: Facts, dataset: str, found: Sequence[MeasureRow]) -> list[Block]:
    kinds = {str(m.split): m for m in of_metric(found, "n_cells")}
    if not kinds:
        return []
    missed = {int(m.x or 0): int(m.value or 0) for m in of_metric(found, "n_missed_by")}
    most = max(missed)
    errors, torn = (kinds[k] for k in (doubtful.ERROR, doubtful.AMBIGUOUS))
    text = (
        f"{dataset}: of {errors.n:,} cells, {int(errors.value or 0):,} are likely mislabelled and "
        f"{int(torn.value or 0):,} are ambiguous, by {most} models that did not see them; "
        f"{missed[most]:,} are missed by all models"
        + (f", {missed[1]:,} by one alone" if most > 1 else "")
        + "."
    )
    rows = [
        (kind, [dict(c) for c in kinds[kind].more["cells"][:N_SHOWN]])
        for kind in (doubtful.ERROR, doubtful.AMBIGUOUS)
    ]
    ids = [c["annotation_id"] for _, cells in rows for c in cells]
    pixels = Patches(facts.store, facts.con, dataset).read(ids, SHOT_PX)
    images = {i: data_address(p) for i, p in pixels.items()}
    shots = [
        (
            {doubtful.ERROR: "likely mislabelled, least credible first"}.get(kind, kind),
            [
                Shot(
                    images.get(c["annotation_id"], ""),
                    [
                        f"{c['label']}: {c['own_probability']:.2f}",
                        f"missed by {c['n_missed']} of {c['n_models']}",
                        c["annotation_id"],
                    ],
                )
                for c in cells
            ],
        )
        for kind, cells in rows
    ]
    fix = command("probes", "doubtful", dataset, "--output", "doubtful.csv")
    return [
        Prose(text),
        Gallery("Labels in doubt", shots),
        Missing("All of them, to be mended and added again:", fix),
    ]


def _mended(dataset: str, m: MeasureRow, found: Sequence[MeasureRow]) -> dict[str, Any]:
    of = {
        str(o.split): o
        for o in of_metric(found, "auroc")
        if (o.model, o.factor) == (m.model, m.factor)
    }
    then, now = of[rescore.THEN], of[rescore.NOW]
    return {
        "dataset": dataset,
        "name": m.model,
        "split": m.factor,
        "then": then.value,
        "now": now.value,
        "change": m.value,
        "ci_low": m.ci_low,
        "ci_high": m.ci_high,
        "p_value": m.p_value,
        "rank_then": then.more["rank"],
        "rank_now": now.more["rank"],
        "n_changed": m.n,
    }


def _mended_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("split", "split"),
        Column("name", "method:model"),
        Column("then", "AUROC, labels then", lambda r: number(r["then"]), number=True),
        Column("now", "labels now", lambda r: number(r["now"]), number=True),
        Column("change", "change", lambda r: signed(r["change"]), number=True),
        Column("ci_low", "95% interval", lambda r: change(r["ci_low"], r["ci_high"]), number=True),
        Column("p_value", "p", lambda r: p_value(r["p_value"]), number=True),
        Column("rank_then", "rank then", number=True),
        Column("rank_now", "rank now", number=True),
        Column("n_changed", "labels changed", number=True),
    ]
    notes = ["The same probes and scores, trained on the labels then; test labels then and now."]
    return Table("rescore", "Scores on mended labels", columns, rows, notes)


def _unscored(facts: Facts, dataset: str, found: Sequence[MeasureRow]) -> list[Block]:
    """Return the command that scores runs on labels that have changed since, if any have."""
    (n,) = fetch_rows(
        facts.con,
        "select count(distinct annotation_id) as n from predictions p join annotations a using "
        "(annotation_id) where p.dataset = $d and p.role = 'test' and p.truth != a.label and "
        "p.run_id in (select run_id from all_results where target = 'label')",
        {"d": dataset},
    )
    if not n["n"] or found:
        return []
    said = f"{dataset}: {n['n']:,} labels have changed since runs were made; scored again:"
    return [Missing(said, command("probes", "rescore", dataset))]


SECTION = Maker(45, labels)
