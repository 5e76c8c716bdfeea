"""The report: its numbers against SQL and numpy, its files, what it says is missing, hostile names."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from embedstore.store import Store
from probes.reports import report
from probes.reports.blocks import styles
from probes.reports.data import gather
from probes.reports.predictions import scores_of
from probes.reports.sections.map import components
from probes.runs import RunOptions, run
from probes.scores.metrics import calibration_error
from probes.scores.results import summarise
from probes.splits.spec import Asked, ManifestSpec
from tests.making.reports import table
from tests.making.stores import OTHER, plant_cells, query

# ----------------------------------------------------------------------------------- numbers


def test_figure_1_holds_the_means_over_folds(store: Store, written: dict[str, Path]) -> None:
    want = query(
        store,
        "select model, method, group_by, fraction, avg(value) as mean, "
        "stddev_samp(value) as sd, avg(n_train) as n, avg(ci_low) as low, count(*) as k from "
        "results where metric = 'auroc' and scheme = 'monte-carlo' and target = 'label' "
        "group by all",
    )
    rows = table(written, "figure1")
    assert len(rows) == len(want) == 10
    for w in want:
        (r,) = [
            r
            for r in rows
            if (r["model"], r["method"], float(r["fraction"]))
            == (w["model"], w["method"], w["fraction"])
            and f"by {w['group_by']}" in r["condition"]
        ]
        got = [float(r[k]) for k in ("mean", "sd", "n_runs")]
        assert got == pytest.approx([w["mean"], w["sd"], w["k"]])
        assert (
            r["ci_low"] == "" if w["low"] is None else float(r["ci_low"]) == pytest.approx(w["low"])
        )
        assert int(r["n_train"]) == round(w["n"])


def test_table_2_is_as_the_paper_counts(store: Store, written: dict[str, Path]) -> None:
    want = query(
        store,
        "with runs as (select model, run_id, train_domain = eval_domain as inside, "
        "avg(value) as v from results where metric = 'auroc' and scheme = 'cross-domain' "
        "group by all) select model, avg(v) filter (inside) as i, stddev_samp(v) filter "
        "(inside) as isd, avg(v) filter (not inside) as o, stddev_samp(v) filter (not inside) "
        "as osd, count(*) filter (inside) as n from runs group by 1",
    )
    rows = table(written, "table2")
    assert len(rows) == len(want) == 2
    for w in want:
        (r,) = [r for r in rows if r["model"] == w["model"]]
        got = [float(r[k]) for k in ("in_mean", "in_sd", "out_mean", "out_sd", "in_runs", "drop")]
        assert got == pytest.approx([w["i"], w["isd"], w["o"], w["osd"], w["n"], w["i"] - w["o"]])
    best = max(rows, key=lambda r: float(r["in_mean"]))
    bold = re.findall(r"\*\*([^*]*)\*\*", written["table2.md"].read_text())
    assert f"{float(best['in_mean']):.3f} ± {float(best['in_sd']):.3f}" in bold


def test_every_cell_of_figure_2(store: Store, written: dict[str, Path]) -> None:
    rows = table(written, "figure2")
    assert len(rows) == 2 * 9
    want = query(
        store,
        "select model, train_domain, eval_domain, avg(value) as v from results where "
        "metric = 'auroc' and scheme = 'cross-domain' group by all",
    )
    for w in want:
        (r,) = [
            r
            for r in rows
            if w["model"] in r["name"]
            and (r["train_domain"], r["eval_domain"]) == (w["train_domain"], w["eval_domain"])
        ]
        assert float(r["mean"]) == pytest.approx(w["v"])


def test_runs_scored_on_another_dataset_have_a_table(tmp_path: Path) -> None:
    made = plant_cells(str(tmp_path / "s"), "one", ("m",))
    plant_cells(str(tmp_path / "s"), "two", ("m",))
    done = run(made, ManifestSpec("one"), RunOptions(eval_dataset="two"))
    report(made, ["one"], tmp_path / "r")
    (r,) = csv.DictReader(io.StringIO((tmp_path / "r" / "elsewhere.csv").read_text()))
    want = np.mean([x.value for x in done.rows if x.metric == "auroc" and x.eval_domain == "all"])
    assert (r["eval_dataset"], r["n_runs"]) == ("two", "5")
    assert float(r["mean"]) == pytest.approx(want)


def test_the_audit_is_the_mean_over_splits(store: Store, written: dict[str, Path]) -> None:
    want = query(
        store,
        "select scheme, group_by, avg(shared_slides) as s, avg(shared_centres) as c "
        "from splits where fraction = 1 group by all",
    )
    rows = table(written, "leakage")
    assert len(rows) == len(want) == 3
    for w in want:
        (r,) = [r for r in rows if r["condition"] == f"{w['scheme']}, by {w['group_by']}"]
        got = [float(r["shared_slides"]), float(r["shared_centres"])]
        assert got == pytest.approx([w["s"], w["c"]])


def test_calibration_bins_are_those_of_the_metric(store: Store) -> None:
    (scores,) = scores_of(gather(store, []))
    bins = scores.bins()
    assert len(bins) == 4
    for e, mine in bins.items():
        rows = query(
            store,
            "select p.score::double as s, (a.label = p.label)::int as y from predictions "
            "p join annotations a using (annotation_id) join (select distinct run_id, model, "
            "method from results where fraction = 1 and scheme = 'monte-carlo' and group_by = "
            "'annotation' and target = 'label') using (run_id) where role = 'test' and "
            f"model = '{e.model}' and method = '{e.method}'",
        )
        y, p = np.array([r["y"] for r in rows]), np.array([r["s"] for r in rows])
        want = calibration_error(y, np.column_stack((1 - p, p)), np.ones((1, len(y))), 0.5)[0]
        n = sum(b["n"] for b in mine)
        got = sum(b["n"] * abs(b["share_positive"] - b["mean_score"]) for b in mine) / n
        assert n == len(rows)
        assert got == pytest.approx(want)


def test_mistakes_are_the_surest_ones(store: Store) -> None:
    (scores,) = scores_of(gather(store, []))
    found = scores.mistakes(4)
    for e in scores.sides:
        rows = query(
            store,
            "select annotation_id, a.label, avg(score) as s from predictions p join "
            "annotations a using (annotation_id) join (select distinct run_id, model, method "
            "from results where fraction = 1 and scheme = 'monte-carlo' and group_by = "
            "'annotation' and target = 'label') using (run_id) where role = 'test' and "
            f"model = '{e.model}' and method = '{e.method}' group by all",
        )
        negative = sorted((r["s"] for r in rows if r["label"] == OTHER), reverse=True)
        positive = sorted(r["s"] for r in rows if r["label"] != OTHER)
        got = {k: [r["score"] for r in v] for k, v in found[e].items()}
        assert got["false_positive"] == pytest.approx([s for s in negative[:4] if s >= 0.5])
        assert got["false_negative"] == pytest.approx([s for s in positive[:4] if s < 0.5])
        assert all(r["label"] == OTHER for r in found[e]["false_positive"])


def test_disagreements_lie_furthest_apart(store: Store) -> None:
    (scores,) = scores_of(gather(store, []))
    rows = scores.disagreements(scores.sides, 1000)
    gaps = [r["high"] - r["low"] for r in rows]
    assert gaps == sorted(gaps, reverse=True)
    assert len(rows) == len({r["annotation_id"] for r in rows})
    top = scores.against(scores.sides[:2], scores.sides[2], 5)
    assert len(top) == 5


def test_principal_components_are_those_of_a_full_decomposition() -> None:
    x = np.random.default_rng(1).normal(size=(60, 9)) * np.arange(1, 10)
    at, shares = components(x)
    centred = x - x.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert shares == pytest.approx(list(s[:2] ** 2 / (s**2).sum()))
    for k in (0, 1):
        assert abs(np.corrcoef(at[:, k], u[:, k])[0, 1]) == pytest.approx(1)
    assert np.abs(at).max(axis=0) == pytest.approx([1, 1])
    assert np.array_equal(at, components(x)[0])
    few, _ = components(x[:6])  # fewer cells than numbers in a vector
    assert np.isfinite(few).all()
    flat, none = components(np.ones((5, 4)))
    assert not flat.any()
    assert none == [0, 0]


def test_twenty_four_models_look_different(store: Store) -> None:
    facts = gather(store, [])
    few = styles(facts)
    assert len(set(few.values())) == len(few)
    from dataclasses import replace

    one = facts.sides[0]
    facts.__dict__["sides"] = [replace(one, model=f"m{k}") for k in range(24)]
    assert len(set(styles(facts).values())) == 24


def test_chance_counts_the_domains_that_a_split_left(tmp_path: Path) -> None:
    made = plant_cells(str(tmp_path / "s"), "one", ("m",), domains=("a", "b", "c"), other="other")
    quick = RunOptions(target="domain", splits=Asked(folds=[0]))
    run(made, ManifestSpec("one", where="domain <> 'c'"), quick)
    run(made, ManifestSpec("one"), quick)
    rows = report(made, [], tmp_path / "report")
    written = {Path(r["file"]).name: Path(r["file"]) for r in rows}
    found = {(int(r["n_domains"]), round(float(r["chance"]), 3)) for r in table(written, "domain")}
    assert found == {(2, 0.5), (3, 0.333)}


def test_vectors_of_several_files_are_of_one_model(tmp_path: Path) -> None:
    """A second file under a name changes what its weights are called, not whose they are."""
    made = plant_cells(str(tmp_path / "s"), "one", ("m",), domains=("a", "b", "c"), other="other")
    (record,) = query(made, "from _models")
    for called, fold in (("imported: a.npz", 0), ("imported: a.npz, ...", 1)):
        made.merge("models", [record | {"weights": called, "weights_sha256": None}])
        options = RunOptions(splits=Asked(folds=[fold]))
        done = run(made, ManifestSpec("one"), options)
    both = RunOptions(splits=Asked(folds=[0, 1]))
    done = run(made, ManifestSpec("one"), both)
    assert done.n_new == 0
    (line,) = summarise(done.rows)
    assert (line.model, line.weights, line.n_runs) == ("m", "imported: a.npz, ...", 2)
    facts = gather(made, [])
    assert [facts.names[side] for side in facts.sides] == ["m"]
