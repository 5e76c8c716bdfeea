"""The paper's numbers beside ours: every published number and the one measured here."""

from collections.abc import Mapping, Sequence
from typing import Any

from probes.recipes.ganz2025 import PAPER, PUBLISHED, SAME_DATA, paper_dataset
from probes.recipes.published import Published
from probes.reports.blocks import Block, Missing, Section, TableBlock
from probes.reports.data import Facts, by_side
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command
from probes.reports.reproduced import reproduced
from probes.reports.tables import Column, Row, Table, signed, spread
from probes.scores.results import Summary, summarise, to_null
from probes.scores.sides import Side

NOTE = (
    "Within: whether the measured mean lies within the published mean ± SD. The paper gives two "
    "decimals, and its SDs are over resamples that overlap."
)


def paper(material: Material) -> Section:
    """Return the section: a table per dataset, and what of the paper's data is not here."""
    facts = material.facts
    blocks: list[Block] = []
    for d in facts.datasets:
        name = d.dataset
        same = paper_dataset(name)
        table = _table(facts, name, same or "MIDOG", f"paper-{len(blocks) + 1}")
        blocks.append(TableBlock(table, is_open=bool(same) or not blocks))
        if gone := _not_measured(facts, table.rows):
            blocks.append(gone)
    present = {paper_dataset(d.dataset) for d in facts.datasets}
    for data in SAME_DATA:
        if data not in present:
            n = sum(p.dataset == data for p in PUBLISHED)
            blocks.append(
                Missing(
                    f"{data}, on which the paper has {n} of these numbers, is not among the "
                    "reported datasets (a dataset stands for it whose name holds "
                    f"{' or '.join(SAME_DATA[data])}).",
                    f"embedstore add {data.lower()} --annotations FILE --slides DIR",
                )
            )
    blocks += reproduced(facts)
    return Section("paper", "The paper\u2019s numbers beside ours", blocks, lead=f"{PAPER}.")


def _table(facts: Facts, dataset: str, data: str, name: str) -> Table:
    rows = []
    for p in (p for p in PUBLISHED if p.dataset == data):
        side, s = _measured(facts, dataset, p)
        mean = to_null(s.mean) if s else None
        gap = None if mean is None else mean - p.mean
        rows.append(
            {
                "paper_dataset": p.dataset,
                "place": p.place,
                "model": p.shown,
                "registry_name": p.model,
                "where": p.where,
                "published_mean": p.mean,
                "published_sd": p.sd,
                "dataset": dataset,
                "about": facts.about(dataset),
                "measured_as": facts.names[side] if side else None,
                "weights": side.weights if side else None,
                "mean": mean,
                "sd": s.sd if s else None,
                "n_runs": s.n_runs if s else 0,
                "difference": gap,
                # A hair of slack: 0.83 - 0.79 is more than 0.04 to a computer.
                "within": None if gap is None else abs(gap) <= p.sd + 1e-9,
            }
        )
    columns = [
        Column("model", "model"),
        Column("where", "where", _where),
        Column(
            "published_mean",
            "published",
            lambda r: spread(r["published_mean"], r["published_sd"], 2),
            number=True,
        ),
        Column("mean", "measured", _shown, number=True),
        Column("difference", "difference", lambda r: signed(r["difference"]), number=True),
        Column("within", "within", lambda r: {True: "yes", False: "no", None: ""}[r["within"]]),
        Column("measured_as", "measured with", lambda r: r["measured_as"] or ""),
    ]
    said = [facts.about(dataset)] if facts.about(dataset) else []
    said += ["with random weights"] if any(r["weights"] == "random" for r in rows) else []
    aside = f" ({'; '.join(said)})" if said else ""
    title = f"{data} as published beside {dataset}{aside}"
    notes = [NOTE]
    if said and not paper_dataset(dataset):
        notes.append("Other data than the paper\u2019s: a difference says nothing about either.")
    return Table(name, title, columns, rows, notes)


def _where(r: Row) -> str:
    return "all domains, all data" if r["where"] == "all" else str(r["where"])


def _shown(r: Row) -> str:
    return spread(r["mean"], r["sd"]) or "missing"


def _not_measured(facts: Facts, rows: Sequence[Mapping[str, Any]]) -> Missing | None:
    """Return the models of a table that have no number here, named, with a command for them."""
    gone = [r for r in rows if r["mean"] is None]
    if not gone:
        return None
    names = list(dict.fromkeys(r["model"] for r in gone))
    dataset = rows[0]["dataset"]
    probes = list(
        dict.fromkeys(r["registry_name"] for r in gone if not r["model"].startswith("End-to-end"))
    )
    lines = []
    if probes:
        have = [m for m in probes if m in facts.embedded]
        lack = [m for m in probes if m not in have]
        each = [w for m in lack for w in ("--model", m)]
        lines += [command("embedstore", "ingest", dataset, *each)] if lack else []
        lines.append(command("probes", "run", dataset, "--scheme", "cross-domain"))
    if len(probes) < len(names):
        lines.append(command("e2e", "run", dataset, "--scheme", "cross-domain"))
        lines.append(command("e2e", "run", dataset))
    return Missing(f"Missing on {dataset}: {', '.join(names)}.", "\n".join(lines))


def _measured(facts: Facts, dataset: str, p: Published) -> tuple[Side | None, Summary | None]:
    """Return what was measured in the paper's way: all of train, by annotation, no variant."""
    for c in facts.conditions(dataset, by_domain=p.scheme == "cross-domain"):
        if c.scheme != p.scheme or not c.is_usual_but("scheme", "seed"):
            continue
        of_side = by_side([r for r in facts.rows(c, "auroc") if r.fraction == 1.0])
        matching = [
            e
            for e in of_side
            if e.method == p.method and e.variant is None and _origin(facts, e) == p.model
        ]
        for e in sorted(matching, key=lambda e: (e.is_random, e.model != p.model, e.params)):
            for s in summarise(of_side[e]):
                if s.where == p.where and s.n_runs:
                    return e, s
    return None, None


def _origin(facts: Facts, e: Side) -> str:
    """Return the registry's name of a side's model: --as may have stored it under another."""
    if e.is_e2e:
        return e.model
    record = facts.models.get(e.model)
    return (record and record.registry_name) or e.model


SECTION = Maker(30, paper)
