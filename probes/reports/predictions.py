"""Predictions of a report's runs, summed up by DuckDB: bins, mistakes, disagreements.

Millions of predictions never become Python rows: what leaves the database is a few hundred.
"""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from embedstore.store.sql import fetch_rows, literal
from probes.reports.data import Facts
from probes.scores.metrics import N_BINS
from probes.scores.sides import Side
from probes.splits.spec import ManifestSpec


@dataclass(frozen=True)
class Scores:
    """The test predictions of one condition and fraction, in a table of the connection.

    positive: the label whose probability the scores are; None beyond two labels, where each
    annotation has a row per label and counts with the label that it was taken for.
    """

    facts: Facts
    condition: ManifestSpec
    fraction: float
    sides: Sequence[Side]
    positive: str | None
    table: str

    def bins(self) -> dict[Side, list[dict[str, Any]]]:
        """Return the bins that hold predictions, by side: bin, n, mean_score, share_positive.

        The bins of metrics.calibration_error: beyond two labels of the most probable label, and the
        share is that of the right ones.
        """
        each = (
            self.table
            if self.positive is not None
            else (
                "(select side, max(score) as score, "
                f"arg_max(is_positive, score) as is_positive from {self.table} "
                "group by run_id, side, annotation_id)"
            )
        )
        rows = fetch_rows(
            self.facts.con,
            f"select side, least(floor(score * {N_BINS}), {N_BINS - 1})::int as bin, "
            "count(*) as n, avg(score) as mean_score, avg(is_positive::int) as share_positive "
            f"from {each} group by all order by all",
        )
        return {
            e: [{k: v for k, v in r.items() if k != "side"} for r in rows if r["side"] == n]
            for n, e in enumerate(self.sides)
        }

    @functools.cached_property
    def _means(self) -> str:
        """The name of a table of mean scores over folds by side and annotation.

        Beyond two labels score is that of the annotation's own label, said and said_score are of
        the label with the highest.
        """
        name = f"{self.table}_means"
        by_label = (
            "select side, annotation_id, label, is_positive, avg(score) as score, "
            f"count(*) as n_folds from {self.table} group by all"
        )
        both = (
            by_label
            if self.positive is not None
            else (
                "select side, annotation_id, max(score) filter (is_positive) as score, "
                "max(n_folds) as n_folds, arg_max(label, score) as said, max(score) as said_score, "
                f"arg_max(is_positive, score) as is_right from ({by_label}) group by 1, 2"
            )
        )
        self.facts.con.execute(f"create temp table {name} as {both}")
        return name

    def mistakes(self, n: int) -> dict[Side, dict[str, list[dict[str, Any]]]]:
        """Return each side's n highest scores of negatives and n lowest of positives.

        Keys false_positive, false_negative; beyond two labels `wrong` alone: the annotations that
        were most confidently taken for another label (said). An annotation that several folds test
        counts once, with its mean score.
        """
        if self.positive is None:
            rows = fetch_rows(
                self.facts.con,
                f"select m.side, m.annotation_id, m.said, m.said_score as score, {_ABOUT} from "
                "(select *, row_number() over (partition by side order by said_score desc, "
                f"annotation_id) as rank from {self._means} where not is_right) m join annotations "
                f"a using (annotation_id) where rank <= {n} order by side, rank",
            )
            return {
                e: {"wrong": [r for r in rows if r["side"] == k]} for k, e in enumerate(self.sides)
            }
        wrong: dict[Side, dict[str, list[dict[str, Any]]]] = {e: {} for e in self.sides}
        for kind, positive, order in (
            ("false_positive", "false", "desc"),
            ("false_negative", "true", "asc"),
        ):
            rows = fetch_rows(
                self.facts.con,
                f"select m.side, m.annotation_id, m.score, m.n_folds, {_ABOUT} from (select *, "
                f"row_number() over (partition by side order by score {order}, annotation_id) "
                f"as rank from {self._means} where is_positive = {positive}) m "
                "join annotations a using (annotation_id) "
                f"where rank <= {n} order by side, rank",
            )
            for k, e in enumerate(self.sides):
                wrong[e][kind] = [
                    r
                    for r in rows
                    if r["side"] == k and (r["score"] >= 0.5) == (kind == "false_positive")
                ]
        return wrong

    def disagreements(self, sides: Sequence[Side], n: int) -> list[dict[str, Any]]:
        """Return the n annotations on which the mean scores of these sides lie furthest apart.

        Rows have the lowest and highest score, and which side gave it (low_side, high_side).
        """
        numbers = ", ".join(str(self.sides.index(e)) for e in sides)
        return fetch_rows(
            self.facts.con,
            f"select m.*, {_ABOUT} from (select annotation_id, min(score) as low, "
            "max(score) as high, arg_min(side, score) as low_side, "
            f"arg_max(side, score) as high_side from {self._means} where side in ({numbers}) "
            "group by 1 having count(*) > 1 order by high - low desc, annotation_id "
            f"limit {n}) m join annotations a using (annotation_id) "
            "order by m.high - m.low desc, m.annotation_id",
        )

    def against(self, probes: Sequence[Side], trained: Side, n: int) -> list[dict[str, Any]]:
        """Return the n annotations on which the probes' mean lies furthest from a trained score."""
        numbers = ", ".join(str(self.sides.index(e)) for e in probes)
        trained_number = self.sides.index(trained)
        return fetch_rows(
            self.facts.con,
            f"select m.*, {_ABOUT} from (select annotation_id, avg(score) filter (side in "
            f"({numbers})) as probes, max(score) filter (side = {trained_number}) as trained from "
            f"{self._means} group by 1 having probes is not null and trained is not null "
            f"order by abs(probes - trained) desc, annotation_id limit {n}) m "
            "join annotations a using (annotation_id) "
            "order by abs(m.probes - m.trained) desc, m.annotation_id",
        )


