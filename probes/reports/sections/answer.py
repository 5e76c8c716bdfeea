"""The answer in three sentences: which model, what it would have seemed, what would change it.

Made from what `probes gap` recorded, and never stronger than its intervals: a model leads where the
corrected interval of its lead says so, else nothing is said to be best.
"""

from collections.abc import Sequence

from probes.reports.blocks import Block, Missing, Prose, Section
from probes.reports.data import summaries
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command
from probes.reports.studied import of_metric, studied
from probes.reports.tables import between, number, p_value, signed
from probes.scores.results import from_null
from probes.studies.gap import ANNOTATION, CASE, DOMAIN, LEVELS, SLIDE, STUDY
from probes.studies.measures import MeasureRow

KEPT_OUT = {
    ANNOTATION: "single annotations are kept out, their slides seen in training",
    SLIDE: "whole slides are kept out of training",
    CASE: "whole cases are kept out of training",
    DOMAIN: "a whole domain is kept out of training",
}
"""What a level's test set is, in words."""


def answer(material: Material) -> Section:
    """Return the opening: three sentences a dataset, or what it takes to say them."""
    facts = material.facts
    blocks: list[Block] = []
    for d in facts.datasets:
        measures, lacks = studied(facts, d.dataset, STUDY, "not asked on honest splits yet.")
        if measures:
            name = f"{d.dataset}: " if len(facts.datasets) > 1 else ""
            first, *others = sentences(measures)
            blocks += [Prose(name + first), *map(Prose, others)]
        elif any(summaries(facts, c) for c in facts.conditions(d.dataset, by_domain=False)):
            said = (
                f"{d.dataset}: what is recorded says how models do on the splits below, and not "
                "which is best: that takes the same slides left out of all of them."
            )
            lacks = [Missing(said, command("probes", STUDY, d.dataset))]
        blocks += lacks
    return Section("answer", "The answer", blocks)


def sentences(measures: Sequence[MeasureRow]) -> list[str]:
    """Return the three sentences of one dataset."""
    levels = [k for k in LEVELS if any(m.split == k for m in measures)]
    hardest = levels[-1]
    at = {
        str(m.model): m
        for m in of_metric(measures, "auroc")
        if m.split == hardest and m.value is not None
    }
    if not at:
        return [f"No model has an AUROC where {KEPT_OUT[hardest]}: a test set lacks a label."]
    best = max(at.values(), key=lambda m: (from_null(m.value), str(m.model)))
    pairs = [m for m in of_metric(measures, "auroc_difference") if m.split == hardest]
    rivals = sorted((m for m in pairs if m.value is not None), key=lambda m: from_null(m.value))
    return [
        _which(best, hardest, rivals),
        _seemed(measures, best, hardest),
        _would_change(best, rivals),
    ]


def _value(m: MeasureRow) -> str:
    interval = between(m.ci_low, m.ci_high)
    return f"{number(m.value)}" + (f" (95% interval {interval})" if interval else " (no interval)")


def _is_sure(m: MeasureRow) -> bool:
    return m.p_holm is not None and m.p_holm < 0.05


def _which(best: MeasureRow, level: str, rivals: Sequence[MeasureRow]) -> str:
    """Return which model leads, by how much and how sure, on which split."""
    where = f"where {KEPT_OUT[level]}"
    reaches = f"an AUROC of {_value(best)} {where}"
    if not rivals:
        return f"{best.model}, the only model, reaches {reaches}."
    unsure = [str(m.against) for m in rivals if not _is_sure(m)]
    first = rivals[0]
    lead = f"ahead of {first.against} by {signed(first.value)}"
    bounds = between(first.ci_low, first.ci_high)
    lead += f", 95% interval {signed(first.ci_low)} to {signed(first.ci_high)}" if bounds else ""
    lead += f", p {p_value(first.p_holm)} after correction" if first.p_holm is not None else ""
    if not unsure:
        return f"{best.model} is best: {reaches}, {lead}."
    names = ", ".join(unsure[:3]) + (f" and {len(unsure) - 3} more" if len(unsure) > 3 else "")
    return (
        f"No model is shown to be best: {best.model} has the highest AUROC, {_value(best)}, "
        f"{where}, but is not told apart from {names} ({lead})."
    )


def _seemed(measures: Sequence[MeasureRow], best: MeasureRow, level: str) -> str:
    """Return what the usual split by annotation would have said."""
    if level == ANNOTATION:
        return (
            "Slides are shared between training and test, so this may be what the model knows of "
            "these slides rather than of cells; no honest split can be made of this dataset."
        )
    usual = {str(m.model): m for m in of_metric(measures, "auroc") if m.split == ANNOTATION}
    drops = {
        str(m.model): m
        for m in of_metric(measures, "auroc_drop")
        if m.split == level and m.against is None
    }
    mine, drop = usual.get(str(best.model)), drops.get(str(best.model))
    if mine is None or mine.value is None or drop is None or drop.value is None:
        return "What splits by annotation would have said is not known."
    more = f"{number(abs(drop.value))} {'more' if drop.value >= 0 else 'less'}"
    text = f"By annotation, as is usual, it would have been {number(mine.value)}, {more}"
    if drop.ci_low is None or drop.ci_high is None:
        text += ", with no interval"
    else:
        text += f" (95% interval {signed(drop.ci_low)} to {signed(drop.ci_high)})"
        text += ", not told from no loss" * (drop.ci_low <= 0 <= drop.ci_high)
    leader = max(usual.values(), key=lambda m: (from_null(m.value), str(m.model)))
    if len(usual) > 1:
        same = leader.model == best.model
        text += "; the same model leads there" if same else f"; there {leader.model} leads"
    return text + "."


def _would_change(best: MeasureRow, rivals: Sequence[MeasureRow]) -> str:
    """Return what this rests on, and how much more would settle what is open."""
    kind = "cases" if best.ci_by == "case" else "slides"
    text = f"This rests on {best.n_groups:,} {kind}: drawing others is in the intervals, training "
    text += "anew and other hospitals than these are not"
    open_ones = [m for m in rivals if not _is_sure(m)]
    if open_ones and open_ones[0].n_groups:
        m = open_ones[0]
        needed = m.more.get("groups_needed")
        if needed is None or needed > 100 * (m.n_groups or 0):
            text += f"; to tell it from {m.against} hardly any number would do"
        elif (more := needed - (m.n_groups or 0)) > 0:
            text += (
                f"; to tell it from {m.against}, were the difference as it is, about {more:,} more "
                f"{kind} are needed"
            )
    return text + "."


SECTION = Maker(0, answer)
