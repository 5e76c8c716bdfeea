"""Published protocols that were done here: a table of what `probes reproduce` recorded."""

from probes.recipes import METRICS
from probes.reports.blocks import TableBlock
from probes.reports.data import Facts
from probes.reports.tables import Column, Row, Table, between, signed, spread
from probes.studies.measures import load_measures
from probes.studies.reproduce import STUDY, rows_beside

MAX_OPEN = 30
"""Rows of a table that is shown open."""
NOTES = (
    "A recipe does what a publication did, with its splits and metrics; where it departs, "
    "probes reproduce says. Mean and SD are over folds, the interval leaves slides or cases out.",
    "Drift is told of the same model and kind of probe alone: the difference is more than two of "
    "both SDs. Without own numbers the best published of each kind stand beside.",
)


def reproduced(facts: Facts) -> list[TableBlock]:
    """Return a table a dataset that has such numbers, each beside the published ones."""
    blocks: list[TableBlock] = []
    for d in facts.datasets:
        found = load_measures(facts.con, d.dataset, STUDY)
        rows = [{"dataset": d.dataset, **r} for r in rows_beside(found)]
        rows.sort(key=lambda r: [r[k] for k in ("recipe", "model", "test", "metric")])
        if not rows:
            continue
        notes = list(NOTES)
        if found[0].manifest_id != facts.digest(d.dataset):
            notes.insert(0, "Annotations have changed since these numbers were made.")
        name = f"reproduced-{len(blocks) + 1}"
        table = Table(name, f"Published protocols, done on {d.dataset}", COLUMNS, rows, notes)
        blocks.append(TableBlock(table, is_open=len(rows) <= MAX_OPEN))
    return blocks


def _metric(r: Row) -> str:
    return METRICS.get(r["metric"], str(r["metric"]))


COLUMNS = [
    Column("recipe", "recipe"),
    Column("model", "model"),
    Column("test", "test set"),
    Column("metric", "metric", _metric),
    Column("value", "measured", lambda r: spread(r["value"], r["sd"]), number=True),
    Column("ci_low", "95% CI", lambda r: between(r["ci_low"], r["ci_high"]), number=True),
    Column("of", "published, of"),
    Column("published", "there", lambda r: spread(r["published"], r["published_sd"]), number=True),
    Column("difference", "difference", lambda r: signed(r["difference"]), number=True),
    Column("drift", "drift"),
]