_ABOUT = "a.label, a.domain, a.slide, a.kind"


def scores_of(facts: Facts) -> list[Scores]:
    """Return the scores of each dataset that has any: of its main condition's largest fraction."""
    scores: list[Scores] = []
    for d in facts.datasets:
        main = _main(facts, d.dataset)
        if main is not None:
            scores.append(_load(facts, *main, f"_scores_{len(scores)}"))
    return scores


def _main(facts: Facts, dataset: str) -> tuple[ManifestSpec, float] | None:
    """Return the condition and fraction that most sides share, the paper's way among equals."""
    counts: Counter[tuple[ManifestSpec, float]] = Counter()
    order = facts.conditions(dataset, by_domain=False)
    order = order or facts.conditions(dataset, by_domain=True)
    for c in order:
        each = {(Side.of(r), r.fraction) for r in facts.rows(c, "auroc")}
        counts.update((c, fraction) for _, fraction in each)
    if not counts:
        return None
    return max(counts, key=lambda k: (counts[k], k[1], -order.index(k[0])))


def _load(facts: Facts, c: ManifestSpec, fraction: float, table: str) -> Scores:
    rows = [r for r in facts.rows(c, "auroc") if r.fraction == fraction]
    sides = [e for e in facts.sides if e in {Side.of(r) for r in rows}]
    runs = {r.run_id: sides.index(Side.of(r)) for r in rows}
    facts.con.register(
        f"{table}_runs",
        pa.table(
            {
                "run_id": pa.array(list(runs), pa.string()),
                "side": pa.array(list(runs.values()), pa.int32()),
            }
        ),
    )
    wanted = ", ".join(literal(r) for r in runs)
    # Of two labels the positive one alone is recorded.
    labels = fetch_rows(
        facts.con,
        f"select distinct label from _predictions where role = 'test' and run_id in ({wanted})",
    )
    positive = labels[0]["label"] if len(labels) == 1 else None
    more = "" if positive is not None else "r.run_id, "
    facts.con.execute(
        f"create temp table {table} as select {more}r.side, p.annotation_id, p.label, "
        "p.score, p.truth = p.label as is_positive from (select run_id, label, "
        "unnest(annotation_id) as annotation_id, unnest(truth) as truth, unnest(probability) as "
        f"score from _predictions where role = 'test' and run_id in ({wanted})) p "
        f"join {table}_runs r using (run_id)"
    )
    return Scores(facts, c, fraction, sides, positive, table)
