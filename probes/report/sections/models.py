"""The section of the models."""

from typing import Any

from probes.report.blocks import Missing, Section, TableBlock
from probes.report.data import Facts
from probes.report.repeat import ingest_command
from probes.report.tables import Column, Table


def models(facts: Facts) -> Section:
    """Return the section of Table 1: every model that has embeddings or results here."""
    rows: list[dict[str, Any]] = []
    for m in facts.models.values():
        rows.append(
            {
                k: m[k]
                for k in (
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
            }
            | {"used": "embedded"}
        )
    for e in facts.sides:
        if e.is_e2e:
            rows.append(
                {
                    "model": facts.names[e],
                    "registry_name": e.model,
                    "arch": e.model,
                    "n_params": None,
                    "dim": None,
                    "pooling": None,
                    "dtype": None,
                    "patch_px": None,
                    "mpp_out": None,
                    "weights": e.weights,
                    "weights_sha256": e.weights_sha256 or None,
                    "used": "trained end to end",
                }
            )
    if not rows:
        example = {
            "model": "efficientnet-lite0",
            "registry_name": None,
            "arch": "",
            "dtype": None,
            "weights": "",
            "patch_px": None,
            "mpp_out": None,
        }
        first = facts.datasets[0]["dataset"]
        return Section(
            "models",
            "Which models?",
            [Missing("No model has embedded anything.", ingest_command(first, example))],
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
    notes = (
        ["Random weights are chance\u2019s, seeded by the model\u2019s name: a floor, not a model."]
        if any(r["weights"] == "random" for r in rows)
        else []
    )
    table = Table("table1", "Table 1. The models", columns, rows, notes)
    return Section("models", "Which models?", [TableBlock(table)])


def _millions(n: Any) -> str:
    return "" if n is None else f"{n / 1e6:,.1f} M"
