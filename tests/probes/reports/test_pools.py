"""The report's section of pools and fields: its numbers against SQL, its ranks, its commands."""

from pathlib import Path

import numpy as np
import pytest

from embedstore.models.pools import split_name
from embedstore.slides.placement import JITTER
from embedstore.store import Store
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.best_pool import BEST
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import call_command
from tests.making.reports import table
from tests.making.stores import plant, plant_two, plant_views, query

SIGNALS = {
    "a": 1.2,
    "a@0.25/centre2": 2.2,
    "a@0.125/cls": 1.6,
    "a@0.125/centre2": 2.6,
    "b": 1.7,
    "b@0.125/mean": 1.8,
    "c": 1.9,
}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = plant_two(str(tmp_path_factory.mktemp("pools") / "s"), 500, 60)
    for name, signal in SIGNALS.items():
        plant(store, name, 240, signal)
    said = {name: split_name(name) or (name, 0.25, "cls") for name in SIGNALS}
    store.merge(
        "models",
        [
            r | {"patch_px": 224, "mpp_out": said[r["model"]][1], "pooling": said[r["model"]][2]}
            for r in query(store, "from _models")
        ],
    )
    run(store, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0, 1, 2])))
    return store


def _written(store: Store, folder: Path) -> dict[str, Path]:
    report(store, ["d"], folder)
    return {p.name: p for p in folder.iterdir()}


def test_what_is_lacking_is_named_and_the_commands_fill_it(swept: Store, tmp_path: Path) -> None:
    page = _written(swept, tmp_path / "r1")["index.html"].read_text()
    assert "no pool is chosen on validation" in page
    splits = Asked(folds=[0, 1, 2])
    run(swept, ManifestSpec("d"), RunOptions(splits=splits, pool=BEST))
    rows = table(_written(swept, tmp_path / "r2"), "pools")
    assert {r["ci_low"] for r in rows} == {""}
    for network in ("a", "b"):
        others = [m for m in SIGNALS if m.startswith(f"{network}@")]
        sides = [part for m in others for part in ("--b", f"uni:{m}")]
        call_command(
            "probes",
            "compare",
            "d",
            "--a",
            f"uni:{network}",
            *sides,
            "--b",
            f"uni+best:{network}",
            "--store",
            swept.uri,
        )
    written = _written(swept, tmp_path / "r3")
    assert "without intervals" not in written["index.html"].read_text()

    rows = table(written, "pools")
    assert [r["model"] for r in rows] == [
        "a",
        "a@0.125/centre2",
        "a@0.125/cls",
        "a@0.25/centre2",
        "b",
        "b@0.125/mean",
    ]
    for r in rows:
        network = r["network"]
        of = _values(swept, r["model"])
        assert float(r["mean"]) == pytest.approx(np.mean(of))
        assert float(r["sd"]) == pytest.approx(np.std(of, ddof=1))
        if r["model"] == network:
            assert r["difference"] == r["ci_low"] == ""
            continue
        assert float(r["difference"]) == pytest.approx(
            np.mean(np.subtract(of, _values(swept, network)))
        )
        recorded = query(
            swept,
            "select ci_low, ci_high from comparisons where "
            f"a = 'uni:{network}' and b = 'uni:{r['model']}' and metric = 'auroc'",
        )[0]
        assert float(r["ci_low"]) == pytest.approx(-recorded["ci_high"])
        assert float(r["ci_high"]) == pytest.approx(-recorded["ci_low"])

    ranks = table(written, "pools-ranking")
    plain = {m: np.mean(_values(swept, m)) for m in "abc"}
    chosen = {
        "a": np.mean(_values(swept, "a", best=True)),
        "b": np.mean(_values(swept, "b", best=True)),
        "c": plain["c"],
    }
    for before, means in (("before", plain), ("after", chosen)):
        assert {r["network"]: float(r[before]) for r in ranks} == pytest.approx(means)
        higher = {m: sum(v > means[m] for v in means.values()) for m in means}
        assert {r["network"]: int(r[f"{before}_rank"]) - 1 for r in ranks} == higher
    assert {r["network"] for r in ranks if r["chosen"] == ""} == {"c"}
    # What looks at the signal leads once it may choose, though it came last as it was.
    assert ranks[-1]["network"] == "a"
    assert ranks[-1]["after_rank"] == "1"
    assert (tmp_path / "r3" / "figure-pools-1.svg").exists()


def test_how_it_stands_when_all_are_shifted(swept: Store, tmp_path: Path) -> None:
    run(swept, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0, 1, 2]), pool=BEST))
    page = _written(swept, tmp_path / "r1")["index.html"].read_text()
    said = "<span>--model</span> <span>a@0.125/cls</span>"
    assert said in page
    assert "may be told apart by where cells were marked" in page
    shifted = ("a", "a@0.125/cls", "a@0.125/centre2")
    for name in shifted:
        plant_views(swept, name, 240, JITTER)
    splits = Asked(folds=[0, 1, 2])
    run(swept, ManifestSpec("d"), RunOptions(models=shifted, splits=splits, views="jitter"))
    call_command(
        "probes",
        "compare",
        "d",
        "--a",
        "uni+jitter:a",
        "--b",
        "uni+jitter:a@0.125/cls",
        "--store",
        swept.uri,
    )
    rows = {r["model"]: r for r in table(_written(swept, tmp_path / "r2"), "pools")}
    assert {m for m, r in rows.items() if r["shifted_mean"]} == set(shifted)
    of = {m: _values(swept, m, views="jitter") for m in shifted}
    for m in shifted:
        assert float(rows[m]["shifted_mean"]) == pytest.approx(np.mean(of[m]))
    less = float(rows["a@0.125/cls"]["shifted_difference"])
    assert less == pytest.approx(np.mean(np.subtract(of["a@0.125/cls"], of["a"])))
    assert rows["a"]["shifted_difference"] == ""
    assert rows["a@0.125/cls"]["shifted_low"] != ""
    assert rows["a@0.125/centre2"]["shifted_low"] == ""


def _values(
    store: Store, model: str, *, best: bool = False, views: str | None = None
) -> list[float]:
    rows = query(
        store,
        f"select value from results where metric = 'auroc' and model = '{model}' and params "
        f"{'' if best else 'not'} like '%best%' and json_extract_string(params, '$.views') is not "
        f"distinct from {'null' if views is None else repr(views)} order by fold",
    )
    assert len(rows) == 3
    return [r["value"] for r in rows]


def test_without_a_sweep_the_command_for_one_is_named(tmp_path: Path) -> None:
    store = plant_two(str(tmp_path / "s"), 200, 60)
    plant(store, "m", 240, 2.0)
    run(store, ManifestSpec("d"), RunOptions(splits=Asked(folds=[0])))
    page = _written(store, tmp_path / "r")["index.html"].read_text()
    assert "No model has results with several pools or fields of view" in page
    assert not (tmp_path / "r" / "pools.csv").exists()
