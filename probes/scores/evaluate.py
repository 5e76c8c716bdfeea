"""From probabilities to results: metrics with intervals, by domain where the scheme says so."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.scores.metrics import Codes, Floats
from probes.scores.statistics import Estimate, bootstrap
from probes.splits.recorded import SplitRow

ALL = "all"


@dataclass(frozen=True)
class Evaluated:
    """One eval domain: its metrics, and how many annotations and positives it holds."""

    metrics: dict[str, Estimate]
    n_test: int
    n_pos: int | None


def resampled_by(group_by: str) -> str:
    """Return the column whose values are resampled for intervals: case_id, or else slide.

    Annotations of one slide are alike, so slides are resampled also where annotations were drawn.
    """
    return "case_id" if group_by == "case" else "slide"


def evaluate_by(
    names: Sequence[str] | NDArray[Any],
    codes: Codes,
    p: Floats,
    groups: NDArray[Any],
    *,
    cut: float,
    seed: int,
    n_resamples: int,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Evaluated]:
    """Return the evaluation of each name among `names` (n,), one eval domain an annotation.

    codes (n,), p (n, K), groups (n,): what is resampled for the intervals; decision (n, K): what
    ranks, None: p.
    """
    of = np.asarray(names, dtype=object)
    evaluated = {}
    for name in sorted(set(of.tolist())):
        members = of == name
        metrics = bootstrap(
            codes[members],
            p[members],
            groups[members].tolist(),
            cut,
            seed=seed,
            n_resamples=n_resamples,
            partial=partial,
            decision=None if decision is None else decision[members],
        )
        n_pos = int((codes[members] == 1).sum()) if p.shape[1] == 2 else None
        evaluated[name] = Evaluated(metrics, int(members.sum()), n_pos)
    return evaluated


def evaluate_split(
    row: SplitRow,
    codes: Codes,
    p: Floats,
    domains: NDArray[Any],
    groups: NDArray[Any],
    *,
    cut: float,
    n_resamples: int,
    partial: bool = False,
    decision: Floats | None = None,
) -> dict[str, Evaluated]:
    """Return the evaluation of a split's test rows: by domain where one domain was trained on.

    row is the split's row; codes (n,), p and decision (n, K), domains (n,), groups (n,) of its test
    annotations.
    What is resampled follows from the split alone, so methods share replicates.
    """
    by = np.full(len(codes), ALL) if row.train_domain is None else domains
    seed = seed_of(row.manifest_id, row.fold, row.train_domain)
    return evaluate_by(
        by,
        codes,
        p,
        groups,
        cut=cut,
        seed=seed,
        n_resamples=n_resamples,
        partial=partial,
        decision=decision,
    )


def seed_of(*parts: object) -> int:
    """Return a seed from what is resampled, not from who is scored: methods share replicates."""
    return int(hashlib.sha256("|".join(map(str, parts)).encode()).hexdigest()[:12], 16)
