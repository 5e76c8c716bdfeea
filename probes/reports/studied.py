"""What studies have recorded, for the sections: fresh, or with the command that makes it so."""

from collections.abc import Sequence

from probes.reports.blocks import Level, Missing
from probes.reports.data import Facts
from probes.reports.repeat import command
from probes.scores.results import from_null
from probes.studies.measures import MeasureRow, load_measures


def studied(
    facts: Facts, dataset: str, study: str, lacking: str
) -> tuple[list[MeasureRow], list[Missing]]:
    """Return what a study found of a dataset, and what is missing, with the command that fills it.

    lacking: what to say where nothing is recorded. What was found of other annotations than there
    are now is shown, and said to be so.
    """
    rows = load_measures(facts.con, dataset, study)
    again = command("probes", study, dataset)
    if not rows:
        return [], [Missing(f"{dataset}: {lacking}", again)]
    if rows[0].manifest_id != facts.digest(dataset):
        stale = f"{dataset}: annotations have changed since these numbers were made. Anew:"
        return rows, [Missing(stale, again)]
    return rows, []


def human_line(facts: Facts, dataset: str) -> Level | None:
    """Return where experts stand against each other, for figures of AUROC; None without votes."""
    rows = of_metric(load_measures(facts.con, dataset, "raters"), "human")
    if not rows or rows[0].value is None:
        return None
    (m,) = rows
    low, high = from_null(m.ci_low), from_null(m.ci_high)
    return Level("an expert against the others", from_null(m.value), low, high)


def of_metric(rows: Sequence[MeasureRow], metric: str) -> list[MeasureRow]:
    """Return the rows of one metric."""
    return [r for r in rows if r.metric == metric]


def random_twin(facts: Facts, model: str) -> str | None:
    """Return the model of a model's architecture whose weights are random, the floor of its kind.

    One of the same pool where there are several; None where there is none.
    """
    of = facts.models.get(model)
    if of is None or of.arch is None or of.weights == "random":
        return None
    twins = [m for m in facts.models.values() if m.weights == "random" and m.arch == of.arch]
    twins.sort(key=lambda m: (m.pooling != of.pooling, m.mpp_out != of.mpp_out, m.model))
    return twins[0].model if twins else None
