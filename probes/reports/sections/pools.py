"""Where a model looks: pools and fields of view of one network side by side, and who leads then."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import Block, Figure, MatrixPanel, Missing, Section, TableBlock
from probes.reports.data import Facts
from probes.reports.looks import SHIFTED, Key, Look, Looks, interval_of, looks_of, swept_of
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command, flat, run_command
from probes.reports.tables import Column, Table, best_of, change, number, signed, spread
from probes.scores.best_pool import BEST, chosen_model
from probes.scores.results import from_null
from probes.splits.spec import ManifestSpec


def pools(material: Material) -> Section:
    """Return the section: pool by field for each network, differences, and ranks before and after.

    Over conditions that are not by domain, at the largest fraction.
    """
    facts = material.facts
    rows, ranks, figures, lacking = list[Any](), list[Any](), list[Block](), list[Block]()
    for d in facts.datasets:
        for c in facts.conditions(d.dataset, by_domain=False):
            looks = looks_of(facts, c)
            swept = swept_of(looks.looks)
            if not swept:
                continue
            rows += [
                _row(c, look, of[0])
                | _paired(facts, look, of[0])
                | _shifted(facts, looks, look, of[0])
                for of in swept.values()
                for look in of
            ]
            figures.append(_figure(c, swept, len(figures) + 1))
            ranks += _ranks(facts, c, looks.looks, looks.best)
            lacking += _lacking(facts, c, swept, looks)
    if not rows:
        return Section("pools", TITLE, [_nothing(facts)])
    blocks = [TableBlock(_ranking(ranks))] if any(r["chosen"] for r in ranks) else list[Block]()
    return Section("pools", TITLE, [*blocks, *figures, TableBlock(_table(rows)), *lacking], LEAD)


TITLE = "Where does a model look?"
LEAD = (
    "What of a network\u2019s last features stands for a cell (its class token, a mean, the tokens "
    "at the centre) and how wide a field it is given are choices of the user, not of the model."
)


def _lacking(
    facts: Facts, c: ManifestSpec, swept: Mapping[Key, Sequence[Look]], looks: Looks
) -> list[Block]:
    """Return the commands that choose on validation, and that compare what is not compared yet."""
    where = f"{c.dataset}, {c}"
    if any(key not in looks.best for key in swept):
        run = run_command(c, "--pool", BEST)
        return [Missing(f"{where}: no pool is chosen on validation.", run)]
    blocks = list[Block]()
    for key, (plain, *others) in swept.items():
        each = [looks.shifted.get((k.side.model, key[1])) for k in (plain, *others)]
        shifted = [k for k in each if k is not None]
        pairs = [
            (plain, [*others, looks.best[key]]),
            (each[0], [k for k in shifted if k != each[0]]),
        ]
        for first, against in pairs:
            if first and any(interval_of(facts, k, first)["ci_low"] is None for k in against):
                sides = [("--a", str(first.side)), *(("--b", str(k.side)) for k in against)]
                compare = command("probes", "compare", c.dataset, *flat([*c.options, *sides]))
                blocks.append(Missing(f"{where}: {key[0]} without intervals:", compare))
        if not shifted:
            models = [part for k in (plain, *others) for part in ("--model", k.side.model)]
            ingest = command("embedstore", "ingest", c.dataset, *models, "--views", SHIFTED)
            run = run_command(c, "--views", SHIFTED)
            said = f"{where}: {key[0]} may be told apart by where cells were marked. Shift all:"
            blocks.append(Missing(said, f"{ingest}\n{run}"))
    return blocks


def _nothing(facts: Facts) -> Missing:
    named = sorted(m for m in facts.embedded if m in facts.models)
    able = [m for m in named if facts.models[m].arch != "imported"]
    first = facts.datasets[0].dataset
    words = ["ingest", first, "--model", (able or ["MODEL"])[0], "--pool", "all"]
    return Missing(
        "No model has results with several pools or fields of view.",
        command("embedstore", *words, "--mpp-out", "0.25", "--mpp-out", "0.125"),
    )


def _paired(facts: Facts, look: Look, plain: Look) -> dict[str, float | None]:
    """Return the difference to the plain look on shared splits, and its recorded interval."""
    shared = sorted(look.values.keys() & plain.values.keys(), key=str)
    less = [from_null(look.values[k].value) - from_null(plain.values[k].value) for k in shared]
    difference = float(np.mean(less)) if less and look is not plain else None
    return {"difference": difference, **interval_of(facts, look, plain)}


def _shifted(facts: Facts, looks: Looks, look: Look, plain: Look) -> dict[str, float | None]:
    """Return the same of both looks where all annotations are shifted, as far as it is run."""
    each = [looks.shifted.get((k.side.model, k.side.method)) for k in (look, plain)]
    keys = ("shifted_mean", "shifted_difference", "shifted_low", "shifted_high")
    if each[0] is None:
        return dict.fromkeys(keys)
    of = _paired(facts, each[0], each[1]) if each[1] else dict[str, float | None]()
    found = (each[0].mean, *(of.get(k) for k in ("difference", "ci_low", "ci_high")))
    return dict(zip(keys, found, strict=True))


def _row(c: ManifestSpec, look: Look, plain: Look) -> dict[str, Any]:
    values = [from_null(r.value) for r in look.values.values()]
    return {
        "dataset": c.dataset,
        "condition": str(c),
        "network": look.network,
        "method": look.side.method,
        "model": look.side.model,
        "pool": look.pool,
        "field_um": look.field_um,
        "mean": look.mean,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "n_runs": len(values),
        "is_plain": look is plain,
    }


def _width(um: float | None) -> str:
    return "" if um is None else f"{um:g} \u00b5m"


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("network", "network"),
        Column("method", "method"),
        Column("field_um", "field", lambda r: _width(r["field_um"]), number=True),
        Column("pool", "pool"),
        Column("mean", "AUROC, mean ± SD", lambda r: spread(r["mean"], r["sd"]), number=True),
        Column("n_runs", "runs", number=True),
        Column("difference", "against plain", lambda r: signed(r["difference"]), number=True),
        Column("ci_low", "95% interval", lambda r: change(r["ci_low"], r["ci_high"]), number=True),
    ]
    if any(r["shifted_mean"] is not None for r in rows):
        columns += [
            Column("shifted_mean", "shifted", lambda r: number(r["shifted_mean"]), number=True),
            Column(
                "shifted_difference",
                "shifted, against plain",
                lambda r: signed(r["shifted_difference"]),
                number=True,
            ),
            Column(
                "shifted_low",
                "95% interval",
                lambda r: change(r["shifted_low"], r["shifted_high"]),
                number=True,
            ),
        ]
    notes = [
        "At the largest fraction. Plain is the network as it is usually taken, its first row. "
        "Differences are paired by fold and test annotation; intervals are those that probes "
        "compare recorded: slides (or cases, where the split goes by them) left out jointly in "
        "all folds, without the variance of training. They are not corrected for choosing the "
        "highest of many rows: that is what the choice on validation is for. Where one class is "
        "placed better than the other, a centre may read the placement and not the cell: shifted, "
        "every annotation of every class is trained and tested at places up to 4 \u00b5m away."
    ]
    best = best_of(rows, "mean", ("dataset", "condition", "network", "method"), "n_runs")
    title = "Each network by pool and field of view"
    return Table("pools", title, columns, rows, notes, frozenset(best))


def _figure(c: ManifestSpec, swept: Mapping[Key, Sequence[Look]], n: int) -> Figure:
    panels = []
    methods = {method for _, method in swept}
    for (network, method), looks in swept.items():
        fields = sorted({_width(k.field_um) for k in looks}, key=lambda t: (len(t), t))
        names = list(dict.fromkeys(k.pool for k in sorted(looks, key=_order)))
        cells = {(k.pool, _width(k.field_um)): k.mean for k in looks}
        values = [[cells.get((p, f), float("nan")) for f in fields] for p in names]
        title = network + f" ({method})" * (len(methods) > 1)
        panels.append(MatrixPanel(title, names, fields, values, axes=("pool", "field of view")))
    return Figure(
        f"figure-pools-{n}",
        f"Pool and field of view, {c.dataset}: {c}",
        "AUROC on test, mean over folds at the largest fraction.",
        panels,
    )


def _order(look: Look) -> tuple[int, str]:
    return len(look.pool.split("+")) + look.pool.startswith("centre"), look.pool


def _ranks(
    facts: Facts, c: ManifestSpec, looks: Sequence[Look], best: Mapping[Key, Look]
) -> list[dict[str, Any]]:
    """Return each network's place as it is, and where each that can has chosen on validation."""
    plain = {(k.network, k.side.method): k for k in looks if k.is_plain}
    after = {key: best.get(key, look) for key, look in plain.items()}
    most = max((len(k.values) for k in plain.values()), default=0)
    able = [key for key in plain if len(plain[key].values) == most == len(after[key].values)]
    before_rank, after_rank = (
        {key: n for n, key in enumerate(_by_mean(each, able), start=1)} for each in (plain, after)
    )
    return [
        {
            "dataset": c.dataset,
            "condition": str(c),
            "network": key[0],
            "method": key[1],
            "before": plain[key].mean,
            "before_rank": before_rank[key],
            "after": after[key].mean,
            "after_rank": after_rank[key],
            "gain": after[key].mean - plain[key].mean if key in best else None,
            **interval_of(facts, after[key], plain[key]),
            "chosen": _chosen(best[key]) if key in best else "",
            "n_runs": most,
        }
        for key in sorted(able, key=lambda k: before_rank[k])
    ]


