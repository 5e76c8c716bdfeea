"""Labels: planted errors are found, experts scored by hand, files come back, runs are scored anew."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from embedstore.add import AddOptions, add
from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.splits.spec import ManifestSpec
from probes.studies.cell_files import write_found
from probes.studies.doubtful import ERROR, doubtful, label_errors
from probes.studies.raters import kappa, raters
from probes.studies.rescore import rescore
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import bare_store, plant, put_embeddings, query


@pytest.mark.parametrize("n_labels", [2, 4])
def test_label_errors_are_cleanlabs(n_labels: int) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        y = rng.integers(0, n_labels, 400)
        logits = rng.normal(size=(400, n_labels)) + 2.0 * np.eye(n_labels)[y]
        given = np.where(rng.random(400) < 0.1, rng.integers(0, n_labels, 400), y)
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        theirs = find_label_issues(given, p, filter_by="confident_learning", n_jobs=1)
        assert label_errors(given, p).tolist() == theirs.tolist()


def planted(folder: Path, flipped: float = 0.05) -> tuple[Store, set[str]]:
    """A dataset added from a CSV, a share of whose labels are wrong; its three models are good."""
    rng = np.random.default_rng(0)
    rows, wrong = [], set()
    for k in range(900):
        truth = rng.random() < 0.45
        is_wrong = rng.random() < flipped
        label = "mitosis" if truth != is_wrong else "imposter"
        rows.append(
            {
                "slide": f"s{k % 18:02d}.tiff",
                "x": k,
                "y": 2 * k,
                "label": label,
                "id": f"n{k}",
                "truth": int(truth),
            }
        )
        if is_wrong:
            wrong.add(f"cells/s{k % 18:02d}.tiff/n{k}")
    uri = str(folder / "s")
    add(uri, "cells", write_csv(folder / "cells.csv", rows), AddOptions())
    store = Store.open(uri)
    truth_of = {f"cells/{r['slide']}/{r['id']}": r["truth"] for r in rows}
    ids = [r["annotation_id"] for r in query(store, "select annotation_id from annotations")]
    for model, signal in (("one", 5.0), ("two", 4.5), ("three", 4.0)):
        x = rng.normal(size=(900, 130))
        x[:, 0] += signal * np.array([truth_of[i] for i in ids])
        put_embeddings(store, model, ids, x)
    return store, wrong


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("doubt")
    store, wrong = planted(folder)
    run(store, ManifestSpec("cells", group_by="slide"), RunOptions())
    doubts, measures, notes = doubtful(store, "cells")
    return folder, store, wrong, doubts, measures, notes


def test_planted_label_errors_are_found(found: Any) -> None:
    _, store, wrong, doubts, measures, notes = found
    errors = [d for d in doubts if d.kind == ERROR]
    hits = {d.annotation_id for d in errors} & wrong
    assert len(hits) >= 0.75 * len(wrong)
    assert len(hits) >= 0.8 * len(errors)
    assert [d.own_probability for d in errors] == sorted(d.own_probability for d in errors)
    assert all(d.suggested != d.label for d in errors)
    assert all(2 * d.n_missed > d.n_models == 3 for d in errors)
    assert notes == []
    missed = {m.x: m.value for m in measures if m.metric == "n_missed_by"}
    assert sum(missed.values()) == 900
    assert missed[3] >= 0.8 * len(wrong)
    kept = query(store, "select * from measures where study = 'doubtful' and metric = 'n_cells'")
    assert {r["value"] for r in kept} >= {float(len(errors))}


def test_what_a_model_saw_has_no_say(found: Any) -> None:
    """A model that knows each cell's own (wrong) label by heart still cannot: folds are by slide."""
    _, store, wrong, *_ = found
    rng = np.random.default_rng(1)
    rows = query(store, "select annotation_id, label, slide from annotations")
    x = rng.normal(size=(900, 130))  # noise of each cell: learnt by heart where seen
    put_embeddings(store, "heart", [r["annotation_id"] for r in rows], 5 * x)
    doubts, _, _ = doubtful(store, "cells", models=["heart"])
    errors = {d.annotation_id for d in doubts if d.kind == ERROR}
    assert len(errors & wrong) < 0.7 * len(wrong)  # it knows nothing of cells it did not see
    doubtful(store, "cells", models=["one", "two", "three"])


