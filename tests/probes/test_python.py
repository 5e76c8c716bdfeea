"""The verbs of `probes` as functions: the rows of the commands, as frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import probes
from embedstore import EmbedstoreError, Store, UsageError
from embedstore.python.rows import Rows
from embedstore.store import Store as Tables
from tests.making.commands import call_command
from tests.making.frames import same

VERBS: dict[str, tuple[Callable[[str], Rows], tuple[object, ...]]] = {
    "split": (
        lambda s: probes.split(s, "d", group_by="slide", folds=2, fractions=[0.5, 1]),
        ("split", "d", "--group-by", "slide", "--folds", 2, "--fractions", "0.5,1"),
    ),
    "run": (
        lambda s: probes.run(s, "d", model="strong", fold=[0, 1], fraction=1.0, method="knn"),
        ("run", "d", "--model", "strong", "--fold", 0, "--fold", 1, "--method", "knn"),
    ),
    "compare": (
        lambda s: probes.compare(s, "d", group_by="slide", b="uni:weak", a="uni:strong"),
        ("compare", "d", "--group-by", "slide", "--a", "uni:strong", "--b", "uni:weak"),
    ),
    "gap": (lambda s: probes.gap(s, "d"), ("gap", "d")),
    "robustness": (
        lambda s: probes.robustness(s, "d", by=["slide", "domain"]),
        ("robustness", "d", "--by", "slide", "--by", "domain"),
    ),
    "likeness": (lambda s: probes.likeness(s, "d"), ("likeness", "d")),
    "fusion": (lambda s: probes.fusion(s, "d", steps=2), ("fusion", "d", "--steps", 2)),
    "shots": (
        lambda s: probes.shots(s, "d", shots=[2, 4], sets=10),
        ("shots", "d", "--shots", 2, "--shots", 4, "--sets", 10),
    ),
    "doubtful": (lambda s: probes.doubtful(s, "d"), ("doubtful", "d")),
    "copies": (lambda s: probes.copies(s, "d"), ("copies", "d")),
    "rescore": (lambda s: probes.rescore(s, "d"), ("rescore", "d")),
}
"""The verb, and the command; each does again what the other did."""


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_gives_the_rows_of_its_command(planted: Tables, name: str) -> None:
    if name in ("compare", "rescore"):
        probes.run(planted.uri, "d", group_by="slide")
    call, words = VERBS[name]
    rows = call(planted.uri)
    printed = call_command("probes", *words, "--json", "--store", planted.uri).json()
    same(rows, printed)


def test_what_is_recorded_is_verified_and_predicts(planted: Tables) -> None:
    store = Store(planted.uri)
    rows = probes.run(store, "d", model="strong", fold=0)
    run_id = rows["run_id"][0]
    checks = probes.verify(store, run_id)
    assert checks["same"].all()
    scores = probes.predict(store, run_id, "d")
    assert list(scores.columns) == ["annotation_id", "label", "score"]
    told = store.sql(f"select annotation_id, score from predictions where run_id = '{run_id}'")
    both = scores.merge(told, on="annotation_id")
    assert len(both) == len(told) > 0
    assert np.allclose(both["score_x"], both["score_y"], atol=1e-6)


def test_a_run_shows_its_means_and_holds_every_number(planted: Tables) -> None:
    rows = probes.run(planted.uri, "d", model="strong")
    assert rows.shown is not None
    auroc = rows[rows["metric"] == "auroc"]["value"]
    (mean,) = rows.shown["mean"]
    assert mean == pytest.approx(auroc.mean())
    view = Store(planted.uri).sql("select * from results limit 0")
    assert set(rows.columns) <= set(view.columns)


def test_a_report_is_written_and_not_over_another_file(planted: Tables, tmp_path: Path) -> None:
    probes.run(planted.uri, "d", fold=0)
    files = probes.report(planted.uri, "d", output=tmp_path / "r")
    assert Path(files["file"][0]).name == "index.html"
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.doc").touch()
    with pytest.raises(UsageError, match="thesis|other files|overwrite"):
        probes.report(planted.uri, "d", output=tmp_path / "taken")


def test_estimators_go_through_scikit_learn(planted: Tables) -> None:
    """A pipeline over the frame, cross-validated by slide, scores what the arrays alone score."""
    e = Store(planted.uri).embeddings("strong", "d")
    folds: Any = GroupKFold(3)
    for probe in (probes.UniProbe(), probes.LogRegProbe(C=1.0), probes.KnnProbe()):
        pipe = make_pipeline(StandardScaler(), probe)
        by = {"groups": e.cells["slide"], "cv": folds, "scoring": "roc_auc"}
        framed = cross_val_score(pipe, e.to_pandas(), e.cells["label"], **by)
        plain = cross_val_score(pipe, e.X, e.cells["label"].to_numpy(), **by)
        assert np.allclose(framed, plain)
        assert framed.min() > 0.6


def test_what_is_wrong_is_an_error_in_words(planted: Tables) -> None:
    with pytest.raises(EmbedstoreError, match="no dataset 'x'"):
        probes.run(planted.uri, "x")
    with pytest.raises(UsageError, match="unknown method"):
        probes.run(planted.uri, "d", method="svm")
    with pytest.raises(UsageError, match="size-matched goes with"):
        probes.split(planted.uri, "d", size_matched=True)
