"""Beyond the paper's two experiments: other schemes, targets, datasets, views; compare; predict."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import f1_score, recall_score, roc_auc_score

from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.compare import CompareOptions, compare
from probes.predict import predict
from probes.run import RunOptions, run
from probes.scores.results import summarise
from probes.scores.sides import Side
from probes.scores.statistics import Fold, paired_bootstrap
from probes.splits.files import import_manifest, manifest_table, recorded_manifest
from probes.splits.manifests import candidates, ensure_splits
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import plant, plant_two, plant_views, query


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two datasets; two models and views."""
    store = plant_two(str(tmp_path_factory.mktemp("planted") / "s"), 600, 200)
    plant(store, "strong", 240, 2.5)
    plant(store, "weak", 160, 1.5)
    plant_views(store, "strong", 240)
    return store


def auroc(rows: Any, **where: Any) -> Any:
    return [r for r in rows if r["metric"] == "auroc" and all(r[k] == v for k, v in where.items())]


def test_leave_one_domain_out(planted: Store) -> None:
    report = run(
        planted,
        ManifestSpec("d", scheme="leave-one-domain-out"),
        RunOptions(models=["strong"], folds=[0, 1]),
    )
    domains = {"dom0", "dom1", "dom2"}
    assert {(r["train_domain"], r["eval_domain"]) for r in auroc(report.rows)} == {
        (f"not {a}", b) for a in domains for b in domains
    }
    for split in report.splits:
        out = split.row["train_domain"].removeprefix("not ")
        facts = {
            r["annotation_id"]: r["domain"]
            for r in query(planted, "select * from annotations where dataset = 'd'")
        }
        assert out not in {facts[i] for i in (*split.train, *split.val)}
        of_out = [i for i, d in facts.items() if d == out]
        assert set(of_out) <= set(split.test)
        assert len(split.test) - len(of_out) == (600 - len(of_out)) // 5
    lines = {s.where: s for s in summarise(report.rows)}
    out = [r["value"] for r in auroc(report.rows) if r["train_domain"] == f"not {r['eval_domain']}"]
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
    n = {s.row["train_domain"]: s.row["n_train"] + s.row["n_val"] for s in plain}
    assert len(set(n.values())) == 3
    whole = {s.row["train_domain"]: s for s in matched if s.row["fraction"] == 1}
    assert {s.row["n_train"] + s.row["n_val"] for s in whole.values()} == {min(n.values())}
    for s in plain:
        assert s.test == whole[s.row["train_domain"]].test
        assert set(whole[s.row["train_domain"]].train) <= {*s.train, *s.val}
    half = [s for s in matched if s.row["fraction"] == 0.5]
    assert {s.row["n_train"] + s.row["n_val"] for s in half} == {min(n.values()) // 2}


def test_the_domain_probe_learns_domains(planted: Store) -> None:
    report = run(
        planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0], target="domain")
    )
    (row,) = auroc(report.rows)
    assert (row["target"], row["n_pos"]) == ("domain", None)
    assert 0.4 < row["value"] < 0.6  # nothing of the domain is planted
    labels = query(
        planted, f"select distinct label from predictions where run_id = '{row['run_id']}'"
    )
    assert {r["label"] for r in labels} == {"dom0", "dom1", "dom2"}
    usual = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0]))
    assert auroc(usual.rows)[0]["run_id"] != row["run_id"]


def test_another_dataset_is_scored_with_the_same_probe(planted: Store) -> None:
    options = RunOptions(models=["strong"], folds=[0], eval_dataset="e")
    plain = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0]))
    report = run(planted, ManifestSpec("d"), options)
    assert report.n_new == 1
    assert run(planted, ManifestSpec("d"), options).n_new == 0
    rows = auroc(report.rows)
    assert {r["eval_domain"] for r in rows} == {"all", "dom0", "dom1", "dom2"}
    assert {r["eval_dataset"] for r in rows} == {"e"}
    run_id = auroc(plain.rows)[0]["run_id"]
    assert {r["run_id"] for r in rows} == {run_id}
    table = predict(planted, run_id, "e").to_pylist()
    truth = {
        r["annotation_id"]: r["label"]
        for r in query(planted, "select * from annotations where dataset = 'e'")
    }
    value = roc_auc_score(
        [truth[r["annotation_id"]] == "mitotic figure" for r in table], [r["score"] for r in table]
    )
    (whole,) = [r for r in rows if r["eval_domain"] == "all"]
    assert whole["value"] == pytest.approx(value, abs=1e-6)
    assert whole["n_test"] == 200
    # The plain results stand, and still count as recorded.
    assert run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0])).n_new == 0


