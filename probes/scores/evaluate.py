"""From probabilities to results: metrics with intervals, by domain where the scheme says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.scores.metrics import Codes, Floats
from probes.scores.statistics import Estimate, jackknife
from probes.splits.recorded import SplitRow

ALL = "all"


@dataclass(frozen=True)
class Evaluated:
    """One eval domain: its metrics, and how many annotations, positives and groups it holds."""

    metrics: dict[str, Estimate]
    n_test: int
    n_pos: int | None
    n_groups: int


def left_out_by(group_by: str) -> str:
    """Return the column whose values are left out in turn for intervals: case_id, or else slide.

    Annotations of one slide are alike, so slides are left out also where annotations were drawn.
    """
    return "case_id" if group_by == "case" else "slide"


def evaluate_by(
    names: Sequence[str] | NDArray[Any],
    codes: Codes,
    p: Floats,
    groups: NDArray[Any],
    *,
    cut: float,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Evaluated]:
    """Return the evaluation of each name among `names` (n,), one eval domain an annotation.

    codes (n,), p (n, K), groups (n,): what is left out in turn for the intervals; decision (n, K):
    what ranks, None: p.
    """
    of = np.asarray(names, dtype=object)
    evaluated = {}
    for name in sorted(set(of.tolist())):
        members = of == name
        metrics = jackknife(
            codes[members],
            p[members],
            groups[members].tolist(),
            cut,
            partial=partial,
            decision=None if decision is None else decision[members],
        )
        n_pos = int((codes[members] == 1).sum()) if p.shape[1] == 2 else None
        n_groups = len(set(groups[members].tolist()))
        evaluated[name] = Evaluated(metrics, int(members.sum()), n_pos, n_groups)
    return evaluated


def evaluate_split(
    row: SplitRow,
    codes: Codes,
    p: Floats,
    domains: NDArray[Any],
    groups: NDArray[Any],
    *,
    cut: float,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Evaluated]:
    """Return the evaluation of a split's test rows: by domain where one domain was trained on.

    row is the split's row; codes (n,), p and decision (n, K), domains (n,), groups (n,) of its test
    annotations.
    """
    by = np.full(len(codes), ALL) if row.train_domain is None else domains
    return evaluate_by(
        by,
        codes,
        p,
        groups,
        cut=cut,
        partial=partial,
        decision=decision,
    )
