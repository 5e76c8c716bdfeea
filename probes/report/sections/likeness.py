"""How alike the models are, and which see nothing that random weights do not."""

from probes.report.blocks import Block, Figure, MatrixPanel, Missing, Section
from probes.report.makers import Maker, Material
from probes.report.studied import of_metric, studied
from probes.scores.results import from_null
from probes.studies.likeness import STUDY

WIDE = 6
"""Models beyond which a matrix takes a row of the page."""
LEAD = (
    "Two models that are alike make the same mistakes, and a second one of them adds little. 1 is "
    "the same but for a rotation."
)


def likeness(material: Material) -> Section:
    """Return the section: two matrices a dataset."""
    facts = material.facts
    blocks, missing = list[Block](), list[Missing]()
    for n, d in enumerate(facts.datasets):
        found, lacks = studied(facts, d.dataset, STUDY, "how alike its models are is unknown.")
        if len(facts.models) < 2:
            lacks = []  # one model alone is like no other
        missing += lacks
        if not found:
            continue
        names = sorted({str(x) for m in found for x in (m.model, m.against)})
        panels = []
        for metric, title in (("cka", "linear CKA"), ("mutual_knn", "shared nearest neighbours")):
            values = {(str(m.model), str(m.against)): m.value for m in of_metric(found, metric)}
            table = [
                [
                    1.0 if a == b else from_null(values.get((a, b), values.get((b, a))))
                    for b in names
                ]
                for a in names
            ]
            panels.append(MatrixPanel(f"{d.dataset}: {title}", names, names, table, axes=("", "")))
        caption = (
            "Linear CKA of centred vectors, and the mean share of a cell's ten nearest cells that "
            f"two models have in common, on {found[0].n:,} cells. Intervals over slides are in the "
            "view measures, study likeness."
        )
        title = f"How alike models are, {d.dataset}"
        name = f"figure-likeness-{n + 1}"
        blocks.append(Figure(name, title, caption, panels, is_wide=len(names) > WIDE))
    return Section("likeness", "How alike are the models?", [*blocks, *missing], LEAD)


SECTION = Maker(39, likeness)
