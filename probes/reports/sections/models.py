"""The section of the models."""

from typing import Any

from probes.reports.blocks import Missing, Section, TableBlock
from probes.reports.makers import Maker, Material
from probes.reports.repeat import command
from probes.reports.studied import random_twin
from probes.reports.tables import Column, Table

_FACTS = (
    "model",
    "registry_name",
    "arch",
    "n_params",
    "dim",
    "pooling",
    "dtype",
    "patch_px",
    "mpp_out",
    "weights",
    "weights_sha256",
)


def models(material: Material) -> Section:
    """Return the section of Table 1: every model that has embeddings or results here."""
    facts = material.facts
    rows = [
        {k: getattr(m, k) for k in _FACTS}
        | {"used": "embedded", "floor": random_twin(facts, m.model)}
        for m in facts.models.values()
    ]
    rows += [
        dict.fromkeys(_FACTS)
        | {
            "model": facts.names[side],
            "registry_name": side.model,
            "arch": side.model,
            "weights": side.weights,
            "weights_sha256": side.weights_sha256 or None,
            "used": "trained end to end",
            "floor": None,
        }
        for side in facts.sides
        if side.is_e2e
    ]
    if not rows:
        first = facts.datasets[0].dataset
        return Section(
            "models",
            "Which models?",
            [
                Missing(
                    "No model has embedded anything.",
                    command("embedstore", "ingest", first, "--model", "efficientnet-lite0"),
                )
            ],
        )
    columns = [
        Column("model", "model"),
        Column("used", "use"),
        Column("arch", "architecture"),
        Column("n_params", "parameters", lambda r: _millions(r["n_params"]), number=True),
        Column("dim", "width", number=True),
        Column("pooling", "pooling"),
        Column("dtype", "dtype"),
        Column("weights", "weights", lambda r: r["weights"] or "not known (imported)"),
    ]
    if any(r["floor"] for r in rows):
        columns.append(Column("floor", "random twin"))
    notes = (
        ["Random weights, seeded by the model\u2019s name: a floor, not a model."]
        if any(r["weights"] == "random" for r in rows)
        else []
    )
    table = Table("table1", "Table 1. The models", columns, rows, notes)
    return Section("models", "Which models?", [TableBlock(table)])


def _millions(n: Any) -> str:
    return "" if n is None else f"{n / 1e6:,.1f} M"


SECTION = Maker(70, models)
