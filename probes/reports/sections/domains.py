"""Table 2 and Figure 2 of the report: in domain against out of domain, and every cell of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probes.reports.blocks import Block, Figure, MatrixPanel, Missing, Section, TableBlock, Widget
from probes.reports.data import Facts, by_side
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command
from probes.reports.tables import Column, Table, best_of, between, spread
from probes.scores.recorded import ResultRow
from probes.scores.results import IN, OUT, summarise, to_null, where_of
from probes.scores.sides import Side
from probes.splits.schemes import is_in_domain
from probes.splits.spec import ManifestSpec

Rows = Sequence[ResultRow]


def domains(material: Material) -> Section:
    """Return the section of Table 2 and Figure 2, over every by-domain condition."""
    facts = material.facts
    rows: list[dict[str, Any]] = []
    cells: list[dict[str, Any]] = []
    blocks: list[Block] = []
    missing: list[Block] = []
    for d in facts.datasets:
        conditions = facts.conditions(d.dataset, by_domain=True)
        if not conditions:
            missing.append(_lacking(facts, d.dataset))
        for c in conditions:
            of_side = by_side(facts.rows(c, "auroc"))
            sides = sorted(of_side, key=facts.sides.index)
            lines = [line for e in sides for line in _lines(facts, c, e, of_side[e])]
            rows += lines
            cells += [cell for e in sides for cell in _cells(facts, c, e, of_side[e])]
            blocks += _matrices(facts, c, {e: of_side[e] for e in sides}, lines, len(blocks))
    if rows:
        blocks = [TableBlock(_table_2(rows)), *blocks, TableBlock(_cell_table(cells), False)]
    title = "Does it hold in another domain?"
    return Section("domains", title, [*blocks, *_elsewhere(facts), *missing])


def _elsewhere(facts: Facts) -> list[Block]:
    """Return the results of runs that were scored on all of another dataset."""
    rows = [
        {
            "dataset": c.dataset,
            "condition": str(c),
            "eval_dataset": other,
            "name": facts.names[e],
            "model": e.model,
            "method": e.method,
            "fraction": s.fraction,
            "n_train": s.n_train,
            "mean": s.mean,
            "sd": s.sd,
            "ci_low": s.low,
            "ci_high": s.high,
            "n_runs": s.n_runs,
        }
        for d in facts.datasets
        for c, other, of_other in facts.elsewhere(d.dataset)
        for e, of in by_side(of_other).items()
        for s in summarise(of)
        if s.n_runs
    ]
    if not rows:
        return []
    columns = [
        Column("dataset", "trained on"),
        Column("eval_dataset", "tested on"),
        Column("condition", "split"),
        Column("name", "model"),
        Column("fraction", "fraction", lambda r: f"{r['fraction']:g}", number=True),
        Column("mean", "AUROC, mean ± SD", lambda r: spread(r["mean"], r["sd"]), number=True),
        Column(
            "ci_low",
            "a run\u2019s 95% CI",
            lambda r: between(r["ci_low"], r["ci_high"]),
            number=True,
        ),
        Column("n_runs", "runs", number=True),
    ]
    best = best_of(rows, "mean", ("dataset", "eval_dataset", "condition", "fraction"))
    title = "Tested on another dataset"
    return [TableBlock(Table("elsewhere", title, columns, rows, best=frozenset(best)))]


def _lacking(facts: Facts, dataset: str) -> Missing:
    if len(facts.domains[dataset]) < 2:
        return Missing(f"{dataset} has one domain, so there is no other to test on.")
    return Missing(
        f"{dataset} has no result across domains.",
        command("probes", "run", dataset, "--scheme", "cross-domain"),
    )


def _lines(facts: Facts, c: ManifestSpec, e: Side, rows: Rows) -> list[dict[str, Any]]:
    """Return a line per fraction: in and out of domain as `results.summarise` defines them.

    Bounds are means of the recorded bounds: of a run's in domain, of a cell's out of it.
    """
    lines = []
    for fraction in sorted({r.fraction for r in rows}):
        at_fraction = [r for r in rows if r.fraction == fraction]
        line: dict[str, Any] = {
            "dataset": c.dataset,
            "condition": str(c),
            "name": facts.names[e],
            "model": e.model,
            "method": e.method,
            "weights": e.weights,
            "fraction": fraction,
        }
        both = {s.where: s for s in summarise(at_fraction)}
        for where, key in ((IN, "in"), (OUT, "out")):
            inside = [r for r in at_fraction if where_of(r) == where]
            s = both.get(where)
            line |= {
                f"{key}_mean": s.mean if s else None,
                f"{key}_sd": s.sd if s else None,
                f"{key}_low": _mean(inside, "ci_low"),
                f"{key}_high": _mean(inside, "ci_high"),
                f"{key}_runs": s.n_runs if s else 0,
            }
        has_both = to_null(line["in_mean"]) is not None and to_null(line["out_mean"]) is not None
        line["drop"] = line["in_mean"] - line["out_mean"] if has_both else None
        lines.append(line)
    return lines


def _mean(rows: Rows, key: str) -> float | None:
    values = [v for r in rows if (v := getattr(r, key)) is not None]
    return float(np.mean(values)) if values else None


def _table_2(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [Column("dataset", "dataset"), Column("condition", "split"), Column("name", "model")]
    if {r["fraction"] for r in rows} != {1.0}:
        columns.append(Column("fraction", "fraction", lambda r: f"{r['fraction']:g}", number=True))
    columns += [
        Column("in_mean", "in domain", lambda r: spread(r["in_mean"], r["in_sd"]), number=True),
        Column("in_low", "95% CI", lambda r: between(r["in_low"], r["in_high"]), number=True),
        Column(
            "out_mean", "out of domain", lambda r: spread(r["out_mean"], r["out_sd"]), number=True
        ),
        Column("out_low", "95% CI", lambda r: between(r["out_low"], r["out_high"]), number=True),
        Column("drop", "drop", lambda r: spread(r["drop"], None), number=True),
        Column("in_runs", "runs", number=True),
    ]
    group = ("dataset", "condition", "fraction")
    best = best_of(rows, "in_mean", group, "in_runs") | best_of(rows, "out_mean", group, "out_runs")
    notes = [
        "AUROC, mean ± SD over runs (train domains times folds); out of domain a run counts "
        "with the mean over its other domains, as in the paper. The interval is the mean of "
        "the recorded 95% bounds of single test sets: how wide one of them is. "
        "Bold: the best of those with the most runs."
    ]
    return Table(
        "table2", "Table 2. In domain and out of domain", columns, rows, notes, frozenset(best)
    )


def _cells(facts: Facts, c: ManifestSpec, e: Side, rows: Rows) -> list[dict[str, Any]]:
    return [
        {
            "dataset": c.dataset,
            "condition": str(c),
            "name": facts.names[e],
            "fraction": fraction,
            "train_domain": train,
            "eval_domain": test,
            "mean": m,
            "sd": sd,
            "ci_low": low,
            "ci_high": high,
            "n_runs": n,
        }
        for (fraction, train, test), (m, sd, low, high, n) in cell_values(rows).items()
    ]


def cell_values(rows: Rows) -> dict[tuple[float, str, str], tuple[Any, ...]]:
    """Return mean, SD, mean bounds and number of folds by fraction, train and eval domain."""
    cells: dict[tuple[float, str, str], list[ResultRow]] = {}
    for r in rows:
        cells.setdefault((r.fraction, str(r.train_domain), r.eval_domain), []).append(r)
    values = {}
    for key, of_cell in sorted(cells.items()):
        present = [r.value for r in of_cell if r.value is not None]
        sd = float(np.std(present, ddof=1)) if len(present) > 1 else None
        values[key] = (
            float(np.mean(present)) if present else None,
            sd,
            _mean(of_cell, "ci_low"),
            _mean(of_cell, "ci_high"),
            len(present),
        )
    return values


def _cell_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = [
        Column("dataset", "dataset"),
        Column("condition", "split"),
        Column("name", "model"),
        Column("fraction", "fraction", lambda r: f"{r['fraction']:g}", number=True),
        Column("train_domain", "trained on"),
        Column("eval_domain", "tested on"),
        Column("mean", "AUROC, mean ± SD", lambda r: spread(r["mean"], r["sd"]), number=True),
        Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
        Column("n_runs", "runs", number=True),
    ]
    return Table("figure2", "Every cell of Figure 2", columns, rows)


def _matrices(
    facts: Facts,
    c: ManifestSpec,
    of_side: Mapping[Side, Rows],
    lines: Sequence[Mapping[str, Any]],
    n_before: int,
) -> list[Block]:
    """Return the choosable matrices of a condition, and their figure of the pair shown first."""
    top = max(r.fraction for rows in of_side.values() for r in rows)
    names = [facts.names[e] for e, rows in of_side.items() if any(r.fraction == top for r in rows)]
    by_name = {facts.names[e]: rows for e, rows in of_side.items()}
    train = sorted({str(r.train_domain) for rows in of_side.values() for r in rows})
    test = sorted({r.eval_domain for rows in of_side.values() for r in rows})
    each = {n: _grid(by_name[n], top, train, test) for n in names}
    a, b = _first_pair(facts, of_side, names, lines, top)
    where = f"{c.dataset}: {c}"
    title = f"Figure 2. Train and test domain, {where}"
    text = (
        "AUROC, mean over folds: trained on the row, tested on the column; framed cells are in "
        "domain. The third matrix is the first less the second."
    )
    inside = [[is_in_domain(c.scheme, t, u) for u in test] for t in train]
    data = {
        "names": names,
        "a": names.index(a),
        "b": names.index(b),
        "train": train,
        "test": test,
        "inside": inside,
        "values": [[[to_null(v) for v in row] for row in each[n]] for n in names],
    }
    panels = [MatrixPanel(a, train, test, each[a])]
    if a != b:
        less = [
            [x - y for x, y in zip(p, q, strict=True)]
            for p, q in zip(each[a], each[b], strict=True)
        ]
        panels += [
            MatrixPanel(b, train, test, each[b]),
            MatrixPanel("the first less the second", train, test, less, diverging=True),
        ]
    name = f"figure2-{n_before // 2 + 1}"
    figure = Figure(name, title, text, panels, on_page=False)
    return [Widget("matrices", title, text, data), figure]


def _grid(rows: Rows, fraction: float, train: Any, test: Any) -> list[list[float]]:
    values = cell_values(rows)
    nothing: tuple[Any, ...] = (None,)
    return [
        [
            v if (v := values.get((fraction, t, u), nothing)[0]) is not None else float("nan")
            for u in test
        ]
        for t in train
    ]


def _first_pair(
    facts: Facts,
    of_side: Mapping[Side, Rows],
    names: Sequence[str],
    lines: Sequence[Mapping[str, Any]],
    fraction: float,
) -> tuple[str, str]:
    """Return what is shown first: the best probe out of domain, beside end to end if there."""
    at_fraction = [r for r in lines if r["fraction"] == fraction and r["name"] in names]
    order = [r["name"] for r in sorted(at_fraction, key=lambda r: -(to_null(r["out_mean"]) or 0.0))]
    trained = [facts.names[e] for e in of_side if e.is_e2e and facts.names[e] in names]
    probes = [n for n in order if n not in trained] or order
    second = (trained or probes[1:] or probes)[0]
    return probes[0], second


SECTION = Maker(20, domains)
