"""Scores of annotations: as a run leaves them, as they are stored, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EVAL = "eval"
"""The role of annotations of another dataset than the one trained on."""


@dataclass(frozen=True)
class Scored:
    """The scores of one role: ids, and probabilities float64 (n, K) in the order of `labels`.

    decision float64 (n, K): what ranks by label, where that is more than the probabilities;
    truth: the label of each annotation.
    """

    annotation_ids: Sequence[str] | NDArray[Any]
    probabilities: Floats
    labels: Sequence[str]
    decision: Floats | None = None
    truth: Sequence[str] | NDArray[Any] | None = None

    def table(self) -> pa.Table:
        """Return annotation_id, label and score, by label, then in order of the ids.

        Of two labels the rows are of the positive one.
        """
        ids = np.asarray(self.annotation_ids, dtype=object)
        order = np.argsort(ids.astype(str), kind="stable")
        shown = [1] if len(self.labels) == 2 else range(len(self.labels))
        return pa.table(
            {
                "annotation_id": np.concatenate([ids[order] for _ in shown]),
                "label": [self.labels[k] for k in shown for _ in order],
                "score": np.concatenate([self.probabilities[order, k] for k in shown]),
            }
        )

    def rows(self, run_id: str, dataset: str, role: str) -> list[dict[str, Any]]:
        """Return the rows of the table of predictions: one a label, of two the positive alone."""
        return [
            {
                "prediction_id": f"{run_id}/{dataset}/{role}/{label}",
                "run_id": run_id,
                "dataset": dataset,
                "role": role,
                "label": label,
                "annotation_id": self.annotation_ids,
                "truth": self.truth,
                "probability": self.probabilities[:, k],
                "decision": None if self.decision is None else self.decision[:, k],
            }
            for k, label in enumerate(self.labels)
            if len(self.labels) > 2 or k == 1  # of two labels the positive one says it all
        ]
