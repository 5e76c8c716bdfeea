"""`probes run --pool best`: the choice is the validation set's, split by split, and recorded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from embedstore.add import AddOptions, add
from embedstore.errors import UsageError
from embedstore.store import Store
from embedstore.store.layout import model_table
from probes.runs import RunOptions, run
from probes.scores.best_pool import BEST, network_of, with_variants
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.stores import plant, plant_two, query, vector_table

NAMES = ("net", "net@0.25/centre2", "net@0.125/cls")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = plant_two(str(tmp_path_factory.mktemp("swept") / "s"), 400, 100)
    for name, signal in zip(NAMES, (1.5, 1.55, 1.6), strict=True):
        plant(store, name, 240, signal)
    plant(store, "alone", 16, 1.5)
    return store


def _chosen(store: Store) -> list[dict[str, Any]]:
    return query(
        store,
        "select run_id, fold, fraction, chosen, value, n_test, params, model from results where "
        "metric = 'auroc' and params like '%best%' order by fraction, fold",
    )


def _scores(store: Store, run_id: str, role: str) -> tuple[list[bool], list[float], list[str]]:
    rows = query(
        store,
        f"select annotation_id, truth, score from predictions where run_id = '{run_id}' and "
        f"role = '{role}' order by 1",
    )
    positive = [r["truth"] == "mitotic figure" for r in rows]
    return positive, [r["score"] for r in rows], [r["annotation_id"] for r in rows]


def test_the_best_is_that_of_validation_and_its_scores_are_those_of_its_run(swept: Store) -> None:
    asked = Asked(fractions=[0.3, 1.0], folds=[0, 1, 2, 3])
    run(swept, ManifestSpec("d"), RunOptions(models=["net"], splits=asked, pool=BEST))
    chosen = _chosen(swept)
    assert [(r["fraction"], r["fold"]) for r in chosen] == [
        (f, k) for f in (0.3, 1.0) for k in range(4)
    ]
    taken = set()
    for row in chosen:
        rivals = query(
            swept,
            "select run_id, model, value from results where metric = 'auroc' and params not like "
            f"'%best%' and fold = {row['fold']} and fraction = {row['fraction']}",
        )
        assert {r["model"] for r in rivals} == set(NAMES)
        losses = {}
        for r in rivals:
            truth, score, _ = _scores(swept, r["run_id"], "val")
            losses[r["model"]] = log_loss(truth, np.array(score))
        said = json.loads(row["chosen"])
        best = min(losses, key=lambda m: losses[m])
        assert (said["model"], said["of"], row["model"]) == (best, 3, "net")
        assert said["val_log_loss"] == pytest.approx(losses[best], abs=1e-9)
        of_best = next(r for r in rivals if r["model"] == best)
        assert row["value"] == of_best["value"]
        for role in ("val", "test"):
            mine, theirs = (_scores(swept, i, role) for i in (row["run_id"], of_best["run_id"]))
            assert mine == theirs
        truth, score, _ = _scores(swept, row["run_id"], "test")
        assert row["value"] == pytest.approx(roc_auc_score(truth, score), abs=1e-9)
        taken.add(best)
    assert len(taken) > 1  # the choice differs from split to split


def test_a_pool_that_comes_later_is_chosen_among_as_well(swept: Store) -> None:
    asked = RunOptions(models=["net"], splits=Asked(folds=[0]), pool=BEST)
    run(swept, ManifestSpec("d"), asked)
    plant(swept, "net@0.125/centre4", 240, 6.0)
    report = run(swept, ManifestSpec("d"), asked)
    assert report.n_new == 1
    (row,) = [r for r in _chosen(swept) if (r["fold"], r["fraction"]) == (0, 1.0)]
    assert json.loads(row["chosen"])["model"] == "net@0.125/centre4"
    assert json.loads(row["chosen"])["of"] == 4


def test_a_choice_that_stands_is_not_recorded_anew(swept: Store) -> None:
    asked = RunOptions(models=["net"], splits=Asked(folds=[0, 1]), pool=BEST)
    made = "select run_id, min(created_at) as at from results where params like '%best%' group by 1"
    run(swept, ManifestSpec("d"), asked)
    before = {r["run_id"]: r["at"] for r in query(swept, made)}
    run(swept, ManifestSpec("d"), asked)
    assert {r["run_id"]: r["at"] for r in query(swept, made)} == before
    again = replace(asked, splits=Asked(folds=[0]), force=True)  # what it is a copy of is new
    run(swept, ManifestSpec("d"), again)
    after = {r["run_id"]: r["at"] for r in query(swept, made)}
    assert sum(after[i] > at for i, at in before.items()) == 1


def test_the_best_is_a_side_that_is_compared(swept: Store) -> None:
    asked = RunOptions(models=["net"], splits=Asked(folds=[0, 1]), pool=BEST)
    run(swept, ManifestSpec("d"), asked)
    done = call_command(
        "probes",
        "compare",
        "d",
        "--a",
        "uni:net",
        "--b",
        "uni+best:net",
        "--json",
        "--store",
        swept.uri,
    )
    (row,) = [r for r in done.json() if r["fraction"] == 1 and r["fold"] is None]
    means = {
        best: np.mean(
            [
                r["value"]
                for r in query(
                    swept,
                    "select value from results where metric = 'auroc' and fraction = 1 and "
                    f"model = 'net' and params {'' if best else 'not'} like '%best%'",
                )
            ]
        )
        for best in (False, True)
    }
    assert row["difference"] == pytest.approx(means[False] - means[True], abs=1e-9)


def test_three_labels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["slide,x,y,label"] + [f"s{k % 5},{k},0,{'ABC'[k % 3]}" for k in range(240)]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    add(str(tmp_path / "s"), "e", tmp_path / "a.csv", AddOptions(labels={c: c for c in "ABC"}))
    store = Store.open(str(tmp_path / "s"))
    notes = query(store, "select * from annotations")
    for name, signal in (("m", 3.0), ("m@0.25/mean", 3.3)):
        eye = signal * np.eye(120)[["ABC".index(r["label"]) for r in notes]]
        store.make_model_table(name, 120)
        vectors = rng.normal(size=(240, 120)) + eye
        store.merge(model_table(name), vector_table(name, notes, vectors))
        store.merge("models", [{"model": name, "weights": "w", "weights_sha256": "0"}])
    run(store, ManifestSpec("e"), RunOptions(splits=Asked(folds=[0]), pool=BEST))
    (row,) = _chosen(store)
    losses = {}
    for r in query(
        store, "select distinct run_id, model from results where params not like '%best%'"
    ):
        scores = query(
            store,
            f"select annotation_id, any_value(truth) as truth, list(score order by label) as p "
            f"from predictions where run_id = '{r['run_id']}' and role = 'val' group by 1",
        )
        losses[r["model"]] = log_loss(
            [s["truth"] for s in scores], np.array([s["p"] for s in scores]), labels=list("ABC")
        )
    said = json.loads(row["chosen"])
    assert said["model"] == min(losses, key=lambda m: losses[m])
    assert said["val_log_loss"] == pytest.approx(losses[said["model"]], abs=1e-9)


def test_names() -> None:
    have = ["a", "a@0.25/mean", "b", "hf-hub:o/n@main"]
    assert [network_of(m) for m in have] == ["a", "a", "b", "hf-hub:o/n@main"]
    assert with_variants(["a"], have) == ["a", "a@0.25/mean"]
    assert with_variants(["a@0.25/mean", "a"], have) == ["a@0.25/mean", "a"]
    assert with_variants(None, have) is None
    with pytest.raises(UsageError, match="and b has one; `embedstore ingest"):
        with_variants(["b"], have)
    with pytest.raises(UsageError, match="no model has several pools"):
        with_variants(None, ["b"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (RunOptions(pool="worst"), "unknown --pool 'worst'; allowed: best"),
        (RunOptions(pool=BEST, eval_dataset="e"), "not for --eval-dataset"),
        (RunOptions(pool=BEST, models=["alone"]), "alone has one"),
    ],
)
def test_what_cannot_be_chosen_is_told(swept: Store, options: RunOptions, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(swept, ManifestSpec("d"), options)
