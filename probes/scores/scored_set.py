"""What a recorded run scored on its test set, as arrays: what tests and intervals are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.store.sql import fetch
from probes.scores.joint import Test
from probes.scores.metrics import Codes, Floats

FACTS = ("domain", "slide", "case_id")
"""What is known of each annotation, as columns of `ScoredSet.facts`."""


@dataclass(frozen=True)
class ScoredSet:
    """The test annotations of a run, in order of their ids: codes (n,), probabilities (n, K).

    labels: what the codes mean, of two the positive one last; rank (n, K): what ranks; facts: the
    columns FACTS, object (n,). Annotations that are no longer there are left out.
    """

    ids: NDArray[Any]
    y: Codes
    p: Floats
    rank: Floats
    labels: Sequence[str]
    facts: dict[str, NDArray[Any]]
    cut: float

    def whole(self, by: str) -> Test:
        """Return all of its test set, with the groups that a column names."""
        return self.at(np.arange(len(self.y)), by)

    def at(self, rows: NDArray[Any], by: str) -> Test:
        """Return the test set of some of its annotations, with the groups that a column names."""
        groups = self.facts[by][rows].tolist()
        return Test(self.y[rows], self.p[rows], groups, self.cut, self.rank[rows])


def scored_set(con: Any, run_id: str, threshold: float | None) -> ScoredSet:
    """Return what a run scored on its own test set; threshold as its results record it."""
    table = fetch(
        con,
        "select annotation_id, truth, labels, p, rank, domain, coalesce(source_slide, slide) as "
        "slide, case_id from (select annotation_id, any_value(truth) as truth, "
        "list(label order by label) as labels, list(score order by label) as p, "
        "list(decision order by label) as rank from predictions "
        "where run_id = $run and role = 'test' group by 1) "
        "join annotations using (annotation_id) order by annotation_id",
        {"run": run_id},
    )
    scored: list[str] = table["labels"][0].as_py() if len(table) else []
    truth = table["truth"].to_pylist()
    # Of two labels the positive one is stored; the other's name is whatever truth is left.
    others = sorted({t for t in truth if t not in scored}) if len(scored) == 1 else []
    order = [others[0] if others else "", *scored] if len(scored) == 1 else scored
    place = {label: n for n, label in enumerate(order)}
    y = np.array([place.get(t, 0) for t in truth], dtype=np.intp)
    return ScoredSet(
        np.array(table["annotation_id"].to_pylist(), dtype=object),
        y,
        _by_code(table["p"]),
        _by_code(table["rank"], is_odds=True),
        order,
        {f: np.array(table[f].to_pylist(), dtype=object) for f in FACTS},
        0.5 if threshold is None else threshold,
    )


def _by_code(column: Any, *, is_odds: bool = False) -> Floats:
    """Return what is stored of each label, (n, K), of two labels that of the other one too."""
    each = np.array(column.to_pylist(), dtype=np.float64)
    if not len(each):
        return np.empty((0, 2))
    if each.shape[1] > 1:
        return each
    return np.column_stack((-each[:, 0] if is_odds else 1 - each[:, 0], each[:, 0]))
