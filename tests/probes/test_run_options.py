"""Options of `probes run`: targets, thresholds, intervals, other probes, the choice of C."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.scores.results import from_null
from probes.splits.candidates import candidates
from probes.splits.files import import_manifest
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.scores import auroc
from tests.making.slides import write_csv
from tests.making.stores import query


def test_the_domain_probe_learns_domains(planted: Store) -> None:
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[0]), models=["strong"], target="domain"),
    )
    (row,) = auroc(report.rows)
    assert (row.target, row.n_pos) == ("domain", None)
    assert 0.4 < from_null(row.value) < 0.6  # nothing of the domain is planted
    labels = query(planted, f"select distinct label from predictions where run_id = '{row.run_id}'")
    assert {r["label"] for r in labels} == {"dom0", "dom1", "dom2"}
    usual = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0]), models=["strong"]))
    assert auroc(usual.rows)[0].run_id != row.run_id


def test_thresholds_are_chosen_on_validation(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[1]), models=["strong"]))
    by = {r.metric: r for r in report.rows}
    rows = query(
        planted,
        "select p.role, p.score, a.label = 'mitotic figure' as y from predictions p "
        f"join annotations a using (annotation_id) where run_id = '{by['f1'].run_id}'",
    )
    val, test = ([r for r in rows if r["role"] == role] for role in ("val", "test"))
    cut = from_null(by["f1"].threshold)
    best = max(
        f1_score([r["y"] for r in val], [r["score"] >= c["score"] for r in val]) for c in val
    )
    chosen = f1_score([r["y"] for r in val], [r["score"] >= cut - 1e-6 for r in val])
    assert chosen == pytest.approx(best)
    taken = [r["score"] >= cut - 1e-6 for r in test]
    assert by["f1"].value == pytest.approx(f1_score([r["y"] for r in test], taken))
    assert by["sensitivity"].value == pytest.approx(recall_score([r["y"] for r in test], taken))


def test_intervals_resample_slides_or_cases(planted: Store) -> None:
    by_slide = run(
        planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0]), models=["strong"])
    )
    by_case = run(
        planted,
        ManifestSpec("d", group_by="case"),
        RunOptions(splits=Asked(folds=[0]), models=["strong"]),
    )
    for report, by in ((by_slide, "slide"), (by_case, "case")):
        for r in report.rows:
            assert r.ci_by == by
            if r.metric != "calibration_error":
                assert from_null(r.ci_low) <= from_null(r.value) <= from_null(r.ci_high)


@pytest.mark.parametrize("method", ["knn", "prototype"])
def test_other_probes_run(planted: Store, method: str) -> None:
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[0]), models=["strong"], methods=[method]),
    )
    (row,) = auroc(report.rows)
    assert row.method == method
    assert 0.65 < from_null(row.value) < 0.99


def test_logreg_chooses_c_on_validation_and_says_so(planted: Store) -> None:
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[0]), models=["weak"], methods=["logreg"]),
    )
    (row,) = auroc(report.rows)
    chosen = json.loads(row.chosen or "{}")
    assert chosen["by"] == "validation"
    # By hand: scikit-learn over the same grid, the C with the lowest validation log-loss.
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    from probes.methods.linear import C_GRID

    (split,) = report.splits
    stored = {r["annotation_id"]: r for r in query(planted, "select * from weak")}
    X, y = {}, {}
    for role in ("train", "val", "test"):
        ids = getattr(split, role)
        X[role] = np.array([stored[i]["vector"] for i in ids])
        y[role] = np.array([stored[i]["label"] == "mitotic figure" for i in ids])
    losses = {}
    for c in C_GRID:
        model = LogisticRegression(C=c, max_iter=5000, tol=1e-8).fit(X["train"], y["train"])
        losses[c] = log_loss(y["val"], model.predict_proba(X["val"]))
    assert chosen["C"] == pytest.approx(min(losses, key=losses.__getitem__), rel=1e-9)
    best = LogisticRegression(C=chosen["C"], max_iter=5000, tol=1e-8).fit(X["train"], y["train"])
    value = roc_auc_score(y["test"], best.predict_proba(X["test"])[:, 1])
    assert row.value == pytest.approx(value, abs=1e-4)


def test_validation_with_one_label_means_c_is_one(planted: Store, tmp_path: Path) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d")), folds=[0], fractions=[1.0]
    )
    labels = {r["annotation_id"]: r["label"] for r in query(planted, "select * from annotations")}
    val = [i for i in split.val if labels[i] == "mitotic figure"]
    rows = [
        {"annotation_id": i, "role": r}
        for r, ids in (("train", split.train), ("val", val), ("test", split.test))
        for i in ids
    ]
    _, manifest = import_manifest(planted, "d", write_csv(tmp_path / "m.csv", rows))
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(manifest=manifest), models=["weak"], methods=["logreg"]),
    )
    (row,) = auroc(report.rows)
    assert json.loads(row.chosen or "{}") == {"C": 1.0, "by": "default"}
    assert row.threshold == 0.5


def test_wrong_targets_and_views_are_told(planted: Store) -> None:
    for options, said in (
        (RunOptions(target="age"), "unknown --target 'age'; allowed: label, domain"),
        (RunOptions(views="c4"), "unknown --views 'c4'"),
        (RunOptions(eval_dataset="x"), "no dataset 'x'"),
        (RunOptions(splits=Asked(manifest="x")), "no manifest 'x'"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            run(planted, ManifestSpec("d"), options)
    done = call_command("probes", "run", "d", "--size-matched", "--store", planted.uri)
    assert done.code == 2
    assert "goes with --scheme cross-domain" in " ".join(done.err.replace("│", " ").split())
