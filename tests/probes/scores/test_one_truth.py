"""A prediction says of which dataset, of which truth and by what it ranks; a number is one number."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from embedstore.add import AddOptions, add
from embedstore.store import Store
from embedstore.store.sql import connect, fetch
from probes.methods.odds import log_odds
from probes.methods.table import METHODS
from probes.runs import RunOptions, run
from probes.scores.comparisons import CompareOptions
from probes.scores.sides import Side
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import plant, plant_two, put_embeddings, query

ONE = Asked(fractions=[1.0])
BOTH = Side.parse("uni:strong"), Side.parse("uni:weak")


@pytest.fixture
def two(tmp_path: Path) -> Store:
    store = plant_two(str(tmp_path / "s"), 400, 160)
    plant(store, "strong", 40, 2.0)
    plant(store, "weak", 40, 1.0)
    return store


def whole(store: Store, sides: tuple[Side, Side] = BOTH, metric: str = "auroc") -> dict[str, Any]:
    rows, _ = compare(
        store,
        ManifestSpec("d"),
        sides[0],
        [sides[1]],
        CompareOptions(metric=metric),
    )
    (row,) = [r for r in rows if r["fold"] is None]
    return row


def test_another_datasets_predictions_are_not_of_the_test_set(two: Store) -> None:
    run(two, ManifestSpec("d"), RunOptions(splits=ONE))
    before = whole(two)
    run(two, ManifestSpec("d"), RunOptions(splits=ONE, eval_dataset="e"))
    assert whole(two) == before
    assert query(two, "select distinct dataset, role from predictions order by all") == [
        {"dataset": "d", "role": "test"},
        {"dataset": "d", "role": "val"},
        {"dataset": "e", "role": "eval"},
    ]
    of = query(
        two,
        "select distinct split_part(annotation_id, '/', 1) as d from predictions where role='eval'",
    )
    assert of == [{"d": "e"}]


@pytest.mark.parametrize("metric", ["f1", "sensitivity", "auroc", "brier"])
def test_compare_finds_the_difference_of_the_results_to_the_last_digit(
    two: Store, metric: str
) -> None:
    run(two, ManifestSpec("d"), RunOptions(splits=ONE, methods=["knn", "uni"]))
    for method in ("knn", "uni"):
        sides = Side.parse(f"{method}:strong"), Side.parse(f"{method}:weak")
        means = {
            r["model"]: r["m"]
            for r in query(
                two,
                "select model, avg(value) as m from results "
                f"where metric = '{metric}' and method = '{method}' group by 1",
            )
        }
        difference = whole(two, sides, metric)["difference"]
        assert difference == pytest.approx(means["strong"] - means["weak"], abs=1e-15)


def test_the_cookbooks_threshold_gives_the_recorded_f1(two: Store) -> None:
    run(two, ManifestSpec("d"), RunOptions(splits=ONE, methods=["knn"]))
    rows = query(
        two,
        "select run_id, truth = p.label as y, score >= threshold as taken from predictions p join "
        "(select distinct run_id, threshold from results) using (run_id) where role = 'test'",
    )
    recorded = query(two, "select run_id, value from results where metric = 'f1'")
    assert len(recorded) == 10
    for r in recorded:
        mine = [q for q in rows if q["run_id"] == r["run_id"]]
        by_hand = f1_score([q["y"] for q in mine], [q["taken"] for q in mine])
        assert r["value"] == pytest.approx(by_hand, abs=1e-15)


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_results_rank_by_the_logit_which_does_not_saturate(two: Store, scale: float) -> None:
    rows = query(two, "select annotation_id, vector from strong")
    ids = [r["annotation_id"] for r in rows]
    vectors = np.array([r["vector"] for r in rows], np.float32)
    put_embeddings(two, "large", ids, (vectors * np.float32(scale)).astype(np.float32))
    options = RunOptions(models=["large"], methods=["uni", "logreg"], splits=ONE)
    run(two, ManifestSpec("d"), options)
    table = query(
        two,
        "select p.run_id, a.vector, b.labels, b.coef, b.intercept, p.truth, p.label, p.annotation_id "
        "from predictions p join probes b using (run_id) join large a using (annotation_id) "
        "where role = 'test'",
    )
    for metric, oracle in (
        ("auroc", roc_auc_score),
        ("average_precision", average_precision_score),
    ):
        for r in query(two, f"select run_id, value from results where metric = '{metric}'"):
            mine = [q for q in table if q["run_id"] == r["run_id"]]
            w = np.reshape(mine[0]["coef"], (2, -1))
            x = np.array([q["vector"] for q in mine], np.float64)
            z = x @ (w[1] - w[0]) + mine[0]["intercept"][1] - mine[0]["intercept"][0]
            y = [q["truth"] == q["label"] for q in mine]
            # float32 rows times float64 coefficients: the order of summing may swap near ties.
            assert r["value"] == pytest.approx(oracle(y, z), abs=2e-3)
    stored = query(
        two,
        "select count(distinct decision)::int as n, count(*)::int as all from predictions where role = 'test' group by run_id",
    )
    assert all(r["n"] > 0.95 * r["all"] for r in stored)


@given(
    st.integers(2, 5),
    st.integers(1, 8),
    st.floats(-12, 3),
    st.integers(0, 2**32 - 1),
)
def test_log_odds_are_those_of_the_mean_probability(
    n_labels: int, n_views: int, power: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(7 * n_views, n_labels)) * 10.0**power
    got = log_odds(z, n_views)
    wide = z.astype(np.longdouble)
    p = np.exp(wide - wide.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    mean = p.reshape(7, n_views, n_labels).mean(axis=1)
    rest = np.stack([np.delete(p, k, axis=1).sum(axis=1) for k in range(n_labels)], axis=1)
    rest = rest.reshape(7, n_views, n_labels).mean(axis=1)
    known = (mean > 1e-4000) & (rest > 1e-4000)
    expected = np.log(mean[known]) - np.log(rest[known])
    np.testing.assert_allclose(got[known], expected.astype(float), rtol=1e-9, atol=1e-15)
    assert np.isfinite(got).all()


@pytest.mark.parametrize("name", ["knn", "prototype"])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_cosine_knows_no_scale(name: str, scale: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 30)) + 2 * (np.arange(200) % 2)[:, None] * (np.arange(30) < 3)
    x, y = x.astype(np.float32), np.arange(200) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = METHODS[name].make().fit(x[:150], y[:150]).predict_proba(x[150:])
        scaled = (x.astype(np.float64) * scale).astype(np.float32)
        other = METHODS[name].make().fit(scaled[:150], y[:150]).predict_proba(scaled[150:])
    np.testing.assert_allclose(other, plain, atol=2e-6 if name == "prototype" else 0.051)
    assert roc_auc_score(y[150:], other[:, 1]) == pytest.approx(
        roc_auc_score(y[150:], plain[:, 1]), abs=0.005
    )


@pytest.mark.parametrize("value", [0.0, 3.3, 1e30])
def test_vectors_that_are_all_one_collapse_in_every_method(two: Store, value: float) -> None:
    ids = [r["annotation_id"] for r in query(two, "select annotation_id from annotations")]
    put_embeddings(two, "flat", ids, np.full((len(ids), 24), value, np.float32))
    asked = Asked(fractions=[1.0], folds=[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(two, ManifestSpec("d"), RunOptions(["flat"], list(METHODS), asked))
    rows = query(two, "select method, state, value from results where metric = 'auroc'")
    assert {r["method"]: (r["state"], r["value"]) for r in rows} == dict.fromkeys(
        METHODS, ("collapsed", 0.5)
    )


def test_a_probe_whose_vectors_are_too_small_to_tell_is_collapsed(two: Store) -> None:
    rows = query(two, "select annotation_id, vector from strong")
    vectors = np.array([r["vector"] for r in rows], np.float32) * np.float32(1e-20)
    put_embeddings(two, "small", [r["annotation_id"] for r in rows], vectors)
    asked = Asked(fractions=[1.0], folds=[0])
    run(two, ManifestSpec("d"), RunOptions(["small"], list(METHODS), asked))
    rows = query(
        two, "select method, state, value > 0.6 as tells from results where metric='auroc'"
    )
    collapsed, fine = ("collapsed", False), ("ok", True)
    assert {r["method"]: (r["state"], r["tells"]) for r in rows} == {
        "uni": collapsed,
        "logreg": collapsed,
        "knn": fine,
        "prototype": fine,
    }


def swap_labels(store: Store, n: int) -> None:
    """Add d again with the labels of the first n annotations exchanged."""
    rows = query(store, "select * from annotations where dataset = 'd' order by annotation_id")
    other = {"mitosis": "imposter", "imposter": "mitosis"}
    table = [
        {
            "slide": r["slide"],
            "x": int(r["x_l0"]),
            "y": int(r["y_l0"]),
            "case": r["case_id"],
            "label": other[r["category"]] if k < n else r["category"],
            "domain": r["domain"],
        }
        for k, r in enumerate(rows)
    ]
    add(store.uri, "d", write_csv(Path(f"{store.uri}-again.csv"), table), AddOptions())


README = (
    "select model, avg(value) as m, count(*)::int as n from results "
    "where metric = 'auroc' group by all order by all"
)


def test_what_is_scored_keeps_its_truth_and_what_is_superseded_is_marked(two: Store) -> None:
    run(two, ManifestSpec("d"), RunOptions(splits=ONE))
    before, standing = whole(two), query(two, README)
    truth = fetch(connect(two), "select annotation_id, truth from predictions").to_pylist()
    swap_labels(two, 100)
    assert fetch(connect(two), "select annotation_id, truth from predictions").to_pylist() == truth
    _, notes = compare(two, ManifestSpec("d"), *((BOTH[0], [BOTH[1]])), CompareOptions())
    assert whole(two)["difference"] == before["difference"]
    assert any("have another label since these runs" in n for n in notes)
    assert query(two, README) == standing
    run(two, ManifestSpec("d"), RunOptions(splits=ONE))
    after = query(two, README)
    assert {r["n"] for r in after} == {5}
    assert after != standing
    rows, notes = compare(two, ManifestSpec("d"), BOTH[0], [BOTH[1]], CompareOptions())
    assert len([r for r in rows if r["fold"] is None]) == 1
    assert not any("another label" in n for n in notes)
    counted = "select is_superseded, count(distinct run_id)::int as n from all_results group by 1"
    assert query(two, counted + " order by 1") == [
        {"is_superseded": False, "n": 10},
        {"is_superseded": True, "n": 10},
    ]
    assert query(two, "select distinct manifest_id from comparisons") == [
        {"manifest_id": rows[0]["manifest_id"]}
    ]
    # What was is again: the first manifest stands, and its runs with it.
    swap_labels(two, 100)
    run(two, ManifestSpec("d"), RunOptions(splits=ONE))
    assert query(two, README) == standing


def test_two_imported_manifests_stand_and_are_told_apart(two: Store, tmp_path: Path) -> None:
    at = {"EMBEDSTORE_URI": two.uri}
    ids = [
        r["annotation_id"]
        for r in query(two, "select annotation_id from annotations where dataset = 'd' order by 1")
    ]
    for n, seed in enumerate((1, 2)):
        order = np.random.default_rng(seed).permutation(len(ids))
        rows = [
            {"annotation_id": ids[i], "role": ("train", "val", "test")[min(2, k * 4 // len(ids))]}
            for k, i in enumerate(order)
        ]
        file = write_csv(tmp_path / f"{n}.csv", rows)
        done = call_command("probes", "manifest", "import", "d", file, env=at)
        assert done.code == 0, done.err
        (manifest,) = {
            r["manifest_id"]
            for r in query(
                two,
                "select manifest_id from splits where scheme = 'imported' order by created_at desc limit 1",
            )
        }
        assert call_command("probes", "run", "d", "--manifest", manifest, env=at).code == 0
    assert query(two, "select * from superseded") == []
    assert len(query(two, "select distinct manifest_id from results")) == 2
    shown = call_command("probes", "compare", "d", "--scheme", "imported", env=at)
    assert shown.code == 0, shown.err
    assert "manifest_id" in shown.out
