"""What is on record is used as long as it stands, and what it lacks is said."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from embedstore.embeddings.identity import IMPORTED
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.layout import model_table, views_table
from probes.methods.fits import fit_tasks
from probes.runs import RunOptions, run
from probes.runs.predict import predict
from probes.scores.metrics import METRICS
from probes.splits.spec import Asked, ManifestSpec
from tests.making.stores import plant, plant_two, plant_views, query


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = plant_two(str(tmp_path_factory.mktemp("planted") / "s"), 300, 100)
    plant(store, "strong", 40, 2.5)
    plant_views(store, "strong", 40)
    return store


VALUES = ("eval_domain", "metric", "value", "ci_low", "ci_high", "threshold", "chosen", "state")


@pytest.mark.parametrize("views", [None, "d4"])
def test_a_recorded_probe_is_not_fitted_again_to_score_elsewhere(
    planted: Store, views: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["uni", "logreg"] if views is None else ["uni"]
    options = RunOptions(
        splits=Asked(folds=[0, 1]), models=["strong"], methods=methods, views=views
    )
    spec, there = ManifestSpec("d", seed=6), replace(options, eval_dataset="e")
    fresh = run(planted, spec, there)  # nothing is on record yet: fits are made
    plain = run(planted, spec, options)
    assert (fresh.n_new, plain.n_new) == (2 * len(methods), 2 * len(methods))
    planted.delete("results", "eval_dataset", ["e"])
    fitted: list[str] = []

    def count(matrix: Any, tasks: Any, on_progress: Any) -> Any:
        fitted.extend(t.method for t in tasks)
        return fit_tasks(matrix, tasks, on_progress)

    monkeypatch.setattr("probes.runs.fitting.fit_tasks", count)
    again = run(planted, spec, there)
    assert (again.n_new, fitted) == (2 * len(methods), [])
    assert len(again.rows) == len(fresh.rows) == 2 * len(methods) * len(METRICS) * 4
    for a, b in zip(fresh.rows, again.rows, strict=True):
        assert a.run_id == b.run_id
        for k in VALUES:
            one, two = getattr(a, k), getattr(b, k)
            expected = one if not isinstance(one, float) else pytest.approx(one, abs=1e-6)
            assert two == expected, k
    seconds = {r.run_id: r.seconds for r in plain.rows}
    assert all(r.seconds == seconds[r.run_id] for r in again.rows)
    # What keeps no coefficients is fitted, and so is all with --force.
    run(planted, spec, replace(there, methods=(*methods, "prototype")))
    assert fitted == ["prototype"] * 2
    run(planted, spec, replace(there, force=True))
    assert len(fitted) == 2 + 2 * len(methods)


def made_at(store: Store, table: str, at: datetime, where: str = "true") -> None:
    """Say that embeddings were made at another time."""
    key = "view_id" if table.startswith("views.") else "annotation_id"
    rows = store.lance(table).to_table(columns=[key], filter=where)
    times = pa.array([at] * len(rows), pa.timestamp("us"))
    store.update_columns(table, rows.append_column("embedded_at", times))


def test_a_run_on_views_stands_as_long_as_the_views_do(planted: Store) -> None:
    plant(planted, "turned", 40, 2.5)
    plant_views(planted, "turned", 40)
    spec, at = ManifestSpec("d", seed=8), datetime(2026, 1, 1)
    plain = RunOptions(splits=Asked(folds=[0]), models=["turned"])
    turned = replace(plain, views="d4")
    assert (run(planted, spec, plain).n_new, run(planted, spec, turned).n_new) == (1, 1)
    made_at(planted, model_table("turned"), at)
    assert (run(planted, spec, turned).n_new, run(planted, spec, plain).n_new) == (0, 1)
    made_at(planted, views_table("turned"), at + timedelta(days=1))
    assert (run(planted, spec, turned).n_new, run(planted, spec, plain).n_new) == (1, 0)
    again = run(planted, spec, turned)
    assert again.n_new == 0
    assert {r.embedded_at for r in again.rows} == {at + timedelta(days=1)}


def test_scores_of_another_dataset_stand_as_long_as_its_embeddings_do(planted: Store) -> None:
    plant(planted, "moving", 40, 2.5)
    spec, at = ManifestSpec("d", seed=8), datetime(2026, 1, 1)
    plain = RunOptions(splits=Asked(folds=[0]), models=["moving"])
    there = replace(plain, eval_dataset="e")
    assert [run(planted, spec, o).n_new for o in (plain, there, there)] == [1, 1, 0]
    made_at(planted, model_table("moving"), at, "dataset = 'e'")
    assert [run(planted, spec, o).n_new for o in (plain, there, there)] == [0, 1, 0]


def test_what_an_imported_model_lacks_is_imported(planted: Store) -> None:
    plant(planted, "brought", 40, 2.5)
    planted.merge("models", [{"model": "brought", "arch": IMPORTED, "weights": "imported: x.npz"}])
    (row,) = query(planted, "select annotation_id from brought where dataset = 'd' limit 1")
    planted.delete(model_table("brought"), "annotation_id", [row["annotation_id"]])
    planted.delete(model_table("brought"), "dataset", ["e"])
    how = "embedstore import {} FILE --model brought`"
    options = RunOptions(splits=Asked(folds=[0]), models=["brought"])
    with pytest.raises(EmbedstoreError, match="1 of 300 annotations.*" + how.format("d")):
        run(planted, ManifestSpec("d"), options)
    fine = ManifestSpec("d", where=f"annotation_id != '{row['annotation_id']}'")
    (result, *_) = run(planted, fine, options).rows
    said = "dataset 'e' has no embeddings of model 'brought'.*" + how.format("e")
    with pytest.raises(EmbedstoreError, match=said):
        run(planted, fine, replace(options, eval_dataset="e"))
    with pytest.raises(EmbedstoreError, match=said):
        predict(planted, result.run_id, "e")
    with pytest.raises(
        EmbedstoreError, match="no embeddings of brought for 'e'.*" + how.format("e")
    ):
        run(planted, ManifestSpec("e"), options)
    with pytest.raises(EmbedstoreError, match="--model MODEL --as NAME --views d4"):
        run(planted, fine, replace(options, views="d4"))