def test_predict_repeats_the_stored_predictions(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(models=["weak"], folds=[3]))
    run_id = report.rows[0]["run_id"]
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
    run(planted, ManifestSpec("d"), RunOptions(models=["weak"], folds=[3], methods=["knn"]))
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
    plain = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0]))
    report = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0], views="d4"))
    (row,), (usual,) = auroc(report.rows), auroc(plain.rows)
    assert json.loads(row["params"])["views"] == "d4"
    assert row["run_id"] != usual["run_id"]
    assert (row["n_train"], row["n_test"]) == (usual["n_train"], usual["n_test"])
    # By hand: fit on all eight views of train, mean probability over the eight of each test row.
    from probes.methods.linear import UniProbe

    (split,) = report.splits
    views = query(planted, 'select annotation_id, label, vector from "strong#views"')
    by_id = {}
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
    assert row["value"] == pytest.approx(roc_auc_score(truth, p), abs=1e-4)
    with pytest.raises(EmbedstoreError, match=r"no views 'd4' of model 'weak'.*--views d4"):
        run(planted, ManifestSpec("d"), RunOptions(models=["weak"], views="d4"))


def test_thresholds_are_chosen_on_validation(planted: Store) -> None:
    report = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[1]))
    by = {r["metric"]: r for r in report.rows}
    rows = query(
        planted,
        "select p.role, p.score, a.label = 'mitotic figure' as y from predictions p "
        f"join annotations a using (annotation_id) where run_id = '{by['f1']['run_id']}'",
    )
    val, test = ([r for r in rows if r["role"] == role] for role in ("val", "test"))
    cut = by["f1"]["threshold"]
    best = max(
        f1_score([r["y"] for r in val], [r["score"] >= c["score"] for r in val]) for c in val
    )
    chosen = f1_score([r["y"] for r in val], [r["score"] >= cut - 1e-6 for r in val])
    assert chosen == pytest.approx(best)
    taken = [r["score"] >= cut - 1e-6 for r in test]
    assert by["f1"]["value"] == pytest.approx(f1_score([r["y"] for r in test], taken))
    assert by["sensitivity"]["value"] == pytest.approx(recall_score([r["y"] for r in test], taken))


def test_intervals_resample_slides_or_cases(planted: Store) -> None:
    by_slide = run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0]))
    by_case = run(
        planted, ManifestSpec("d", group_by="case"), RunOptions(models=["strong"], folds=[0])
    )
    for report, by in ((by_slide, "slide"), (by_case, "case")):
        for r in report.rows:
            assert r["ci_by"] == by
            if r["metric"] != "calibration_error":
                assert r["ci_low"] <= r["value"] <= r["ci_high"]


def delong_by_hand(y: Any, a: Any, b: Any) -> Any:
    """The two-sided p of DeLong et al. (1988), from the placements of every pair."""
    pairs = [np.sign(s[y == 1][:, None] - s[y == 0]) / 2 + 0.5 for s in (a, b)]
    of_positives, of_negatives = (pairs[0].mean(k) - pairs[1].mean(k) for k in (1, 0))
    variance = sum(v.var(ddof=1) / len(v) for v in (of_positives, of_negatives))
    return 2 * norm.sf(abs(of_positives.mean()) / np.sqrt(variance))


@pytest.mark.parametrize("method", ["knn", "prototype"])
def test_other_probes_run(planted: Store, method: str) -> None:
    report = run(
        planted, ManifestSpec("d"), RunOptions(models=["strong"], methods=[method], folds=[0])
    )
    (row,) = auroc(report.rows)
    assert row["method"] == method
    assert 0.65 < row["value"] < 0.99


