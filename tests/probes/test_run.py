"""`probes run`: planted answers are found, each run is recorded once, on one test set for all."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.layout import model_table
from probes.methods.linear import UniProbe
from probes.runs import RunOptions, run
from probes.scores.metrics import METRICS
from probes.scores.results import from_null, summarise
from probes.slices import Matrix
from probes.splits.candidates import candidates
from probes.splits.manifests import ensure_splits
from probes.splits.spec import Asked, ManifestSpec
from tests.making.stores import plant, query


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    rng = np.random.default_rng(3)
    rows = ["slide,x,y,label,domain,case"]
    for k in range(600):
        s = int(rng.integers(0, 20))
        label = ("mitotic figure", "hard negative")[int(rng.random() < 0.6)]
        rows.append(f"s{s:02d}.tiff,{k},{k % 50},{label},dom{s % 3},c{s // 2}")
    folder = tmp_path_factory.mktemp("planted")
    (folder / "a.csv").write_text("\n".join(rows))
    uri = str(folder / "s")
    add(uri, "d", folder / "a.csv", AddOptions())
    store = Store.open(uri)
    plant(store, "strong", 240, 4.0)
    plant(store, "weak:net", 160, 1.5)
    plant(store, "noise", 8, 0.0, weights="random")
    return store


def test_planted_signals_are_ranked_and_recorded(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(splits=Asked(fractions=[0.1, 1.0])))
    assert (report.n_new, report.n_recorded) == (3 * 5 * 2, 0)
    mean = {(s.model, s.fraction): s.mean for s in summarise(report.rows)}
    assert mean["strong", 1.0] > 0.98
    assert 0.65 < mean["weak:net", 1.0] < 0.85
    assert 0.4 < mean["noise", 1.0] < 0.6
    assert mean["strong", 0.1] < mean["strong", 1.0]
    assert {r.metric for r in report.rows} == set(METRICS)
    (row,) = query(
        planted,
        "select count(*) as n, count(distinct (run_id, metric, eval_domain)) as d "
        "from results where scheme = 'monte-carlo' and where_sql is null",
    )
    assert row == {"n": 30 * len(METRICS), "d": 30 * len(METRICS)}


def test_again_nothing_runs_and_force_replaces(planted: Store) -> None:
    spec, options = (
        ManifestSpec("d", seed=5),
        RunOptions(splits=Asked(folds=[0, 1]), models=["strong"]),
    )
    first = run(planted, spec, options)
    again = run(planted, spec, options)
    assert (again.n_new, again.n_recorded) == (0, 2)
    assert again.rows == first.rows
    forced = run(
        planted, spec, RunOptions(splits=Asked(folds=[0, 1]), models=["strong"], force=True)
    )
    assert (forced.n_new, forced.n_recorded) == (2, 0)
    assert [(r.run_id, r.value) for r in forced.rows] == [(r.run_id, r.value) for r in first.rows]
    assert [r.created_at for r in forced.rows] != [r.created_at for r in first.rows]
    sql = f"select count(*) as n from predictions where run_id = '{first.rows[0].run_id}'"
    assert query(planted, sql) == [{"n": 120 + 96}]


def test_stored_predictions_give_the_stored_auroc(planted: Store) -> None:
    report = run(
        planted, ManifestSpec("d"), RunOptions(splits=Asked(folds=[2]), models=["weak:net"])
    )
    (auroc,) = [r for r in report.rows if r.metric == "auroc"]
    rows = query(
        planted,
        "select a.label, p.label as of, p.score, p.role, m.role as planned "
        f"from predictions p join annotations a using (annotation_id) join manifests m "
        f"on m.annotation_id = p.annotation_id and m.manifest_id = '{report.manifest_id}' "
        f"and m.fold = 2 and m.fraction = 1 where run_id = '{auroc.run_id}'",
    )
    assert {r["of"] for r in rows} == {"mitotic figure"}
    assert all(r["role"] == r["planned"] for r in rows)
    test = [r for r in rows if r["role"] == "test"]
    assert len(test) == auroc.n_test == 120
    y = [r["label"] == "mitotic figure" for r in test]
    assert sum(y) == auroc.n_pos
    assert roc_auc_score(y, [r["score"] for r in test]) == pytest.approx(auroc.value, abs=1e-6)


def test_a_run_can_be_repeated_by_hand_from_what_is_stored(planted: Store) -> None:
    report = run(
        planted,
        ManifestSpec("d"),
        RunOptions(splits=Asked(folds=[1], fractions=[0.1]), models=["strong"]),
    )
    (auroc,) = [r for r in report.rows if r.metric == "auroc"]
    rows = query(
        planted,
        f"select m.role, a.label, e.vector from manifests m join embeddings e using "
        f"(annotation_id) join annotations a using (annotation_id) where e.model = 'strong' "
        f"and m.manifest_id = '{auroc.manifest_id}' and m.fold = 1 and m.fraction = 0.1",
    )
    X = {r: np.array([x["vector"] for x in rows if x["role"] == r]) for r in ("train", "test")}
    y = {
        r: [x["label"] == "mitotic figure" for x in rows if x["role"] == r]
        for r in ("train", "test")
    }
    probe = UniProbe(**json.loads(auroc.params)).fit(X["train"], y["train"])
    p = probe.predict_proba(X["test"])[:, 1]
    assert roc_auc_score(y["test"], p) == pytest.approx(auroc.value, abs=1e-6)
    assert auroc.embeddings_version == planted.stats(model_table("strong"))["version"]
    assert "scikit-learn" in json.loads(auroc.software or "{}")


def test_all_models_and_fractions_share_a_folds_test_set(planted: Store) -> None:
    run(planted, ManifestSpec("d"), RunOptions(splits=Asked(fractions=[0.1, 0.5, 1.0])))
    rows = query(
        planted,
        "select fold, count(distinct ids) as n from (select r.fold, r.run_id, "
        "list_sort(list(p.annotation_id)) as ids from (select distinct run_id, fold from results "
        "where scheme = 'monte-carlo' and group_by = 'annotation' and seed = 42 and where_sql is null) r "
        "join predictions p using (run_id) where p.role = 'test' group by all) group by fold",
    )
    assert rows
    assert all(r["n"] == 1 for r in rows)


def test_cross_domain_has_a_row_per_eval_domain(planted: Store) -> None:
    spec = ManifestSpec("d", scheme="cross-domain")
    report = run(
        planted,
        spec,
        RunOptions(splits=Asked(train_domains=["dom0", "dom2"]), models=["strong", "noise"]),
    )
    auroc = [r for r in report.rows if r.metric == "auroc"]
    assert len(auroc) == 2 * 2 * 5 * 3
    assert {(r.train_domain, r.eval_domain) for r in auroc} == {
        (a, b) for a in ("dom0", "dom2") for b in ("dom0", "dom1", "dom2")
    }
    n = {
        r["domain"]: r["n"]
        for r in query(planted, "select domain, count(*) as n from annotations group by 1")
    }
    assert all(r.n_test == n[r.eval_domain] for r in auroc if r.eval_domain != r.train_domain)
    assert all(r.n_test == n[r.eval_domain] // 5 for r in auroc if r.eval_domain == r.train_domain)
    lines = {(s.model, s.where): s for s in summarise(report.rows)}
    mine = [r for r in auroc if r.model == "strong" and r.eval_domain != r.train_domain]
    by_run = [
        float(np.mean([from_null(r.value) for r in mine if r.run_id == i]))
        for i in {r.run_id for r in mine}
    ]
    assert lines["strong", "out of domain"].mean == pytest.approx(np.mean(by_run))
    assert lines["strong", "out of domain"].sd == pytest.approx(np.std(by_run, ddof=1))
    assert lines["strong", "in domain"].n_runs == 10


def test_slices_are_the_manifests_rows_in_order(planted: Store) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d")), folds=[4], fractions=[0.3]
    )
    matrix = Matrix(planted, "strong", "d")
    rows = matrix.rows(split)
    stored = {r["annotation_id"]: r for r in query(planted, "select * from strong")}
    for role in ("train", "val", "test"):
        ids = getattr(split, role)
        assert matrix.ids[rows[role]].tolist() == ids
        expected = np.array([stored[i]["vector"] for i in ids], dtype=np.float32)
        np.testing.assert_array_equal(matrix.vectors(rows[role]), expected)
        assert matrix.facts["label"][rows[role]].tolist() == [stored[i]["label"] for i in ids]


def test_a_collapsed_probe_is_recorded_as_such(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(models=["noise"]))
    collapsed = [r for r in report.rows if r.state == "collapsed" and r.metric == "auroc"]
    assert collapsed
    assert all(r.value == 0.5 for r in collapsed)
    assert all(r.weights == "random" for r in report.rows)
    assert sum(s.n_failed for s in summarise(report.rows)) == len(collapsed)


def test_knn_with_too_few_rows_is_recorded_as_collapsed(planted: Store) -> None:
    options = RunOptions(splits=Asked(fractions=(0.03, 1.0)), models=["strong"], methods=("knn",))
    rows = [r for r in run(planted, ManifestSpec("d"), options).rows if r.metric == "auroc"]
    assert {(r.n_train <= 20, r.state) for r in rows} == {(True, "collapsed"), (False, "ok")}
    assert all(r.value == 0.5 for r in rows if r.state == "collapsed")


def test_what_is_missing_is_named_and_nothing_recorded(planted: Store, tmp_path: Path) -> None:
    for models, said in (
        (["gpt"], "no embeddings of gpt for 'd'; there: noise, strong, weak:net"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            run(planted, ManifestSpec("d"), RunOptions(models=models))
    with pytest.raises(EmbedstoreError, match="unknown method svm; allowed: uni"):
        run(planted, ManifestSpec("d"), RunOptions(methods=["svm"]))
    (gone,) = query(planted, "select annotation_id from strong order by 1 limit 1")
    plant(planted, "partial", 160, 4.0)
    planted.delete(model_table("partial"), "annotation_id", [gone["annotation_id"]])
    before = query(planted, "select count(*) as n from results")
    with pytest.raises(
        EmbedstoreError, match=r"1 of 600 annotations .*embedstore ingest d --model partial"
    ):
        run(planted, ManifestSpec("d"), RunOptions(models=["partial"]))
    assert query(planted, "select count(*) as n from results") == before
    fine = ManifestSpec("d", where=f"annotation_id != '{gone['annotation_id']}'")
    assert run(planted, fine, RunOptions(models=["partial"])).n_new == 5


def test_no_embeddings_at_all(planted: Store, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("slide,x,y,label\na,1,1,mitosis\na,2,2,imposter\n")
    add(str(tmp_path / "s"), "e", tmp_path / "a.csv", AddOptions())
    with pytest.raises(EmbedstoreError, match="embedstore ingest e"):
        run(Store.open(str(tmp_path / "s")), ManifestSpec("e"), RunOptions())


def test_vectors_that_are_not_finite_are_refused(planted: Store) -> None:
    plant(planted, "broken", 4, 1.0)
    rows = query(planted, "select * from broken limit 1")
    rows[0]["vector"] = [float("inf")] * 4
    planted.merge(model_table("broken"), rows)
    with pytest.raises(EmbedstoreError, match="'broken' has embeddings that are not finite"):
        run(planted, ManifestSpec("d"), RunOptions(models=["broken"]))


def test_a_run_is_made_again_when_its_embeddings_were(planted: Store) -> None:
    """Same annotations, same model name, other vectors: the recorded score no longer stands."""
    plant(planted, "fresh", 200, 4.0)
    options = RunOptions(splits=Asked(folds=[0]), models=["fresh"])
    first = run(planted, ManifestSpec("d"), options)
    assert run(planted, ManifestSpec("d"), options).n_new == 0
    rows = query(planted, "select * from fresh")
    rng = np.random.default_rng(0)
    for r in rows:
        r["vector"] = rng.normal(size=200).tolist()
        r["embedded_at"] = datetime(2026, 1, 1)
    planted.merge(model_table("fresh"), rows)
    again = run(planted, ManifestSpec("d"), options)
    assert (again.n_new, again.n_recorded) == (1, 0)
    value = [
        next(from_null(r.value) for r in x.rows if r.metric == "auroc") for x in (first, again)
    ]
    assert value[0] > 0.95
    assert value[1] < 0.7
    assert [r.run_id for r in again.rows] == [r.run_id for r in first.rows]
