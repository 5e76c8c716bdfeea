"""Comparisons as they are recorded: by `compare`, for the report, and by SQL."""

import csv
import io
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.classical import holm
from probes.scores.comparisons import CompareOptions, is_compared
from probes.scores.joint import Fold, paired
from probes.scores.sides import Side, ranked
from probes.splits.spec import Asked, ManifestSpec
from probes.studies.compare import compare
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings

MODELS = ("good", "weak", "third")
CROSS = ManifestSpec("cells", scheme="cross-domain")
DOMAINS = ("x", "y", "z")


def fill(uri: str, models: Any = MODELS, n: int = 360) -> Store:
    """Six slides a domain, both labels on each; vectors of which each model's tell labels less."""
    rng = np.random.default_rng(5)
    labels = rng.integers(2, size=n)
    cells = [
        {
            "slide": f"{DOMAINS[k % 3]}{k // 3 % 6}.tiff",
            "source_id": f"{k}",
            "domain": DOMAINS[k % 3],
            "label": ("non-mitotic figure", "mitotic figure")[labels[k]],
        }
        for k in range(n)
    ]
    store = bare_store(uri, "cells", cells)
    ids = [f"cells/{c['slide']}/{c['source_id']}" for c in cells]
    for k, m in enumerate(models):
        vectors = rng.normal(size=(n, 60))
        vectors += labels[:, None] * (np.arange(60) < 4) * (1.3 - 0.4 * k)
        put_embeddings(store, m, ids, vectors.astype(np.float32))
    return store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = fill(str(tmp_path_factory.mktemp("compared") / "s"))
    run(store, ManifestSpec("cells"), RunOptions(splits=Asked(fractions=(0.3, 1.0))))
    run(store, CROSS, RunOptions())
    return store


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    shutil.copytree(made.uri, tmp_path / "s")
    return Store.open(str(tmp_path / "s"))


def sql(store: Store, query: str) -> list[dict[str, Any]]:
    return fetch_rows(connect(store), query)


def pairs_of(store: Store, folder: Any) -> list[dict[str, Any]]:
    report(store, [], folder)
    return list(csv.DictReader(io.StringIO((folder / "pairs.csv").read_text())))


def test_the_best_is_held_against_all_others_and_recorded_once(store: Store) -> None:
    assert sql(store, "select * from comparisons") == []
    options = CompareOptions()
    rows, notes = compare(store, ManifestSpec("cells"), None, [], options)
    assert notes == []
    means = sql(
        store,
        "select model, avg(value) as m from results where metric = 'auroc' and fraction = 1 and "
        "scheme = 'monte-carlo' group by 1 order by 2 desc",
    )
    best, *others = [f"uni:{r['model']}" for r in means]
    assert {(r["a"], r["b"]) for r in rows} == {(best, b) for b in others}
    for _ in range(2):  # again: in place of the first
        kept = sql(store, "select * from comparisons order by b, fraction")
        whole = sorted(
            (r for r in rows if r["fold"] is None), key=lambda r: (r["b"], r["fraction"])
        )
        assert len(kept) == len(whole) == 4
        for k, r in zip(kept, whole, strict=True):
            for c in (
                "a",
                "b",
                "fraction",
                "difference",
                "ci_low",
                "ci_high",
                "p_value",
                "n_folds",
            ):
                assert k[c] == r[c], c
            assert (k["dataset"], k["scheme"], k["ci_kind"]) == (
                "cells",
                "monte-carlo",
                "jackknife",
            )
            ids = sql(
                store,
                "select distinct run_id as i from results where scheme = 'monte-carlo' and "
                f"fraction = {k['fraction']} and model in ('{k['a'][4:]}', '{k['b'][4:]}')",
            )
            assert k["run_ids"] == sorted(r["i"] for r in ids)
        compare(store, ManifestSpec("cells"), None, [], options)


def test_in_and_out_of_domain_are_one_joint_test_each(store: Store) -> None:
    options = CompareOptions()
    rows, _ = compare(store, CROSS, Side("uni", "good"), [Side("uni", "weak")], options)
    whole = [r for r in rows if r["fold"] is None]
    assert [r["eval_domain"] for r in whole[-2:]] == ["in domain", "out of domain"]
    assert len(whole) == 9 + 2
    for name, sign in (("in domain", "="), ("out of domain", "!=")):
        (mine,) = [r for r in whole if r["eval_domain"] == name]
        assert (mine["train_domain"], mine["n_folds"], mine["fold"]) == (None, 5, None)
        means = {
            r["model"]: r["m"]
            for r in sql(
                store,
                "select model, avg(value) as m from results where metric = 'auroc' and scheme = 'cross-domain' "
                f"and eval_domain {sign} train_domain group by 1",
            )
        }
        assert mine["difference"] == pytest.approx(means["good"] - means["weak"], abs=1e-6)
        scores = sql(
            store,
            "select r.fold, r.train_domain, a.domain, a.slide, (a.label = 'mitotic figure')::int as y, "
            "p.score as s, q.score as t from (select distinct run_id, fold, train_domain from results where "
            "scheme = 'cross-domain' and model = 'good') r join (select distinct run_id, fold, train_domain from "
            "results where scheme = 'cross-domain' and model = 'weak') w using (fold, train_domain) join predictions "
            "p on p.run_id = r.run_id and p.role = 'test' join predictions q on q.run_id = w.run_id and q.role = 'test'"
            " and q.annotation_id = p.annotation_id join annotations a on a.annotation_id = p.annotation_id where "
            f"a.domain {sign} r.train_domain order by a.annotation_id",
        )
        folds = []
        for key in sorted({(r["fold"], r["train_domain"], r["domain"]) for r in scores}):
            at = [r for r in scores if (r["fold"], r["train_domain"], r["domain"]) == key]
            s, t = (np.array([(1 - r[k], r[k]) for r in at]) for k in "st")
            folds.append(Fold(np.array([r["y"] for r in at]), s, t, [r["slide"] for r in at]))
        want = paired(folds)
        got = [mine[k] for k in ("difference", "ci_low", "ci_high", "p_value")]
        assert got == pytest.approx([want.difference, want.low, want.high, want.p_value], abs=1e-9)
    p = [r["p_value"] for r in whole[-2:]]
    assert [r["p_holm"] for r in whole[-2:]] == pytest.approx(holm(p))


