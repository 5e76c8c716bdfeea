"""Test sets of recorded runs, read back from their stored scores."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.store import Store
from embedstore.store.sql import connect, fetch, fetch_rows
from probes.scores.evaluate import ALL, left_out_by
from probes.scores.joint import Test
from probes.scores.metrics import Floats
from probes.scores.recorded import ResultRow

_SCORES = """
select p.run_id, p.truth = p.label as hit, p.score, p.decision, a.domain, a.case_id,
    coalesce(a.source_slide, a.slide) as slide
from predictions p join annotations a using (annotation_id)
where p.run_id = $run and p.dataset = $dataset and p.role in ('test', 'eval')
order by annotation_id
"""
_PREVALENCE = """
select avg((a.label = (select any_value(label) from predictions where run_id = $run))::int) as share
from manifests m join annotations a using (annotation_id)
where m.manifest_id = $manifest and m.fold = $fold and m.fraction = $fraction
    and m.train_domain is not distinct from $domain and m.role = 'train'
"""


def tests_of(store: Store, results: Sequence[ResultRow]) -> tuple[list[Test], list[str]]:
    """Return a test set for each run and eval domain of these results, and the run of each.

    Probabilities are those of a probe that learnt from as many of each label: the share of the
    positive label in train is taken out of the odds.
    """
    con, tests, runs = connect(store), [], []
    by_run: dict[str, list[ResultRow]] = defaultdict(list)
    for r in results:
        if r.metric == "auroc" and (r.eval_dataset is None or _is_whole(r)):
            by_run[r.run_id].append(r)
    for run_id, of_run in by_run.items():
        r = of_run[0]
        table = fetch(con, _SCORES, {"run": run_id, "dataset": r.eval_dataset or r.dataset})
        at = {
            "run": run_id,
            "manifest": r.manifest_id,
            "fold": r.fold,
            "fraction": r.fraction,
            "domain": r.train_domain,
        }
        share = float(fetch_rows(con, _PREVALENCE, at)[0]["share"])
        hit = np.array(table["hit"].to_pylist(), dtype=np.intp)
        rank = np.asarray(table["decision"].to_numpy(), dtype=np.float64)
        whole = Test(
            hit,
            alike(np.asarray(table["score"].to_numpy(), dtype=np.float64), share),
            table[left_out_by(r.group_by)].to_pylist(),
            rank=np.column_stack((-rank, rank)),
        )
        domains = np.array(table["domain"].to_pylist())
        for one in of_run:
            tests.append(whole if _is_whole(one) else _only(whole, domains == one.eval_domain))
            runs.append(run_id)
    return tests, runs


def _is_whole(r: ResultRow) -> bool:
    return r.eval_domain == ALL


def _only(test: Test, kept: Any) -> Test:
    assert test.rank is not None
    groups = [g for g, k in zip(test.groups, kept, strict=True) if k]
    return replace(test, y=test.y[kept], p=test.p[kept], groups=groups, rank=test.rank[kept])


def alike(score: Floats, share: float) -> Floats:
    """Return probabilities (n, 2) as they were if both labels were as common as each other.

    score (n,): the positive label's, of a probe that learnt where its share was `share`.
    """
    odds = score * (1 - share)
    return np.column_stack(((1 - score) * share, odds)) / (odds + (1 - score) * share)[:, None]