def test_logreg_chooses_c_on_validation_and_says_so(planted: Store) -> None:
    report = run(
        planted, ManifestSpec("d"), RunOptions(models=["weak"], methods=["logreg"], folds=[0])
    )
    (row,) = auroc(report.rows)
    chosen = json.loads(row["chosen"])
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
    assert chosen["C"] == pytest.approx(min(losses, key=losses.get), rel=1e-9)
    best = LogisticRegression(C=chosen["C"], max_iter=5000, tol=1e-8).fit(X["train"], y["train"])
    value = roc_auc_score(y["test"], best.predict_proba(X["test"])[:, 1])
    assert row["value"] == pytest.approx(value, abs=1e-4)


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
        RunOptions(models=["weak"], methods=["logreg"], manifest=manifest),
    )
    (row,) = auroc(report.rows)
    assert json.loads(row["chosen"]) == {"C": 1.0, "by": "default"}
    assert row["threshold"] == 0.5


def test_a_domain_that_train_lacks_is_told(planted: Store) -> None:
    with pytest.raises(EmbedstoreError, match="2 of the 3 labels.*--fraction"):
        run(
            planted,
            ManifestSpec(
                "d",
                where="domain != 'dom2' or annotation_id = (select min(annotation_id) "
                "from annotations where domain = 'dom2')",
            ),
            RunOptions(models=["strong"], target="domain", fractions=[0.05]),
        )


def test_compare_is_the_paired_tests_on_stored_predictions(planted: Store) -> None:
    run(planted, ManifestSpec("d"), RunOptions(fractions=[0.5, 1.0]))
    sides = Side.parse("uni:strong"), Side.parse("uni:weak")
    rows, _ = compare(planted, "d", sides[0], [sides[1]], CompareOptions(n_resamples=200))
    assert {(r["fraction"], r["fold"]) for r in rows} == {
        (f, k) for f in (0.5, 1.0) for k in (None, 0, 1, 2, 3, 4)
    }
    whole = {r["fraction"]: r for r in rows if r["fold"] is None}
    assert whole[1.0]["n_folds"] == 5
    means = {
        (r["model"], r["fraction"]): r["m"]
        for r in query(
            planted,
            "select model, fraction, avg(value) as m from results where metric = 'auroc' and dataset = 'd' and "
            "scheme = 'monte-carlo' and group_by = 'annotation' and target = 'label' and method = 'uni' and "
            "eval_dataset is null and params not like '%views%' group by 1, 2",
        )
    }
    for f, r in whole.items():
        assert r["difference"] == pytest.approx(means["strong", f] - means["weak", f], abs=1e-6)
        assert r["ci_low"] < r["difference"] < r["ci_high"]
    # Holm by hand over the two rows.
    p = {f: r["p_value"] for f, r in whole.items()}
    low, high = sorted(p, key=p.get)
    assert whole[low]["p_holm"] == pytest.approx(min(1, 2 * p[low]))
    assert whole[high]["p_holm"] == pytest.approx(min(1, max(2 * p[low], p[high])))
    assert all(r["p_holm"] is None for r in rows if r["fold"] is not None)
    # One fold by hand.
    (one,) = [r for r in rows if r["fraction"] == 1 and r["fold"] == 2]
    scores = query(
        planted,
        "select a.label = 'mitotic figure' as y, x.score as a, z.score as b, a.slide from "
        "predictions x join predictions z using (annotation_id, role) join annotations a using (annotation_id) "
        "where x.role = 'test' and x.run_id = (select distinct run_id from results where model = 'strong' and fold = 2 "
        "and fraction = 1 and scheme = 'monte-carlo' and group_by = 'annotation' and target = 'label' and method = 'uni' "
        "and eval_dataset is null and params not like '%views%') and z.run_id = (select distinct run_id from results "
        "where model = 'weak' and fold = 2 and fraction = 1 and scheme = 'monte-carlo' and group_by = 'annotation' and "
        "target = 'label' and method = 'uni' and eval_dataset is null) order by annotation_id",
    )
    y = np.array([int(r["y"]) for r in scores])
    a, b = (np.array([r[k] for r in scores]) for k in "ab")
    assert one["difference"] == pytest.approx(roc_auc_score(y, a) - roc_auc_score(y, b), abs=1e-9)
    assert one["n_test"] == len(y) == 120
    stack = [np.column_stack((1 - s, s)) for s in (a, b)]
    from probes.scores.evaluate import seed_of

    again = paired_bootstrap(
        [Fold(y, *stack, [r["slide"] for r in scores])],
        n_resamples=200,
        seed=seed_of(one["manifest_id"], None, "all"),
    )
    assert (one["ci_low"], one["ci_high"], one["p_value"]) == pytest.approx(
        (again.low, again.high, again.p_value)
    )
    assert one["p_delong"] == pytest.approx(delong_by_hand(y, a, b), rel=1e-9)
    run(planted, ManifestSpec("d"), RunOptions(models=["strong"], folds=[0], views="d4"))
    rows, notes = compare(
        planted, "d", Side.parse("uni+d4:strong"), [sides[0]], CompareOptions(n_resamples=50)
    )
    assert [(r["a"], r["b"], r["n_folds"]) for r in rows if r["fraction"] == 1] == [
        ("uni+d4:strong", "uni:strong", 1)
    ]
    assert "have no partner" in notes[0]
    shown = call_command(
        "probes",
        "compare",
        "d",
        "--a",
        "uni:strong",
        "--b",
        "uni:weak",
        "--fraction",
        1,
        "--store",
        planted.uri,
    )
    assert shown.code == 0, shown.err
    assert "p_holm" in shown.out


