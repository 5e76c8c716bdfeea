"""The honesty gap: what a model loses from splits by annotation to slides, cases, new domains.

All levels are recorded runs on the manifests of `probes run`; nothing is fitted here that is not.
The same slides (or cases, where they are named) are left out of all splits at once, so that a
difference between splits, and a difference between models in it, has an interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.runs import RunOptions, run
from probes.scores.classical import holm, spearman
from probes.scores.joint import Joint, Test, joint, mean_of_folds
from probes.scores.metrics import Floats
from probes.scores.power import groups_needed
from probes.scores.recorded import ResultRow
from probes.scores.results import OUT, to_null, where_of
from probes.scores.scored_set import scored_set
from probes.splits.spec import ManifestSpec
from probes.studies.cells import SEED
from probes.studies.measures import Measure, bounds, record_measures

STUDY = "gap"
ANNOTATION, SLIDE, CASE, DOMAIN = "annotation", "slide", "case", "new domain"
LEVELS = (ANNOTATION, SLIDE, CASE, DOMAIN)
"""Splits from the most lenient to the hardest: what the test set shares with training, if all."""

OF_MODELS = "Bonett-Wright over models"
"""How the interval of a rank correlation comes about."""


def specs(dataset: str, levels: Sequence[str], seed: int) -> dict[str, ManifestSpec]:
    """Return the manifest of each level; by domain slides or cases stay on one side as well."""
    finest = CASE if CASE in levels else SLIDE
    of = {
        ANNOTATION: ManifestSpec(dataset, seed=seed),
        SLIDE: ManifestSpec(dataset, group_by="slide", seed=seed),
        CASE: ManifestSpec(dataset, group_by="case", seed=seed),
        DOMAIN: ManifestSpec(dataset, "leave-one-domain-out", group_by=finest, seed=seed),
    }
    return {level: of[level] for level in levels}


def there(store: Store, dataset: str) -> tuple[list[str], list[str]]:
    """Return the levels that a dataset's annotations allow, and why others are left out."""
    (n,) = fetch_rows(
        connect(store),
        "select count(*) as cells, count(distinct domain) as domains, "
        "count(distinct coalesce(source_slide, slide)) as slides, "
        "count(*) filter (case_id != coalesce(source_slide, slide)) as cases, "
        "count(distinct case_id) as n_cases "
        "from annotations where dataset = $dataset and status = 'ok'",
        {"dataset": dataset},
    )
    has = {
        ANNOTATION: True,
        SLIDE: 1 < n["slides"] < n["cells"],
        CASE: n["cases"] > 0 and n["n_cases"] > 1,
        DOMAIN: n["domains"] > 1,
    }
    why = {
        SLIDE: "there is one slide" if n["slides"] < 2 else "no two annotations share a slide",
        CASE: "no case is recorded (`add --case-from COLUMN` names them)",
        DOMAIN: "there is one domain (`add --domain-from COLUMN` names them)",
    }
    return [k for k in LEVELS if has[k]], [f"by {k}: {why[k]}" for k in why if not has[k]]


@dataclass(frozen=True)
class Scored:
    """A model's values on all test sets of all levels, and which of them each level's are."""

    model: str
    joint: Joint
    of: dict[str, slice]

    def mean(self, level: str) -> Callable[[Floats], Floats]:
        """Return what makes a level's mean over its test sets of values (F, B)."""
        return lambda each: mean_of_folds(each[self.of[level]])

    def drop(self, level: str) -> Callable[[Floats], Floats]:
        """Return what makes the loss from splits by annotation to a level."""
        return lambda each: self.mean(ANNOTATION)(each) - self.mean(level)(each)


