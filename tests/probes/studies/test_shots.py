"""Few labels: support sets are what they say, scores those of the probes, crossings where planted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from embedstore.store import Store
from embedstore.store.sql import connect_to, fetch_rows
from probes.methods.linear import UniProbe
from probes.methods.similarity import PrototypeProbe
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.results import from_null
from probes.splits.spec import Asked, ManifestSpec
from probes.studies import shots as module
from probes.studies.shots import prototypes, score_sets, shots, support_sets
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query


def filled(uri: str, n: int = 800, labels: Any = ("other", "mitotic figure")) -> Store:
    rng = np.random.default_rng(0)
    y = rng.integers(0, len(labels), n)
    slide = np.arange(n) % 20
    cells = [
        {"slide": f"s{s:02d}", "source_id": f"{k}", "label": labels[y[k]], "case_id": f"c{s // 2}"}
        for k, s in enumerate(slide)
    ]
    store = bare_store(uri, "cells", cells)
    x = rng.normal(size=(n, 120))
    x[:, 0] += 3.0 * y
    put_embeddings(store, "m", [f"cells/{c['slide']}/{c['source_id']}" for c in cells], x)
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return filled(str(tmp_path_factory.mktemp("shots") / "s"))


def test_support_sets_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    pool = np.arange(50, 200)
    sets = support_sets(pool, y, None, 4, 30, 0)
    assert len(sets) == 30
    for rows in sets:
        assert np.bincount(y[rows]).tolist() == [4, 4]
        assert len(set(rows.tolist())) == 8
        assert set(rows.tolist()) <= set(pool.tolist())
    larger = support_sets(pool, y, None, 8, 30, 0)
    assert all(set(a.tolist()) <= set(b.tolist()) for a, b in zip(sets, larger, strict=True))
    assert len({tuple(sorted(rows.tolist())) for rows in sets}) == 30
    assert support_sets(pool, y, None, 500, 30, 0) == []
    units = np.array([f"u{k % 9}" for k in range(200)], dtype=object)
    for rows in support_sets(pool, y, units, 2, 10, 1):
        assert len(set(units[rows])) == 2
        assert set(np.flatnonzero(np.isin(units, units[rows])).tolist()) & set(
            pool.tolist()
        ) == set(rows.tolist())


def test_prototypes_rank_as_the_probe_does() -> None:
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 120)
    x = (rng.normal(size=(120, 30)) + y[:, None]).astype(np.float32)
    sets = support_sets(np.arange(60), y, None, 5, 8, 0)
    scores, flat = prototypes(x, y, sets, x[60:])
    assert flat == [False] * 8
    for rows, score in zip(sets, scores.T, strict=True):
        p = PrototypeProbe().fit(x[rows], y[rows]).predict_proba(x[60:])
        assert score == pytest.approx(np.log(p[:, 1] / p[:, 0]), abs=1e-5)


def test_scores_are_those_of_single_fits() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 2, 160)
    x = (rng.normal(size=(160, 60)) + 0.8 * y[:, None]).astype(np.float32)
    test = np.arange(80, 160)
    blocks = test % 7
    folds = [module.Fold(np.arange(80), test, blocks)]
    sets = support_sets(folds[0].pool, y, None, 8, 12, 0)
    found = score_sets(x, y, folds, [sets], "uni", 7)
    for k, rows in enumerate(sets):
        probe = UniProbe().fit(x[rows], y[rows])
        z = probe.decision_function(x[test])
        assert found.values[k] == pytest.approx(roc_auc_score(y[test], z), abs=2e-3)
        for b in range(7):
            kept = blocks != b
            expected = roc_auc_score(y[test][kept], z[kept])
            assert found.without[k, b] == pytest.approx(expected, abs=3e-3)


@pytest.mark.parametrize("method", ["prototype", "uni"])
def test_more_labels_are_better_and_their_spread_is_named(store: Store, method: str) -> None:
    measures, notes = shots(store, "cells", method=method, sizes=(2, 16), n_sets=50)
    assert notes == []
    two, sixteen = measures
    assert two.value is not None
    assert sixteen.value is not None
    assert two.value < sixteen.value
    assert two.details["sd_draws"] > sixteen.details["sd_draws"]
    assert (two.details["n_train"], two.details["n_sets"]) == (4, 50)
    assert two.ci_low < two.value < two.ci_high  # type: ignore[operator]
    assert two.n_groups == len(
        query(
            store,
            "select distinct slide from manifests join annotations using (annotation_id) "
            "where role = 'test' and group_by = 'slide'".replace("group_by", "manifests.group_by"),
        )
    )


def test_by_slides_and_what_cannot_be(store: Store) -> None:
    measures, notes = shots(store, "cells", unit="case", sizes=(1, 3, 50), n_sets=20)
    assert [m.x for m in measures if m.metric == "auroc"] == [1, 3]
    assert notes == ["too few cases for support sets of 50"]
    at = ["--store", store.uri]
    for words, text in (
        (["--unit", "cow"], "unknown --unit"),
        (["--method", "knn"], "unknown --method"),
        (["--shots", "100000"], "too few cells for any"),
    ):
        bad = call_command("probes", "shots", "cells", *words, *at)
        assert bad.code in (1, 2)
        assert text in bad.err


def test_three_labels_are_refused(tmp_path: Path) -> None:
    three = filled(str(tmp_path / "s"), 90, ("a", "b", "c"))
    done = call_command("probes", "shots", "cells", "--store", three.uri)
    assert done.code == 1
    assert "has 3 labels" in done.err


def test_a_planted_crossing_is_found(tmp_path: Path) -> None:
    """A network is planted as runs of a model that is worse with few cells and better with many."""
    store = filled(str(tmp_path / "s"), 2000)
    rng = np.random.default_rng(5)
    ids = [r["annotation_id"] for r in query(store, "select annotation_id from annotations")]
    y = np.array(
        [r["label"] == "mitotic figure" for r in query(store, "select * from annotations")]
    )
    # Strong in many weak directions: hopeless with 40 cells, best with all.
    x = rng.normal(size=(len(ids), 2000))
    x[:, :900] += 0.1 * y[:, None]
    put_embeddings(store, "late", ids, x)
    x = rng.normal(size=(len(ids), 120))
    x[:, 0] += 2.0 * y
    put_embeddings(store, "early", ids, x)
    spec = ManifestSpec("cells", group_by="slide")
    run(store, spec, RunOptions(models=["late", "early"], splits=Asked((0.05, 0.2, 1.0))))
    rows = fetch_rows(connect_to(store, "results"), "select * from _results where model = 'late'")
    for r in rows:
        r["method"] = "e2e"
    store.merge("results", rows)
    measures, _ = shots(store, "cells", sizes=(2,), n_sets=10)
    curves = {(m.model, m.x): m for m in measures if m.metric == "efficiency"}
    means = query(
        store,
        "select method, fraction, avg(value) as v, avg(n_train) as n from results where "
        "metric = 'auroc' group by 1, 2",
    )
    for r in means:
        side = "e2e:late" if r["method"] == "e2e" else "uni:early"
        m = curves[side, r["fraction"]]
        assert m.value == pytest.approx(r["v"])
        assert m.details["n_cells"] == pytest.approx(r["n"], abs=1)
        assert 0 < m.details["n_cases"] <= m.details["n_slides"] <= 20
    (crossing,) = [m for m in measures if m.metric == "crossing"]
    lead = [
        from_null(curves["uni:early", f].value) - from_null(curves["e2e:late", f].value)
        for f in (0.05, 0.2, 1.0)
    ]
    assert lead[0] > 0 > lead[2]
    cells = [curves["uni:early", f].details["n_cells"] for f in (0.05, 1.0)]
    low, high = from_null(crossing.ci_low), from_null(crossing.ci_high)
    assert low < from_null(crossing.value) < high
    assert cells[0] < from_null(crossing.value) < cells[1]
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "draw" in page
    assert "Learning curves in cells, slides and cases" in page
