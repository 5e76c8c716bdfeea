"""Scores of annotations: as a run leaves them, as they are stored, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scored:
    """The scores of one role: ids, and probabilities float64 (n, K) in the order of `labels`."""

    annotation_ids: Sequence[str] | NDArray[Any]
    probabilities: NDArray[np.float64]
    labels: Sequence[str]
