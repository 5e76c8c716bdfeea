"""Choices among recorded scores."""

from typing import Any


def auroc(rows: Any, **where: Any) -> Any:
    return [r for r in rows if r["metric"] == "auroc" and all(r[k] == v for k, v in where.items())]
