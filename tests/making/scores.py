"""Choices among recorded scores."""

from collections.abc import Sequence
from typing import Any

from probes.scores.recorded import ResultRow


def auroc(rows: Sequence[ResultRow], **where: Any) -> list[ResultRow]:
    of_metric = [r for r in rows if r.metric == "auroc"]
    return [r for r in of_metric if all(getattr(r, k) == v for k, v in where.items())]