def _by_mean(looks: Mapping[Key, Look], keys: Sequence[Key]) -> list[Key]:
    return sorted(keys, key=lambda key: -looks[key].mean)


def _chosen(look: Look) -> str:
    """Return which models were chosen, and in how many folds."""
    counts = Counter(chosen_model(r.chosen) for r in look.values.values())
    short = {m: (m or "").removeprefix(f"{look.network}@") for m in counts}
    return ", ".join(f"{short[m]} ({n})" for m, n in counts.most_common())


def _ranking(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("network", "network"),
        Column("method", "method"),
        Column("before_rank", "rank, plain", number=True),
        Column("before", "AUROC, plain", lambda r: number(r["before"]), number=True),
        Column("after_rank", "rank, chosen", number=True),
        Column("after", "AUROC, chosen", lambda r: number(r["after"]), number=True),
        Column("gain", "gain", lambda r: signed(r["gain"]), number=True),
        Column("ci_low", "95% interval", lambda r: change(r["ci_low"], r["ci_high"]), number=True),
        Column("chosen", "chosen on validation (folds)"),
    ]
    notes = [*_spans(rows)]
    notes.append(
        "The pool and field of each network are chosen fold by fold by the lowest log-loss on "
        "validation; test had no say. A network with nothing to choose among keeps its own."
    )
    title = "The ranking, before and after each network may choose where it looks"
    return Table("pools-ranking", title, columns, rows, notes)


def _spans(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return how far networks lie apart, and how far choosing moves one, for each condition."""
    said = []
    for condition in dict.fromkeys((r["dataset"], r["condition"]) for r in rows):
        here = [r for r in rows if (r["dataset"], r["condition"]) == condition]
        gains = [r["gain"] for r in here if r["gain"] is not None]
        if len(here) < 2 or not gains:
            continue
        plain = [r["before"] for r in here]
        said.append(
            f"{condition[1]}: plain networks span {number(max(plain) - min(plain))} of AUROC; "
            f"choosing where to look moves one by {signed(min(gains))} to {signed(max(gains))}. "
            "These are ranges of means, not tests."
        )
    return said


SECTION = Maker(15, pools)
