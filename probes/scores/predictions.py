"""Scores of annotations: as a run leaves them, as they are stored, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """The scores of one role: ids, and probabilities float64 (n, K) in the order of `labels`."""

    annotation_ids: Sequence[str] | NDArray[Any]
    probabilities: NDArray[np.float64]
    labels: Sequence[str]

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
