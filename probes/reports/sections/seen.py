"""Which models were trained on collections that a dataset's slides are named as those of."""

from embedstore.models.corpora import may_have_seen
from embedstore.store.sql import fetch_rows, literal
from probes.reports.blocks import Block, TableBlock
from probes.reports.data import Facts
from probes.reports.tables import Column, Table


def seen(facts: Facts) -> list[Block]:
    """Return a table of models and collections; nothing where none is known to be seen."""
    rows = []
    for d in facts.datasets:
        slides = [
            r["slide"]
            for r in fetch_rows(
                facts.con,
                "select distinct coalesce(source_slide, slide) as slide from slides "
                f"where dataset = {literal(d.dataset)}",
            )
        ]
        for m in facts.models.values():
            for collection, n in may_have_seen(m.registry_name or m.model, slides).items():
                share = f"{n:,} of {len(slides):,}"
                rows.append(
                    {
                        "model": m.model,
                        "dataset": d.dataset,
                        "collection": collection,
                        "slides": share,
                    }
                )
    if not rows:
        return []
    columns = [
        Column("model", "model"),
        Column("dataset", "dataset"),
        Column("collection", "trained on"),
        Column("slides", "slides named so", number=True),
    ]
    notes = [
        "What a model's makers say it was trained on, against the names of the slides. It was "
        "trained without this task's labels, but may have seen these very slides: beside a model "
        "that has not, its advantage is not only what it learnt of tissue. Of the models that are "
        "not in the table nothing is known."
    ]
    return [
        TableBlock(Table("seen", "Models that may have seen these slides", columns, rows, notes))
    ]
