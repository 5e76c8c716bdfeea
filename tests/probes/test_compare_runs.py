"""`probes compare` on stored runs: the paired tests by hand, by domain, and what it refuses."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.joint import Fold, paired
from probes.scores.sides import Side
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import call_command
from tests.making.stores import query


def delong_by_hand(y: Any, a: Any, b: Any) -> Any:
    """The two-sided p of DeLong et al. (1988), from the placements of every pair."""
    pairs = [np.sign(s[y == 1][:, None] - s[y == 0]) / 2 + 0.5 for s in (a, b)]
    of_positives, of_negatives = (pairs[0].mean(k) - pairs[1].mean(k) for k in (1, 0))
    variance = sum(v.var(ddof=1) / len(v) for v in (of_positives, of_negatives))
    return 2 * norm.sf(abs(of_positives.mean()) / np.sqrt(variance))


def scores_of_both(store: Store) -> list[dict[str, Any]]:
    """Labels and both models' scores of the test rows of fold 2, on all training rows."""
    return query(
        store,
        "select a.label = 'mitotic figure' as y, x.score as a, z.score as b, a.slide from "
        "predictions x join predictions z using (annotation_id, role) join annotations a using (annotation_id) "
        "where x.role = 'test' and x.run_id = (select distinct run_id from results where model = 'strong' and fold = 2 "
        "and fraction = 1 and scheme = 'monte-carlo' and group_by = 'annotation' and target = 'label' and method = 'uni' "
        "and eval_dataset is null and params not like '%views%') and z.run_id = (select distinct run_id from results "
        "where model = 'weak' and fold = 2 and fraction = 1 and scheme = 'monte-carlo' and group_by = 'annotation' and "
        "target = 'label' and method = 'uni' and eval_dataset is null) order by annotation_id",
    )


def mean_aurocs(store: Store) -> dict[tuple[str, float], float]:
    """The mean over folds by model and fraction, of runs without views on their own dataset."""
    return {
        (r["model"], r["fraction"]): r["m"]
        for r in query(
            store,
            "select model, fraction, avg(value) as m from results where metric = 'auroc' and dataset = 'd' and "
            "scheme = 'monte-carlo' and group_by = 'annotation' and target = 'label' and method = 'uni' and "
            "eval_dataset is null and params not like '%views%' group by 1, 2",
        )
    }


def test_compare_is_the_paired_tests_on_stored_predictions(planted: Store) -> None:
    run(planted, ManifestSpec("d"), RunOptions(splits=Asked(fractions=[0.5, 1.0])))
    sides = Side.parse("uni:strong"), Side.parse("uni:weak")
    rows, _ = compare(planted, ManifestSpec("d"), sides[0], [sides[1]], CompareOptions())
    assert {(r["fraction"], r["fold"]) for r in rows} == {
        (f, k) for f in (0.5, 1.0) for k in (None, 0, 1, 2, 3, 4)
    }
    whole = {r["fraction"]: r for r in rows if r["fold"] is None}
    assert whole[1.0]["n_folds"] == 5
    means = mean_aurocs(planted)
    for f, r in whole.items():
        assert r["difference"] == pytest.approx(means["strong", f] - means["weak", f], abs=1e-6)
        assert r["ci_low"] < r["difference"] < r["ci_high"]
    # Holm by hand over the two rows.
    p = {f: r["p_value"] for f, r in whole.items()}
    low, high = sorted(p, key=p.__getitem__)
    assert whole[low]["p_holm"] == pytest.approx(min(1, 2 * p[low]))
    assert whole[high]["p_holm"] == pytest.approx(min(1, max(2 * p[low], p[high])))
    assert all(r["p_holm"] is None for r in rows if r["fold"] is not None)
    # One fold by hand.
    (one,) = [r for r in rows if r["fraction"] == 1 and r["fold"] == 2]
    scores = scores_of_both(planted)
    y = np.array([int(r["y"]) for r in scores])
    a, b = (np.array([r[k] for r in scores]) for k in "ab")
    assert one["difference"] == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b), abs=1e-9)
    assert one["n_test"] == len(y) == 120
    of_a, of_b = (np.column_stack((1 - s, s)) for s in (a, b))
    again = paired([Fold(y, of_a, of_b, [r["slide"] for r in scores])])
    assert (one["ci_low"], one["ci_high"], one["p_value"]) == pytest.approx(
        (again.low, again.high, again.p_value)
    )
    assert one["p_delong"] == pytest.approx(delong_by_hand(y, a, b), rel=1e-9)


def test_compare_of_views_with_the_plain_and_as_a_command(planted: Store) -> None:
    run(planted, ManifestSpec("d"), RunOptions(splits=Asked(fractions=[0.5, 1.0])))
    run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[0]), models=["strong"], views="d4"),
    )
    rows, notes = compare(
        planted,
        ManifestSpec("d"),
        Side.parse("uni+d4:strong"),
        [Side.parse("uni:strong")],
        CompareOptions(),
    )
    assert [(r["a"], r["b"], r["n_folds"]) for r in rows if r["fraction"] == 1] == [
        ("uni+d4:strong", "uni:strong", 1)
    ]
    assert "have no partner" in notes[0]
    shown = call_command(
        *(
            f"probes compare d --a uni:strong --b uni:weak --fraction 1 --store {planted.uri}"
        ).split()
    )
    assert shown.code == 0, shown.err
    assert "p_holm" in shown.out


def test_compare_by_domain_and_what_it_refuses(planted: Store) -> None:
    spec = ManifestSpec("d", scheme="cross-domain")
    run(planted, spec, RunOptions(splits=Asked(train_domains=["dom0"], folds=[0, 1])))
    options = CompareOptions()
    a, b = Side.parse("uni:strong"), Side.parse("uni:weak")
    rows, _ = compare(planted, spec, a, [b], options)
    cells = [r for r in rows if r["train_domain"] is not None]
    assert {r["eval_domain"] for r in cells} == {"dom0", "dom1", "dom2"}
    assert {r["train_domain"] for r in cells} == {"dom0"}
    for sides, said in (
        ((a, Side.parse("uni:none")), "no run of uni:none on 'd'.*there: "),
        ((a, Side.parse("knn:strong")), "no run of knn:strong"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            compare(planted, spec, sides[0], [sides[1]], options)
    with pytest.raises(EmbedstoreError, match="METHOD:MODEL"):
        Side.parse("strong")
    with pytest.raises(EmbedstoreError, match="unknown metric 'auc'"):
        compare(planted, ManifestSpec("d"), a, [b], CompareOptions(metric="auc"))
