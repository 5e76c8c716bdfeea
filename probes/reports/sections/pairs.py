"""Each side beside the best one, split by split, with what `compare` has recorded of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import Block, Missing, TableBlock
from probes.reports.data import Facts, by_side
from probes.reports.repeat import command, flat
from probes.reports.tables import Column, Table, change, number, p_value, signed, spread
from probes.scores.classical import holm
from probes.scores.recorded import ResultRow
from probes.scores.results import from_null, to_null, where_of
from probes.scores.sides import Side, ranked
from probes.splits.spec import ManifestSpec

Cells = Mapping[tuple[Any, ...], ResultRow]


def pairs(facts: Facts) -> list[Block]:
    """Return the table of pairs, and the commands of those without a p-value."""
    rows = []
    for d in facts.datasets:
        for by_domain in (False, True):
            for c in facts.conditions(d.dataset, by_domain=by_domain):
                rows += _of_condition(facts, c)
    if not rows:
        return [Missing("One model alone has no other to be compared with.")]
    corrected = holm([np.nan if r["p_value"] is None else r["p_value"] for r in rows])
    for r, p in zip(rows, corrected, strict=True):
        r["p_holm"] = to_null(p)
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("where", "test"),
        Column("a", "best"),
        Column("b", "compared with"),
        Column(
            "difference",
            "difference, mean ± SD",
            lambda r: (
                signed(r["difference"])
                + spread(r["difference"], r["sd"]).removeprefix(number(r["difference"]))
            ),
            number=True,
        ),
        Column("ci_low", "95% interval", lambda r: change(r["ci_low"], r["ci_high"]), number=True),
        Column("p_value", "p", lambda r: p_value(r["p_value"]), number=True),
        Column("p_holm", "p, corrected", lambda r: p_value(r["p_holm"]), number=True),
        Column("n_higher", "wins", lambda r: f"{r['n_higher']} of {r['n_shared']}", number=True),
    ]
    notes = [
        "AUROC on the same test annotations at the largest fraction that both have; SD over "
        "splits. Interval and p: slides (or cases, where the split goes by them) left out one at "
        "a time, jointly in all folds, as recorded by probes compare; the variance of training is "
        "not in them. Corrected by Holm for all p-values of this table. No p: there is one slide, "
        "or one that holds all of a label, or it is not recorded."
    ]
    lacks = list(dict.fromkeys(r["command"] for r in rows if not r["is_recorded"]))
    return [
        TableBlock(Table("pairs", "Pairs on the same test annotations", columns, rows, notes)),
        *(Missing("Pairs without a recorded comparison of their present runs:", c) for c in lacks),
    ]


def _of_condition(facts: Facts, c: ManifestSpec) -> list[dict[str, Any]]:
    of_side = by_side([r for r in facts.rows(c, "auroc") if r.value is not None])
    if len(of_side) < 2:
        return []
    cells = {
        e: {(r.fraction, r.fold, r.train_domain, r.eval_domain): r for r in rows}
        for e, rows in of_side.items()
    }
    best = ranked(
        {e: {k: from_null(r.value) for k, r in by_key.items()} for e, by_key in cells.items()}
    )[0]
    rows = []
    for e in (e for e in facts.sides if e in of_side and e != best):
        shared = cells[best].keys() & cells[e].keys()
        top = max((k[0] for k in shared), default=None)
        here = sorted((k for k in shared if k[0] == top), key=str)
        for where in sorted({where_of(cells[e][k]) for k in here}):
            alike = [k for k in here if where_of(cells[e][k]) == where]
            rows.append(_row(facts, c, best, e, where, [cells[x] for x in (best, e)], alike))
    return rows


def _row(
    facts: Facts,
    c: ManifestSpec,
    best: Side,
    e: Side,
    where: str,
    cells: Sequence[Cells],
    keys: Sequence[tuple[Any, ...]],
) -> dict[str, Any]:
    runs = [each[k] for each in cells for k in keys]
    less = [from_null(cells[0][k].value) - from_null(cells[1][k].value) for k in keys]
    tested = facts.comparison(str(best), str(e), where, runs)
    return {
        "dataset": c.dataset,
        "condition": str(c),
        "where": where,
        "fraction": keys[0][0],
        "a": facts.names[best],
        "b": facts.names[e],
        "difference": float(np.mean(less)),
        "sd": float(np.std(less, ddof=1)) if len(less) > 1 else None,
        "ci_low": tested.ci_low if tested else None,
        "ci_high": tested.ci_high if tested else None,
        "p_value": tested.p_value if tested else None,
        "p_holm": None,
        "n_higher": sum(v > 0 for v in less),
        "n_shared": len(less),
        "is_recorded": bool(tested),
        "command": command("probes", "compare", c.dataset, *flat(c.options)),
    }