def test_compare_by_domain_and_what_it_refuses(planted: Store) -> None:
    spec = ManifestSpec("d", scheme="cross-domain")
    run(planted, spec, RunOptions(train_domains=["dom0"], folds=[0, 1]))
    options = CompareOptions(scheme="cross-domain", n_resamples=100)
    a, b = Side.parse("uni:strong"), Side.parse("uni:weak")
    rows, _ = compare(planted, "d", a, [b], options)
    cells = [r for r in rows if r["train_domain"] is not None]
    assert {r["eval_domain"] for r in cells} == {"dom0", "dom1", "dom2"}
    assert {r["train_domain"] for r in cells} == {"dom0"}
    for sides, said in (
        ((a, Side.parse("uni:none")), "no run of uni:none on 'd'.*there: "),
        ((a, Side.parse("knn:strong")), "no run of knn:strong"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            compare(planted, "d", sides[0], [sides[1]], options)
    with pytest.raises(EmbedstoreError, match="METHOD:MODEL"):
        Side.parse("strong")
    with pytest.raises(EmbedstoreError, match="unknown metric 'auc'"):
        compare(planted, "d", a, [b], CompareOptions(metric="auc"))


def test_a_manifest_goes_out_is_changed_and_comes_back(planted: Store, tmp_path: Path) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d", seed=77)), folds=[2], fractions=[0.5]
    )
    table = manifest_table(planted, split.row["manifest_id"])
    assert len(table) == len(split.train) + len(split.val) + len(split.test)
    file = tmp_path / "m.csv"
    done = call_command(
        "probes", "manifest", "export", split.row["manifest_id"], file, "--store", planted.uri
    )
    assert done.code == 0, done.err
    rows, same_id = import_manifest(planted, "d", file)
    assert [(r["fold"], r["fraction"], r["n_train"], r["n_test"]) for r in rows] == [
        (2, 0.5, len(split.train), len(split.test))
    ]
    assert import_manifest(planted, "d", file)[1] == same_id
    lines = file.read_text().splitlines()
    header = lines[0].split(",")
    role = header.index("role")
    kept = [line for line in lines[1:] if line.split(",")[role] != "val"]
    (tmp_path / "changed.csv").write_text("\n".join([lines[0], *kept]) + "\n")
    done = call_command(
        "probes",
        "manifest",
        "import",
        "d",
        tmp_path / "changed.csv",
        "--json",
        "--store",
        planted.uri,
    )
    (row,) = done.json()
    assert (row["scheme"], row["n_val"]) == ("imported", 0)
    assert row["manifest_id"] != same_id
    assert "leakage" in done.err
    ran = call_command(
        "probes",
        "run",
        "d",
        "--model",
        "strong",
        "--manifest",
        row["manifest_id"],
        "--json",
        "--store",
        planted.uri,
    )
    (result,) = [r for r in ran.json() if r["metric"] == "auroc"]
    assert (result["manifest_id"], result["n_test"], result["threshold"]) == (
        row["manifest_id"],
        120,
        0.5,
    )
    # A recorded one by its id gives the very runs that its own options give.
    by_id = run(
        planted, ManifestSpec("d"), RunOptions(models=["weak"], manifest=split.row["manifest_id"])
    )
    by_spec = run(
        planted, ManifestSpec("d", seed=77), RunOptions(models=["weak"], folds=[2], fractions=[0.5])
    )
    assert by_spec.n_new == 0
    assert by_spec.rows == by_id.rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda rows: rows[0].update(annotation_id="d/none/1"),
            "1 ids are no usable annotations of 'd'",
        ),
        (lambda rows: rows[0].update(role="tset"), "role 'tset'.*allowed: train, val, test"),
        (lambda rows: rows.append(dict(rows[0])), "come more than once"),
        (lambda rows: [r.update(role="train") for r in rows], "test holds fewer than two labels"),
        (lambda rows: [r.update(role="test") for r in rows], "train holds fewer than two"),
        (lambda rows: [r.update(fraction="half") for r in rows], "no number"),
        (lambda rows: [r.update(dataset="e") for r in rows], "manifest of dataset 'e', not 'd'"),
    ],
)
def test_a_manifest_that_does_not_hold_is_refused_whole(
    planted: Store, tmp_path: Path, change: Any, said: str
) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d", seed=78)), folds=[0], fractions=[1.0]
    )
    rows = manifest_table(planted, split.row["manifest_id"]).to_pylist()
    rows = [{k: "" if v is None else str(v) for k, v in r.items()} for r in rows]
    change(rows)
    before = query(planted, "select count(*) as n from splits")
    with pytest.raises(EmbedstoreError, match=f"(?s)nothing is written.*{said}"):
        import_manifest(planted, "d", write_csv(tmp_path / "m.csv", rows))
    assert query(planted, "select count(*) as n from splits") == before


