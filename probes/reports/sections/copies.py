"""Cells that are there twice, and what share of test annotations has a copy in training."""

from typing import Any

from embedstore.reading.images import SHOT_PX, data_address
from embedstore.reading.pixels import Patches
from embedstore.store.sql import fetch_rows
from probes.reports.blocks import Block, Gallery, Prose, Section, Shot, TableBlock
from probes.reports.makers import Maker, Material
from probes.reports.studied import of_metric, studied
from probes.reports.tables import Column, Table, percent
from probes.studies.copies import STUDY

N_SHOWN = 6


def copies(material: Material) -> Section:
    """Return the section: how many, in which splits they give something away, and some of them."""
    facts = material.facts
    rows, blocks, missing = list[Any](), list[Block](), list[Block]()
    for d in facts.datasets:
        found, lacks = studied(facts, d.dataset, STUDY, "whether cells are there twice is unknown.")
        missing += lacks
        for m in of_metric(found, "n_copies"):
            n = int(m.value or 0)
            said = "no two show the same." if not n else f"{n:,} pairs show the same."
            blocks.append(
                Prose(f"{d.dataset}: of {m.n:,} annotations on slides of different names, {said}")
            )
        rows += [
            {"dataset": d.dataset, "split": m.split, "share": m.value, "n": m.n}
            for m in of_metric(found, "copies_in_train")
        ]
        pairs = fetch_rows(
            facts.con,
            "select a, b, cosine, pixels from copies where dataset_a = $d and dataset_b = $d "
            f"order by cosine desc, a limit {N_SHOWN}",
            {"d": d.dataset},
        )
        if pairs:
            ids = [r[k] for r in pairs for k in ("a", "b")]
            kept = Patches(facts.store, facts.con, d.dataset).read(ids, SHOT_PX)
            images = {i: data_address(p) for i, p in kept.items()}
            shots = [Shot(images.get(i, ""), [i]) for i in ids]
            blocks.append(Gallery("Copies, in pairs", [(d.dataset, shots)]))
    if rows:
        columns = [
            Column("dataset", "dataset"),
            Column("split", "split"),
            Column("share", "tested, with a copy in training", lambda r: percent(r["share"]), True),
            Column("n", "n test", number=True),
        ]
        notes = ["At the largest fraction, mean over folds. No split by slide or case can know it."]
        blocks.append(TableBlock(Table("copies", "Copies across the split", columns, rows, notes)))
    return Section("twice", "Is a cell there twice?", [*blocks, *missing])


SECTION = Maker(47, copies)