def gap(
    store: Store,
    dataset: str,
    *,
    models: Sequence[str] | None = None,
    method: str = "uni",
    seed: int = SEED,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Measure], list[str]]:
    """Return the measures of every model and pair, recorded, and notes.

    metric auroc: a model's mean AUROC at a level (split; details: sd_folds, the spread over folds,
    other training and other test sets); auroc_drop: its loss from splits by
    annotation, or that less another model's (against); auroc_difference: the best model's AUROC at
    a level less another's; rank_correlation: of the models' AUROC by annotation with a level's.
    Runs that are missing are made. on_progress(done, total) counts hundredths of each level.
    """
    levels, notes = there(store, dataset)
    rows: dict[str, list[ResultRow]] = {}
    n_steps = 100 * (len(levels) + 1)
    for k, (level, spec) in enumerate(specs(dataset, levels, seed).items()):

        def tell(done: int, total: int, before: int = 100 * k) -> None:
            on_progress(before + 100 * done // max(total, 1), n_steps)

        try:
            report = run(store, spec, RunOptions(models, (method,)), tell)
        except EmbedstoreError as e:
            if level == ANNOTATION:
                raise
            notes.append(f"by {level}: {e}")
            continue
        rows[level] = [r for r in report.rows if r.metric == "auroc"]
    names = sorted({r.model for r in rows[ANNOTATION]})
    by = "case_id" if CASE in levels else "slide"
    con = connect(store)
    scored = []
    for n, model in enumerate(names):
        on_progress(n_steps - 100 + 100 * n // len(names), n_steps)
        scored.append(_scored(con, model, rows, by))
    on_progress(n_steps, n_steps)
    measures = _measures(scored, list(rows), by.removesuffix("_id"))
    record_measures(store, dataset, STUDY, measures)
    return measures, notes


def _scored(con: Any, model: str, rows: dict[str, list[ResultRow]], by: str) -> Scored:
    tests: list[Test] = []
    of = {}
    for level, of_level in rows.items():
        start = len(tests)
        mine = [r for r in of_level if r.model == model]
        for run_id in dict.fromkeys(r.run_id for r in mine):
            cells = [r for r in mine if r.run_id == run_id]
            at = scored_set(con, run_id, cells[0].threshold)
            for r in cells:
                if level != DOMAIN:
                    tests.append(at.whole(by))
                elif where_of(r) == OUT:
                    tests.append(at.at(np.flatnonzero(at.facts["domain"] == r.eval_domain), by))
        of[level] = slice(start, len(tests))
    return Scored(model, joint(tests), of)


def _measures(scored: Sequence[Scored], levels: Sequence[str], by: str) -> list[Measure]:
    measures = []
    means = {s.model: {k: _mean(s, k) for k in levels} for s in scored}
    hardest = levels[-1]
    best = max(scored, key=lambda s: (np.nan_to_num(means[s.model][hardest], nan=-1.0), s.model))
    for s in scored:
        n_groups = s.joint.blocks.n_groups
        for level in levels:
            n = _n_test(s, level)
            same: dict[str, Any] = {"ci_by": by, "split": level, "n": n, "n_groups": n_groups}
            of = bounds(s.joint.share(s.mean(level)))
            of["details"] = {"sd_folds": _spread(s.joint.values[s.of[level]])}
            measures.append(Measure("auroc", model=s.model, **same, **of))
            if level != ANNOTATION:
                drop = s.joint.contrast(s.drop(level), 1.0)
                measures.append(Measure("auroc_drop", model=s.model, **same, **bounds(drop)))
    others = [s for s in scored if s is not best]
    for level in levels:
        both = [(s, best.joint.beside(s.joint)) for s in others]
        found = [
            (
                "auroc_difference",
                [(s, j.contrast(_less(best.mean(level), s.mean(level)), 1.0)) for s, j in both],
            )
        ]
        if level != ANNOTATION:
            found.append(
                (
                    "auroc_drop",
                    [(s, j.contrast(_less(best.drop(level), s.drop(level)), 2.0)) for s, j in both],
                )
            )
        for metric, each in found:
            corrected = holm([c.p_value for _, c in each])
            for (s, c), p in zip(each, corrected, strict=True):
                n_groups, of = s.joint.blocks.n_groups, bounds(c)
                of["details"] |= {"groups_needed": groups_needed(c.difference, c.error, n_groups)}
                measures.append(
                    Measure(
                        metric,
                        model=best.model,
                        against=s.model,
                        ci_by=by,
                        split=level,
                        n=_n_test(s, level),
                        n_groups=n_groups,
                        p_holm=to_null(p),
                        **of,
                    )
                )
        if level != ANNOTATION and len(scored) > 1:
            of_level = [means[s.model][level] for s in scored]
            r = spearman([means[s.model][ANNOTATION] for s in scored], of_level)
            measures.append(
                Measure("rank_correlation", split=level, n=len(scored), **bounds(r, OF_MODELS))
            )
    return measures


def _spread(values: Floats) -> float | None:
    """Return the SD of what is a number, None of fewer than two."""
    finite = values[np.isfinite(values)]
    return float(finite.std(ddof=1)) if len(finite) > 1 else None


def _less(
    a: Callable[[Floats], Floats], b: Callable[[Floats], Floats]
) -> Callable[[Floats], Floats]:
    """Return what makes a's value less b's, of values of both, one above the other."""
    return lambda each: a(each[: len(each) // 2]) - b(each[len(each) // 2 :])


def _mean(s: Scored, level: str) -> float:
    return float(s.mean(level)(s.joint.values[:, None])[0])


def _n_test(s: Scored, level: str) -> int:
    """Return how many annotations a test set of a level holds, as a mean."""
    return round(float(np.mean(s.joint.sizes[s.of[level]])))
