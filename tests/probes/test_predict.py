"""`probes predict`: stored predictions repeated, other datasets scored, views averaged."""

import json
import shlex
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions, run
from probes.runs.predict import predict
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.scores import auroc
from tests.making.stores import query


def test_another_dataset_is_scored_with_the_same_probe(planted: Store) -> None:
    options = RunOptions(splits=Asked(folds=[0]), models=["strong"], eval_dataset="e")
    plain = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0]), models=["strong"]))
    report = run(planted, ManifestSpec("d"), options)
    assert report.n_new == 1
    assert run(planted, ManifestSpec("d"), options).n_new == 0
    rows = auroc(report.rows)
    assert {r.eval_domain for r in rows} == {"all", "dom0", "dom1", "dom2"}
    assert {r.eval_dataset for r in rows} == {"e"}
    run_id = auroc(plain.rows)[0].run_id
    assert {r.run_id for r in rows} == {run_id}
    table = predict(planted, run_id, "e").to_pylist()
    truth = {
        r["annotation_id"]: r["label"]
        for r in query(planted, "select * from annotations where dataset = 'e'")
    }
    value = roc_auc_score(
        [truth[r["annotation_id"]] == "mitotic figure" for r in table], [r["score"] for r in table]
    )
    (whole,) = [r for r in rows if r.eval_domain == "all"]
    assert whole.value == pytest.approx(value, abs=1e-6)
    assert whole.n_test == 200
    # The plain results stand, and still count as recorded.
    assert (
        run(
            planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0]), models=["strong"])
        ).n_new
        == 0
    )


def test_predict_repeats_the_stored_predictions(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[3]), models=["weak"]))
    run_id = report.rows[0].run_id
    stored = {
        r["annotation_id"]: r["score"]
        for r in query(planted, f"select * from predictions where run_id = '{run_id}'")
    }
    found = {r["annotation_id"]: r["score"] for r in predict(planted, run_id, "d").to_pylist()}
    assert len(found) == 600
    assert all(found[i] == pytest.approx(s, abs=1e-6) for i, s in stored.items())
    done = call_command("probes", "predict", run_id, "d", "--format", "csv", "--store", planted.uri)
    assert done.out.splitlines()[0] == "annotation_id,label,score"
    assert len(done.out.splitlines()) == 601
    run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[3]), models=["weak"], methods=["knn"]),
    )
    (knn,) = query(planted, "select distinct run_id from results where method = 'knn'")
    with pytest.raises(EmbedstoreError, match=r"only linear probes \(uni, logreg\) do") as e:
        predict(planted, knn["run_id"], "e")
    # What the message says instead scores with that very run.
    instead = shlex.split(str(e.value).split("`")[1])
    done = call_command(*instead, "--json", "--store", planted.uri)
    assert {(r["run_id"], r["eval_dataset"]) for r in done.json()} == {(knn["run_id"], "e")}
    assert "1 fits done" in done.err
    with pytest.raises(EmbedstoreError, match="no run 'x'"):
        predict(planted, "x", "d")


def test_views_are_trained_on_and_averaged(planted: Store) -> None:
    plain = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0]), models=["strong"]))
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[0]), models=["strong"], views="d4"),
    )
    (row,), (usual,) = auroc(report.rows), auroc(plain.rows)
    assert json.loads(row.params)["views"] == "d4"
    assert row.run_id != usual.run_id
    assert (row.n_train, row.n_test) == (usual.n_train, usual.n_test)
    # By hand: fit on all eight views of train, mean probability over the eight of each test row.
    from probes.methods.linear import UniProbe

    (split,) = report.splits
    views = query(planted, 'select annotation_id, label, vector from "strong#views"')
    by_id: dict[str, list[Any]] = {}
    for v in views:
        by_id.setdefault(v["annotation_id"], []).append(v)
    X = np.array([v["vector"] for i in split.train for v in by_id[i]], dtype=np.float32)
    y = [v["label"] == "mitotic figure" for i in split.train for v in by_id[i]]
    probe = UniProbe().fit(X, y)
    p = [
        probe.predict_proba(np.array([v["vector"] for v in by_id[i]], np.float32))[:, 1].mean()
        for i in split.test
    ]
    truth = [by_id[i][0]["label"] == "mitotic figure" for i in split.test]
    assert row.value == pytest.approx(roc_auc_score(truth, p), abs=1e-4)
    with pytest.raises(EmbedstoreError, match=r"no views 'd4' of model 'weak'.*--views d4"):
        run(planted, ManifestSpec("d"), RunOptions(models=["weak"], views="d4"))
