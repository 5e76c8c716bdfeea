"""From a fit to what is recorded of its run: scored on its manifest, or on another dataset."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import EmbedstoreError
from embedstore.store import now
from probes.methods.fits import Fit, Task
from probes.scores.evaluate import (
    ALL,
    Evaluated,
    evaluate_by,
    evaluate_split,
    left_out_by,
)
from probes.scores.metrics import best_cut
from probes.scores.predictions import EVAL, Scored
from probes.scores.results import Outcome, Run
from probes.slices import Matrix, Rows, codes_of
from probes.splits.elsewhere import Elsewhere


def codes_in(matrix: Matrix, target: str, order: Sequence[str]) -> NDArray[np.intp]:
    """Return the code of every annotation of the matrix, -1 for what `order` does not name."""
    facts, named = matrix.facts[target], set(order)
    codes = np.full(len(facts), -1, dtype=np.intp)
    is_named = np.array([f in named for f in facts], dtype=bool)
    codes[is_named] = codes_of(facts[is_named], order)
    return codes


@dataclass(frozen=True)
class Scorer:
    """How the runs of one model are scored; order are the labels (or domains) learnt, by code.

    embedded_at is when the newest embedding that a score depends on was made.
    """

    order: list[str]
    target: str
    views: str | None
    embedded_at: datetime | None
    other: Elsewhere | None = None

    def outcome(self, run: Run, fit: Fit, task: Task, matrix: Matrix) -> Outcome:
        """Score val and test of the manifest."""
        row, rows = run.split.row, task.rows
        scores = {r: self._scored(fit, matrix, rows[r]) for r in ("val", "test")}
        cut = best_cut(task.codes[rows["val"]], scores["val"].probabilities)
        test = rows["test"]
        groups, ci_by = _groups(run, matrix, test)
        evaluated = evaluate_split(
            row,
            task.codes[test],
            scores["test"].probabilities,
            matrix.facts["domain"][test],
            groups,
            cut=cut,
            partial=self._partial,
            decision=scores["test"].decision,
        )
        facts = self._facts(fit, cut, ci_by, None)
        scores = {role: s for role, s in scores.items() if len(s.annotation_ids)}
        return Outcome(run, evaluated, scores, facts, self._learnt(run, fit, cut, matrix.dataset))

    def elsewhere(self, run: Run, fit: Fit, cut: float, other: Matrix) -> Outcome:
        """Score all of another dataset, whole and by domain; cut is the threshold to use."""
        codes = codes_in(other, self.target, self.order)
        assert self.other is not None
        usable = other.rows_of(self.other.candidates.pool.ids)
        labelled = usable[codes[usable] >= 0]
        if not len(labelled):
            raise EmbedstoreError(
                f"--eval-dataset {other.dataset} has none of: {', '.join(self.order)}"
            )
        scored = self._scored(fit, other, labelled, own=False)
        groups, ci_by = _groups(run, other, labelled)
        domains = other.facts["domain"][labelled]
        names = [
            np.full(len(labelled), ALL),
            *([domains] if len(set(domains.tolist())) > 1 else []),
        ]
        evaluated: dict[str, Evaluated] = {}
        for by in names:
            evaluated |= evaluate_by(
                by,
                codes[labelled],
                scored.probabilities,
                groups,
                cut=cut,
                partial=self._partial,
                decision=scored.decision,
            )
        facts = self._facts(fit, cut, ci_by, other.dataset)
        return Outcome(run, evaluated, {EVAL: scored}, facts)

    def _scored(self, fit: Fit, matrix: Matrix, rows: Rows, *, own: bool = True) -> Scored:
        p, decision = fit.scores(matrix, rows, own=own)
        truth = matrix.facts[self.target][rows]
        return Scored(matrix.ids[rows], p, self.order, decision, truth)

    @property
    def _partial(self) -> bool:
        # A rare domain may be absent from a test set; a label that is leaves nothing to measure.
        return self.target == "domain"

    def _facts(self, fit: Fit, cut: float, ci_by: str, eval_dataset: str | None) -> dict[str, Any]:
        return {
            "state": fit.state,
            "embeddings_version": fit.version,
            "embedded_at": self.embedded_at,
            "seconds": fit.seconds,
            "ci_by": ci_by,
            "threshold": cut if len(self.order) == 2 else None,
            "eval_dataset": eval_dataset,
            "eval_digest": None
            if eval_dataset is None or self.other is None
            else self.other.digest,
            "chosen": json.dumps(fit.chosen) if fit.chosen else None,
        }

    def _learnt(self, run: Run, fit: Fit, cut: float, dataset: str) -> dict[str, Any] | None:
        probe = fit.probe
        if not hasattr(probe, "coef_") or "correct" in run.params:
            return None  # what was learnt of corrected vectors says nothing of others
        coef = np.atleast_2d(probe.coef_)
        return {
            "dataset": dataset,
            "model": run.model,
            "views": self.views,
            "labels": self.order,
            "coef": coef.ravel(),
            "intercept": np.ravel(probe.intercept_),
            "threshold": cut,
            "created_at": now(),
        }


def _groups(run: Run, matrix: Matrix, rows: NDArray[np.int64]) -> tuple[NDArray[Any], str]:
    column = left_out_by(run.split.row.group_by)
    return matrix.facts[column][rows], column.removesuffix("_id")
