"""The honesty gap: its numbers are those of the runs, and a leak that is planted is found."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import t
from sklearn.metrics import roc_auc_score

from embedstore.store import Store
from probes.scores.results import summarise
from probes.studies.gap import LEVELS, gap
from tests.making.commands import call_command
from tests.making.stores import bare_store, put_embeddings, query

KEYS = ("metric", "model", "against", "split")


def leaky(uri: str, n: int = 1500, n_slides: int = 60) -> Store:
    """Slides of thirty cases in two domains: `leaker` knows its slide and that alone, `honest` cells.

    Slides have shares of positives of their own, so that what knows the slide knows the label in
    splits by annotation and nothing in splits by slide.
    """
    rng = np.random.default_rng(0)
    share = np.tile([0.1, 0.9, 0.9, 0.1], n_slides // 4)
    slide = np.arange(n) % n_slides
    positive = rng.random(n) < share[slide]
    cells = [
        {
            "slide": f"s{s:02d}.tiff",
            "source_id": f"{k}",
            "case_id": f"c{s // 2}",
            "domain": "ab"[s % 4 // 2],
            "label": "mitotic figure" if positive[k] else "other",
        }
        for k, s in enumerate(slide)
    ]
    store = bare_store(uri, "cells", cells)
    ids = [f"cells/{c['slide']}/{c['source_id']}" for c in cells]
    names = rng.normal(size=(n_slides, 240))
    noise = rng.normal(size=(n, 240))
    put_embeddings(store, "leaker", ids, 3 * names[slide] + noise)
    cell = rng.normal(size=(n, 240))
    cell[:, 0] += 2.5 * positive
    put_embeddings(store, "honest", ids, cell)
    return store


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[Any, Any]]:
    store = leaky(str(tmp_path_factory.mktemp("gap") / "s"))
    measures, notes = gap(store, "cells")
    assert notes == []
    return store, {tuple(getattr(m, k) for k in KEYS): m for m in measures}


def test_the_levels_are_what_the_runs_say(found: Any) -> None:
    store, of = found
    rows = query(store, "select * from results where metric = 'auroc'")
    for model in ("leaker", "honest"):
        for level in LEVELS[:3]:
            values = [
                r["value"]
                for r in rows
                if r["model"] == model and r["group_by"] == level and r["scheme"] == "monte-carlo"
            ]
            assert len(values) == 5
            assert of["auroc", model, None, level].value == pytest.approx(np.mean(values))
        out = [
            r["value"]
            for r in rows
            if r["model"] == model
            and r["scheme"] == "leave-one-domain-out"
            and r["train_domain"] == f"not {r['eval_domain']}"
        ]
        assert len(out) == 10
        assert of["auroc", model, None, "new domain"].value == pytest.approx(np.mean(out))


def test_a_planted_leak_is_found_and_told_apart(found: Any) -> None:
    _, of = found
    assert of["auroc", "leaker", None, "annotation"].value > 0.8
    assert of["auroc", "leaker", None, "case"].value < 0.65
    drop = of["auroc_drop", "leaker", None, "case"]
    assert drop.ci_low > 0.1
    still = of["auroc_drop", "honest", None, "case"]
    assert still.ci_low < 0 < still.ci_high
    pair = of["auroc_drop", "honest", "leaker", "case"]
    assert pair.value == pytest.approx(still.value - drop.value)
    assert pair.ci_high < 0
    assert pair.p_holm < 0.05


def test_an_interval_is_of_cases_left_out_of_both_splits(found: Any) -> None:
    """Oracle: the drop without each case by scikit-learn, Student's t by hand."""
    store, of = found
    runs = query(
        store,
        "select distinct run_id, group_by from results where model = 'honest' and "
        "scheme = 'monte-carlo' and group_by in ('annotation', 'slide')",
    )
    sets: dict[str, list[Any]] = {"annotation": [], "slide": []}
    for r in runs:
        rows = query(
            store,
            "select truth = 'mitotic figure' as y, decision, case_id from predictions join "
            f"annotations using (annotation_id) where run_id = '{r['run_id']}' and role = 'test'",
        )
        sets[r["group_by"]].append(rows)
    every = [row["case_id"] for rows in sets.values() for fold in rows for row in fold]

    def drop(without: str | None) -> float:
        means = {}
        for level, folds in sets.items():
            kept = [[r for r in fold if r["case_id"] != without] for fold in folds]
            means[level] = np.mean(
                [roc_auc_score([r["y"] for r in f], [r["decision"] for r in f]) for f in kept]
            )
        return float(means["annotation"] - means["slide"])

    measure = of["auroc_drop", "honest", None, "slide"]
    assert measure.value == pytest.approx(drop(None))
    # The joint interval counts the rows of all levels, those by case and by domain among them.
    cases = sorted(set(every))
    each = np.array([drop(c) for c in cases])
    n = len(each)
    error = np.sqrt((n - 1) / n * ((each - each.mean()) ** 2).sum())
    reach = (measure.ci_high - measure.ci_low) / 2
    assert t.ppf(0.975, n - 1) * error <= reach <= 1.15 * t.ppf(0.975, n - 1) * error


def test_ranking_and_recording(found: Any) -> None:
    store, of = found
    r = of["rank_correlation", None, None, "case"]
    assert r.value == pytest.approx(1)  # of two models: no interval
    assert r.ci_low is None
    assert r.n == 2
    kept = query(store, "select * from measures where study = 'gap'")
    assert len(kept) == len(of)
    assert {m["ci_by"] for m in kept if m["metric"] == "auroc"} == {"case"}
    again, _ = gap(store, "cells", models=["honest"])
    assert len(again) < len(of)
    assert len(query(store, "from measures")) == len(again)
    gap(store, "cells")


def test_what_a_dataset_lacks_is_said(tmp_path: Any) -> None:
    cells = [{"slide": "one.tiff", "source_id": f"{k}"} for k in range(60)]
    store = bare_store(str(tmp_path / "s"), "cells", cells)
    rng = np.random.default_rng(0)
    put_embeddings(store, "m", [f"cells/one.tiff/{k}" for k in range(60)], rng.normal(size=(60, 5)))
    done = call_command("probes", "gap", "cells", "--json", "--store", store.uri)
    assert done.code == 0, done.err
    for text in ("by slide: there is one slide", "no case is recorded", "there is one domain"):
        assert text in done.err
    (row,) = done.json()
    assert (row["metric"], row["split"], row["ci_low"]) == ("auroc", "annotation", None)
    assert "none-such" in call_command("probes", "gap", "none-such", "--store", store.uri).err


def test_the_numbers_are_those_that_runs_print(found: Any) -> None:
    store, of = found
    from probes.runs import RunOptions, run
    from probes.studies.gap import specs

    for level, spec in specs("cells", LEVELS, 42).items():
        lines = summarise(run(store, spec, RunOptions()).rows)
        for line in lines:
            if line.where in ("all", "out of domain"):
                value = of["auroc", line.model, None, level].value
                assert value == pytest.approx(line.mean)