def test_the_report_shows_what_is_recorded_and_corrects_it(store: Store, tmp_path: Path) -> None:
    before = pairs_of(store, tmp_path / "r")
    assert {(r["is_recorded"], r["p_value"]) for r in before} == {("False", "")}
    page = (tmp_path / "r" / "index.html").read_text()
    for line in ("probes compare cells", "probes compare cells --scheme cross-domain"):
        assert line in [re.sub("<.*?>", "", c) for c in re.findall("<pre>(.*?)</pre>", page)]
        assert call_command(*line.split(), "--store", store.uri).code == 0
    rows = pairs_of(store, tmp_path / "r")
    assert len(rows) == 2 * (1 + 2)
    assert {r["is_recorded"] for r in rows} == {"True"}
    recorded = {
        (r["b"], r["eval_domain"]): r
        for r in sql(store, "select * from comparisons where fraction = 1 and train_domain is null")
    }
    for r in rows:
        mine = recorded[f"uni:{r['b']}", r["where"]]
        for k in ("difference", "ci_low", "ci_high", "p_value"):
            assert float(r[k]) == pytest.approx(mine[k], abs=1e-6), k
    p = [float(r["p_value"]) for r in rows]
    assert [float(r["p_holm"]) for r in rows] == pytest.approx(holm(p))
    assert any(float(r["p_holm"]) > float(r["p_value"]) for r in rows)


def test_a_run_made_anew_leaves_a_comparison_behind(store: Store, tmp_path: Path) -> None:
    options = CompareOptions()
    compare(store, ManifestSpec("cells"), None, [], options)
    assert is_compared(store, ManifestSpec("cells"), options)
    assert not is_compared(store, ManifestSpec("cells"), CompareOptions(metric="brier"))
    again = RunOptions(splits=Asked(folds=[2]), models=["weak"], force=True)
    run(store, ManifestSpec("cells"), again)
    assert not is_compared(store, ManifestSpec("cells"), options)
    rows = [r for r in pairs_of(store, tmp_path / "r") if r["where"] == "all"]
    assert {r["b"]: bool(r["p_value"]) for r in rows} == {"weak": False, "third": True}


def test_the_best_by_an_error_is_the_one_with_the_least(store: Store) -> None:
    rows, _ = compare(store, ManifestSpec("cells"), None, [], CompareOptions(metric="brier"))
    (best,) = sql(
        store,
        "select model from results where metric = 'brier' and fraction = 1 and scheme = 'monte-carlo' "
        "group by 1 order by avg(value) limit 1",
    )
    assert {r["a"] for r in rows} == {f"uni:{best['model']}"}
    assert all(r["difference"] < 0 for r in rows if r["fold"] is None and r["fraction"] == 1)
    done, part = CompareOptions(metric="brier"), CompareOptions(metric="brier", fractions=[0.1])
    assert is_compared(store, ManifestSpec("cells"), done)
    assert not is_compared(store, ManifestSpec("cells"), part)


def test_one_turned_round_counts_with_its_sign(store: Store, tmp_path: Path) -> None:
    compare(
        store,
        ManifestSpec("cells"),
        Side("uni", "weak"),
        [Side("uni", "good")],
        CompareOptions(),
    )
    (mine,) = sql(store, "select * from comparisons where fraction = 1")
    (shown,) = [r for r in pairs_of(store, tmp_path / "r") if r["where"] == "all" and r["p_value"]]
    got = [float(shown[k]) for k in ("difference", "ci_low", "ci_high", "p_value")]
    assert got == pytest.approx(
        [-mine["difference"], -mine["ci_high"], -mine["ci_low"], mine["p_value"]], abs=1e-6
    )


def test_without_runs_or_with_one_side_it_says_so(store: Store, tmp_path: Path) -> None:
    with pytest.raises(
        EmbedstoreError, match="no run on 'cells' with --scheme predefined.*probes run"
    ):
        compare(store, ManifestSpec("cells", "predefined"), None, [], CompareOptions())
    lone = fill(str(tmp_path / "lone"), MODELS[:1])
    run(lone, ManifestSpec("cells"), RunOptions(splits=Asked(folds=[0])))
    with pytest.raises(
        EmbedstoreError, match="nothing to compare on 'cells': uni:good has runs alone"
    ):
        compare(lone, ManifestSpec("cells"), None, [], CompareOptions())


def test_the_best_ran_the_most_at_the_largest_fraction() -> None:
    cells = {
        "few": {(1.0, 0): 0.99},
        "most": {(1.0, 0): 0.8, (1.0, 1): 0.7, (0.1, 0): 0.1},
        "second": {(1.0, 0): 0.7, (1.0, 1): 0.7},
        "small": {(0.1, 0): 1.0},
    }
    assert ranked(cells) == ["most", "second", "few"]