def test_a_manifest_of_another_dataset_or_of_changed_annotations_is_refused(
    planted: Store, tmp_path: Path
) -> None:
    (split,), _ = ensure_splits(
        planted, candidates(planted, ManifestSpec("d")), folds=[0], fractions=[1.0]
    )
    manifest = split.row["manifest_id"]
    with pytest.raises(EmbedstoreError, match="of dataset 'd', not of 'e'"):
        recorded_manifest(planted, "e", manifest)
    with pytest.raises(EmbedstoreError, match="no manifest 'abc'; there: "):
        recorded_manifest(planted, "d", "abc")
    uri = str(tmp_path / "s")
    rows = [
        {"slide": f"s{k % 4}", "x": k, "y": 1, "id": k, "label": ("mitosis", "imposter")[k % 2]}
        for k in range(60)
    ]
    add(uri, "f", write_csv(tmp_path / "a.csv", rows), AddOptions())
    store = Store.open(uri)
    (split,), _ = ensure_splits(
        store, candidates(store, ManifestSpec("f")), folds=[0], fractions=[1.0]
    )
    out = tmp_path / "m.csv"
    out.write_text(
        "annotation_id,role\n"
        + "".join(f"{i},{r}\n" for r in ("train", "test") for i in getattr(split, r))
    )
    _, imported = import_manifest(store, "f", out)
    recorded_manifest(store, "f", imported)
    rows[0]["x"] = 9999
    add(uri, "f", write_csv(tmp_path / "a.csv", rows), AddOptions())
    for manifest_id in (split.row["manifest_id"], imported):
        with pytest.raises(EmbedstoreError, match="have changed since manifest"):
            recorded_manifest(Store.open(uri), "f", manifest_id)


def test_wrong_targets_and_views_are_told(planted: Store) -> None:
    for options, said in (
        (RunOptions(target="age"), "unknown --target 'age'; allowed: label, domain"),
        (RunOptions(views="c4"), "unknown --views 'c4'"),
        (RunOptions(eval_dataset="x"), "no dataset 'x'"),
        (RunOptions(manifest="x"), "no manifest 'x'"),
    ):
        with pytest.raises(EmbedstoreError, match=said):
            run(planted, ManifestSpec("d"), options)
    done = call_command("probes", "run", "d", "--size-matched", "--store", planted.uri)
    assert done.code == 2
    assert "goes with --scheme cross-domain" in " ".join(done.err.replace("│", " ").split())
