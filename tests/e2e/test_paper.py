"""The verb paper: a plan that is true, what is missing run once, and the report at the end."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from e2e.paper import PaperOptions, plan
from e2e.paper import fill as run_steps
from e2e.recipe import Recipe
from e2e.run import TrainOptions
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from tests.making.commands import call_command
from tests.making.stores import MODELS, plant_cells

QUICK = ("--with-e2e", "--backbone", "timm:test_resnet", "--weights", "random")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    made = plant_cells(str(tmp_path_factory.mktemp("paper") / "store"), "cells", MODELS)
    return made.uri


@pytest.fixture(scope="module")
def planned(uri: str) -> list[dict[str, Any]]:
    return call_command("probes", "paper", "cells", "--plan", "--json", "--store", uri).json()


@pytest.fixture(scope="module")
def done(uri: str, planned: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("out") / "r"
    return folder, call_command("probes", "paper", "cells", "--output", folder, "--store", uri)


def test_the_plan_counts_both_experiments(planned: list[dict[str, Any]]) -> None:
    assert [(r["scheme"], r["method"]) for r in planned] == [
        ("monte-carlo", "uni"),
        ("cross-domain", "uni"),
    ]
    n_fractions = len(planned[0]["fractions"].split(", "))
    assert planned[0]["runs"] == planned[0]["missing"] == 2 * 5 * n_fractions
    assert planned[1]["runs"] == planned[1]["missing"] == 2 * 5 * 3
    assert planned[0]["minutes"] is None


def test_it_runs_what_is_missing_and_reports(
    uri: str, planned: list[dict[str, Any]], done: Any
) -> None:
    folder, ran = done
    assert ran.code == 0, ran.err
    n = sum(r["missing"] for r in planned)
    assert f"{n} runs done" in ran.err
    assert "left out fraction 0.001" in ran.err
    assert (folder / "index.html").is_file()
    assert str(folder / "index.html") in ran.out
    rows = fetch_rows(connect(Store.open(uri)), "select count(distinct run_id) as n from results")
    assert rows[0]["n"] == n


def test_all_are_compared_with_the_best_at_the_largest_fraction(uri: str, done: Any) -> None:
    rows = fetch_rows(
        connect(Store.open(uri)),
        "select scheme, fraction, eval_domain, count(*) as n "
        "from comparisons where train_domain is null group by all order by all",
    )
    assert [tuple(r.values()) for r in rows] == [
        ("cross-domain", 1, "in domain", len(MODELS) - 1),
        ("cross-domain", 1, "out of domain", len(MODELS) - 1),
        ("monte-carlo", 1, "all", len(MODELS) - 1),
    ]


def test_again_nothing_is_missing(uri: str, done: Any, tmp_path: Path) -> None:
    newest = "select max(created_at) as t from comparisons"
    (before,) = fetch_rows(connect(Store.open(uri)), newest)
    made = plan(Store.open(uri), ["cells"], PaperOptions())
    assert [s.n_missing for s in made.steps] == [0, 0]
    assert [s.seconds for s in made.steps] == [0, 0]
    again = call_command("probes", "paper", "cells", "-o", tmp_path / "r", "--json", "--store", uri)
    assert again.json()[0]["kind"] == "page"
    assert "0 runs done" in again.err
    assert fetch_rows(connect(Store.open(uri)), newest) == [before]  # nor compared again


def test_with_e2e_the_same_splits_are_trained(uri: str, done: Any) -> None:
    rows = call_command(
        "probes", "paper", "cells", "--plan", *QUICK, "--json", "--store", uri
    ).json()
    assert [r["method"] for r in rows] == ["uni", "e2e", "uni", "e2e"]
    assert [r["missing"] for r in rows][1] == 5 * len(rows[1]["fractions"].split(", "))
    assert rows[1]["models"] == "timm:test_resnet"


def test_a_missing_run_has_a_guess_of_its_time(uri: str, done: Any, tmp_path: Path) -> None:
    copy = str(tmp_path / "store")
    shutil.copytree(uri, copy)
    store = Store.open(copy)
    one = fetch_rows(connect(store), "select min(run_id) as r from results")[0]["r"]
    ids = fetch_rows(
        connect(store),
        f"select run_id || '/' || metric || '//' || eval_domain as i "
        f"from results where run_id = '{one}'",
    )
    store.delete("results", "result_id", [r["i"] for r in ids])
    made = plan(store, ["cells"], PaperOptions())
    assert sum(s.n_missing for s in made.steps) == 1
    assert all(s.seconds is not None and s.seconds < 60 for s in made.steps)


def test_it_trains_end_to_end_on_the_same_splits(
    embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("e2e.paper.FOLDS", range(1))
    copy = str(tmp_path / "store")
    shutil.copytree(embedded, copy)
    store = Store.open(copy)
    recipe = Recipe(epochs=1, min_steps=1, patch_px=32)
    trained = TrainOptions(backbone="timm:test_resnet", weights="random", recipe=recipe)
    options = PaperOptions(["timm:test_vit"], trained)
    made = plan(store, ["tiny"], options)
    n = sum(s.n_missing for s in made.steps)
    assert run_steps(store, made.steps, options) == n
    # The store is one that all tests read, so it may hold runs of other splits as well.
    key = "manifest_id, fold, fraction, coalesce(train_domain, '') as train_domain"
    found = {
        m: {
            tuple(r.values())
            for r in fetch_rows(
                connect(store), f"select distinct {key} from results where method = '{m}'"
            )
        }
        for m in ("uni", "e2e")
    }
    wanted = {
        (s.row.manifest_id, s.row.fold, s.row.fraction, s.row.train_domain or "")
        for step in made.steps
        for s in step.splits
    }
    assert found["e2e"] == wanted <= found["uni"]
    assert len(wanted) > 1
    assert not any(s.n_missing for s in plan(store, ["tiny"], options).steps)


def test_wrong_input_is_told(uri: str) -> None:
    with pytest.raises(EmbedstoreError, match="no embeddings of nope, other"):
        plan(Store.open(uri), ["cells"], PaperOptions(models=["nope", MODELS[0], "other"]))
    ran = call_command("probes", "paper", "cells", "--store", uri)
    assert ran.code == 2
    assert "--output" in ran.err
    assert call_command("probes", "paper", "gone", "--plan", "--store", uri).code == 1


def test_a_dataset_too_small_for_an_experiment_is_left_out_by_name(tmp_path: Path) -> None:
    made = plant_cells(str(tmp_path / "s"), "cells", MODELS[:1], n=36, domains=("a", "a", "a"))
    found = plan(made, ["cells"], PaperOptions())
    assert [s.spec.scheme for s in found.steps] == ["monte-carlo"]
    assert "Table 2, Figure 2 of cells is left out: it has one domain" in found.notes[-1]
