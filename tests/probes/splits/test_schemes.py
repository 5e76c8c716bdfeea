"""Schemes in runs: one domain left out, trained alike, a domain that train lacks."""

import numpy as np
import pytest

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.scores.results import from_null, summarise
from probes.splits.candidates import candidates
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.scores import auroc
from tests.making.stores import query


def test_leave_one_domain_out(planted: Store) -> None:
    report = run(
        planted,
        ManifestSpec("d", scheme="leave-one-domain-out"),
        RunOptions(splits=Asked(folds=[0, 1]), models=["strong"]),
    )
    domains = {"dom0", "dom1", "dom2"}
    assert {(r.train_domain, r.eval_domain) for r in auroc(report.rows)} == {
        (f"not {a}", b) for a in domains for b in domains
    }
    for split in report.splits:
        left_out = (split.row.train_domain or "").removeprefix("not ")
        facts = {
            r["annotation_id"]: r["domain"]
            for r in query(planted, "select * from annotations where dataset = 'd'")
        }
        assert left_out not in {facts[i] for i in (*split.train, *split.val)}
        of_out = [i for i, d in facts.items() if d == left_out]
        assert set(of_out) <= set(split.test)
        assert len(split.test) - len(of_out) == (600 - len(of_out)) // 5
    lines = {s.where: s for s in summarise(report.rows)}
    out = [
        from_null(r.value) for r in auroc(report.rows) if r.train_domain == f"not {r.eval_domain}"
    ]
    assert lines["out of domain"].mean == pytest.approx(np.mean(out))
    assert lines["out of domain"].n_runs == 6


def test_size_matched_trains_all_domains_alike_and_tests_as_before(planted: Store) -> None:
    plain, _ = ensure_splits(
        planted,
        candidates(planted, ManifestSpec("d", scheme="cross-domain")),
        folds=[0],
        fractions=[1.0],
    )
    matched, _ = ensure_splits(
        planted,
        candidates(planted, ManifestSpec("d", scheme="cross-domain-size-matched")),
        folds=[0],
        fractions=[0.5, 1.0],
    )
    n = {s.row.train_domain: s.row.n_train + s.row.n_val for s in plain}
    assert len(set(n.values())) == 3
    whole = {s.row.train_domain: s for s in matched if s.row.fraction == 1}
    assert {s.row.n_train + s.row.n_val for s in whole.values()} == {min(n.values())}
    for s in plain:
        assert s.test == whole[s.row.train_domain].test
        assert set(whole[s.row.train_domain].train) <= {*s.train, *s.val}
    half = [s for s in matched if s.row.fraction == 0.5]
    assert {s.row.n_train + s.row.n_val for s in half} == {min(n.values()) // 2}


def test_a_domain_that_train_lacks_is_told(planted: Store) -> None:
    with pytest.raises(EmbedstoreError, match="2 of the 3 labels.*--fraction"):
        run(
            planted,
            ManifestSpec(
                "d",
                where="domain != 'dom2' or annotation_id = (select min(annotation_id) "
                "from annotations where domain = 'dom2')",
            ),
            RunOptions(splits=Asked(fractions=[0.05]), models=["strong"], target="domain"),
        )