def test_mended_labels_come_back_and_runs_are_scored_on_them(found: Any) -> None:
    folder, store, _, doubts, *_ = found
    (path,) = write_found(store, [d for d in doubts if d.kind == ERROR], folder / "out.csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert len(rows) == sum(d.kind == ERROR for d in doubts)
    assert rescore(store, "cells")[1] == [
        "no label has changed since any run was made: nothing to score again"
    ]
    mended = [r | {"label": r["suggested"]} for r in rows]
    done = call_command(
        "embedstore",
        "add",
        "cells",
        "--annotations",
        write_csv(folder / "mended.csv", mended),
        "--store",
        store.uri,
    )
    assert done.code == 0, done.err
    after = query(Store.open(store.uri), "select count(*) as n from annotations")
    assert after == [{"n": 900}]
    again: Any = rescore(Store.open(store.uri), "cells")[0]
    of: Any = {(m.metric, m.model, m.split): m for m in again}
    for model in ("one", "two", "three"):
        sets = query(
            store,
            "select p.truth, a.label, p.decision, r.fold from predictions p join all_results r using "
            "(run_id) join annotations a using (annotation_id) where p.role = 'test' and "
            f"r.metric = 'auroc' and r.model = '{model}'",
        )
        for split, column in (("labels then", "truth"), ("labels now", "label")):
            folds = [[r for r in sets if r["fold"] == k] for k in range(5)]
            values = [
                roc_auc_score(
                    [r[column] == "mitotic figure" for r in f], [r["decision"] for r in f]
                )
                for f in folds
            ]
            assert of["auroc", f"uni:{model}", split].value == pytest.approx(np.mean(values))
        change = of["auroc_change", f"uni:{model}", None]
        assert change.value > 0
        assert change.ci_low > 0
    assert of["auroc", "uni:one", "labels now"].details == {"rank": 1, "of": 3}
    report(Store.open(store.uri), [], folder / "r")
    page = (folder / "r" / "index.html").read_text()
    assert "Scores on mended labels" in page
    assert "Labels in doubt" in page


def test_geojson_is_for_qupath_and_comes_back(found: Any, tmp_path: Path) -> None:
    _, store, _, doubts, *_ = found
    written = write_found(store, doubts, tmp_path / "out")
    assert len(written) == len({d.slide for d in doubts})
    one = json.loads(written[0].read_text())
    feature = one["features"][0]
    assert feature["geometry"]["type"] == "Point"
    assert feature["properties"]["objectType"] == "annotation"
    assert "?" in feature["properties"]["name"] or "ambiguous" in feature["properties"]["name"]
    ids = {f["id"] for path in written for f in json.loads(path.read_text())["features"]}
    assert ids == {d.id for d in doubts}
    flipped = {"mitotic figure": "non-mitotic figure", "non-mitotic figure": "mitotic figure"}
    feature["properties"]["classification"]["name"] = flipped[
        feature["properties"]["classification"]["name"]
    ]
    written[0].write_text(json.dumps(one))
    done = call_command(
        "embedstore", "add", "cells", "--annotations", tmp_path / "out", "--store", store.uri
    )
    assert done.code == 0, done.err
    assert "0 of them new" in done.err
    (row,) = query(
        Store.open(store.uri),
        f"select label from annotations where source_id = '{feature['id']}'",
    )
    assert row["label"] == feature["properties"]["classification"]["name"]


def voted(uri: str) -> Store:
    rng = np.random.default_rng(0)
    cells, truths = [], []
    for k in range(400):
        truth = rng.random() < 0.5
        votes = [
            "mitotic figure" if truth != (rng.random() < e) else "other" for e in (0.05, 0.1, 0.3)
        ]
        majority = sorted(votes)[1]
        truths.append(truth)
        cells.append(
            {"slide": f"s{k % 16:02d}", "source_id": f"{k}", "label": majority, "votes": votes}
        )
    store = bare_store(uri, "cells", cells)
    ids = [f"cells/{c['slide']}/{c['source_id']}" for c in cells]
    x = rng.normal(size=(400, 140))
    x[:, 0] += 3.0 * np.array(truths)
    put_embeddings(store, "m", ids, x)
    return store


def test_experts_are_scored_against_the_others(tmp_path: Path) -> None:
    store = voted(str(tmp_path / "s"))
    run(store, ManifestSpec("cells", group_by="slide"), RunOptions())
    measures: Any
    measures, notes = raters(store, "cells")
    assert notes == []
    rows = query(store, "select votes from annotations order by annotation_id")
    votes = np.array([[v == "mitotic figure" for v in r["votes"]] for r in rows])
    experts: Any = {m.model: m for m in measures if m.metric == "rater"}
    values = []
    for k in range(3):
        others = np.delete(votes, k, axis=1)
        able = others[:, 0] == others[:, 1]
        expected = balanced_accuracy_score(others[able, 0], votes[able, k])
        m = experts[f"expert {k + 1}"]
        assert m.value == pytest.approx(expected)
        assert m.n == able.sum()
        assert m.ci_low < m.value < m.ci_high
        values.append(expected)
    assert experts["expert 1"].value > experts["expert 3"].value
    (human,) = [m for m in measures if m.metric == "human"]
    assert human.value == pytest.approx(np.mean(values))
    assert human.ci_low < human.value < human.ci_high
    scores = {m.split: m for m in measures if m.model == "m"}
    folds = query(
        store,
        "select r.fold, p.score, p.decision, a.votes from predictions p join results r using (run_id) "
        "join annotations a using (annotation_id) where p.role = 'test' and r.metric = 'auroc'",
    )
    share = np.array([np.mean([v == "mitotic figure" for v in r["votes"]]) for r in folds])
    fold = np.array([r["fold"] for r in folds])
    decision, score = (np.array([r[c] for r in folds]) for c in ("decision", "score"))
    whole = np.isin(share, (0, 1))
    for split, kept in (("majority", np.ones(len(share), bool)), ("unanimous", whole)):
        each = [
            roc_auc_score(share[kept & (fold == k)] > 0.5, decision[kept & (fold == k)])
            for k in range(5)
        ]
        assert scores[split].value == pytest.approx(np.mean(each))
    soft = np.mean([((score - share) ** 2)[fold == k].mean() for k in range(5)])
    assert scores["soft"].value == pytest.approx(soft)
    assert scores["unanimous"].value > scores["majority"].value
    report(store, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "an expert against the others" in page
    assert "Experts and models against votes" in page


def test_kappa_of_the_textbook() -> None:
    """Oracle: Fleiss' formula by hand, three raters of four cells."""
    votes = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=float)
    p_i = [1.0, 1 / 3, 1 / 3, 1.0]
    observed, chance = np.mean(p_i), 0.5**2 + 0.5**2
    expected = (observed - chance) / (1 - chance)
    assert kappa(np.ones((1, 4)), votes)[0] == pytest.approx(expected)
    half = np.array([[1.0, 1.0, 0.0, 0.0]])
    again = kappa(np.ones((1, 2)), votes[:2])
    assert kappa(half, votes) == pytest.approx(again)


def test_no_votes_and_one_slide_are_said(tmp_path: Path) -> None:
    store = bare_store(
        str(tmp_path / "s"), "cells", [{"slide": "s", "source_id": f"{k}"} for k in range(40)]
    )
    plant(store, "m", 20, 1.0)
    at = ["--store", store.uri]
    none = call_command("probes", "raters", "cells", *at)
    assert none.code == 1
    assert "no votes" in none.err
    lone = call_command("probes", "doubtful", "cells", *at)
    assert lone.code == 1
    assert "one slide" in lone.err
    unrun = call_command("probes", "rescore", "cells", *at)
    assert unrun.code == 1
    assert "has no runs" in unrun.err
