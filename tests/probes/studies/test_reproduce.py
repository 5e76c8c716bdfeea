"""`probes reproduce`: the authors' folds, scikit-learn's numbers, and drift only where it is told."""

import csv
import dataclasses
import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import probes
from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes import recipes
from probes.recipes import AT_PREVALENCE, RECIPES, Published
from probes.reports import report
from probes.runs import RunOptions, run
from probes.scores.read_back import alike
from probes.scores.results import summarise
from probes.splits.spec import ManifestSpec
from probes.studies.measures import Measure
from probes.studies.reproduce import HIGHER, LOWER, NONE, drift_of, reproduce, rows_beside
from tests.making.commands import call_command
from tests.making.slides import write_csv
from tests.making.stores import plant, put_embeddings, query

SLIDES = Path(__file__).with_name("ami_br_slides.csv")
"""How many atypical and normal figures each slide of AMi-Br has, of the authors' table."""
OPTIONS = AddOptions(labels={"atypical": "atypical", "normal": "normal"}, positive="atypical")


def cells_of(slides: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [
        {"slide": f"MIDOG21/{r['slide']}", "x": str(k), "y": "1", "label": label, "domain": "a"}
        for r in slides
        for k, label in enumerate(["atypical"] * int(r["atypical"]) + ["normal"] * int(r["normal"]))
    ]


def with_signal(store: Store, dataset: str, model: str, strength: float) -> None:
    rows = query(
        store,
        f"select annotation_id, label from annotations where dataset = '{dataset}' order by 1",
    )
    rng = np.random.default_rng(len(model))
    x = rng.normal(size=(len(rows), 64))
    x[:, :16] += strength / 4 * np.array([r["label"] == "atypical" for r in rows])[:, None]
    put_embeddings(store, model, [r["annotation_id"] for r in rows], x.astype(np.float32))


@pytest.fixture(scope="module")
def ami_br(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All cells of AMi-Br by slide and label, another dataset, and two models with a signal."""
    folder = tmp_path_factory.mktemp("ami")
    with SLIDES.open() as stream:
        slides = list(csv.DictReader(stream))
    write_csv(folder / "a.csv", cells_of(slides))
    write_csv(
        folder / "b.csv",
        cells_of([{"slide": f"t{k}", "atypical": 12, "normal": 30} for k in range(4)]),
    )
    uri = str(folder / "s")
    add(uri, "ami-br", folder / "a.csv", OPTIONS)
    add(uri, "atnorm-br", folder / "b.csv", OPTIONS)
    store = Store.open(uri, write=True)
    with_signal(store, "ami-br", "uni", 2.5)
    with_signal(store, "atnorm-br", "uni", 2.5)
    return store


def test_the_folds_are_those_of_the_authors(ami_br: Store) -> None:
    """Sizes and shares of normal figures that the authors' own lines give on their own table."""
    done = reproduce(ami_br, "ami-br", models=["uni"])
    (manifest,) = done.manifests
    rows = query(
        ami_br,
        "select fold, role, count(*) as n, avg((label = 'normal')::int) as normal from manifests "
        f"join annotations using (annotation_id) where manifest_id = '{manifest}' "
        "group by all order by all",
    )
    assert {r["n"] for r in rows if r["role"] == "test"} == {826}
    at = {(r["fold"], r["role"]): (r["n"], round(r["normal"], 6)) for r in rows}
    assert [at[k, "train"][0] for k in range(5)] == [2331, 2330, 2262, 2323, 2330]
    shares = (0.786856, 0.783688, 0.746835, 0.781086, 0.785461)
    assert [at[k, "val"] for k in range(5)] == [
        (n, share) for n, share in zip((563, 564, 632, 571, 564), shares, strict=True)
    ]


def test_the_numbers_are_scikit_learns(ami_br: Store) -> None:
    done = reproduce(ami_br, "ami-br", models=["uni"])
    scores = query(
        ami_br,
        "select run_id, role, dataset, truth = 'atypical' as hit, score, decision from predictions "
        f"where run_id in (select run_id from results where manifest_id = '{done.manifests[0]}')",
    )
    share = dict(
        query_pairs(
            ami_br,
            "select run_id, avg((a.label = 'atypical')::int) from (select distinct run_id, "
            "manifest_id, fold from results where model = 'uni') join manifests m using "
            "(manifest_id, fold) join annotations a using (annotation_id) where m.role = 'train' "
            "group by 1",
        )
    )
    of: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for where, dataset, role in (("all", "ami-br", "test"), ("on atnorm-br", "atnorm-br", "eval")):
        for run_id in share:
            mine = [
                s
                for s in scores
                if (s["run_id"], s["dataset"], s["role"]) == (run_id, dataset, role)
            ]
            y, p = [s["hit"] for s in mine], np.array([s["score"] for s in mine])
            of[where, "auroc"]["v"].append(roc_auc_score(y, [s["decision"] for s in mine]))
            said = p >= share[run_id]
            of[where, AT_PREVALENCE]["v"].append(balanced_accuracy_score(y, said))
    means = {(m.split, m.metric): m for m in done.measures if m.against is None}
    assert set(means) == set(of)
    for key, values in of.items():
        m = means[key]
        assert m.value == pytest.approx(np.mean(values["v"]), abs=1e-9)
        assert m.details["sd"] == pytest.approx(np.std(values["v"], ddof=1), abs=1e-9)
        assert m.ci_low is not None
        assert m.value is not None
        assert m.ci_low < m.value
        assert m.details["n_runs"] == 5
    assert means["all", "auroc"].n == 826
    assert means["all", "auroc"].n_groups == 56
    assert any(n.startswith("not scored on atnorm-md: no embeddings of uni") for n in done.notes)


def query_pairs(store: Store, sql: str) -> list[tuple[Any, Any]]:
    return [tuple(r.values()) for r in query(store, sql)]


def test_the_difference_from_each_published_number_stands_beside(ami_br: Store) -> None:
    done = reproduce(ami_br, "ami-br", models=["uni"])
    mean = {(m.split, m.metric): m.value or 0 for m in done.measures if m.against is None}
    beside = [m for m in done.measures if m.against]
    assert len(beside) == 2 * 2 * 17  # two test sets, two metrics, each network
    uni = next(
        m for m in beside if (m.against, m.metric, m.split) == (OF_UNI, "auroc", "on atnorm-br")
    )
    assert uni.details["published"] == 0.7028
    assert uni.value == pytest.approx(mean["on atnorm-br", "auroc"] - 0.7028)
    assert {m.against for m in beside if m.details["drift"] is not None} == {OF_UNI}
    assert {r["of"] for r in rows_beside(done.measures)} == {"UNI, linear probe"}
    assert len(rows_beside(done.measures, every=True)) == len(beside)
    recorded = query(
        ami_br,
        "select metric, against, value from measures where study = 'reproduce' and factor = 'ami-br' and model = 'uni'",
    )
    assert len(recorded) == len(done.measures)


OF_UNI = "UNI, linear probe, published"


@pytest.mark.parametrize(("away", "drift"), [(0.0, NONE), (-0.2, HIGHER), (0.2, LOWER)])
def test_drift_is_told_of_the_same_model_alone(
    ami_br: Store, monkeypatch: pytest.MonkeyPatch, away: float, drift: str
) -> None:
    """A published number that is ours is none; one that is far off is, on its side."""
    recipe = RECIPES["ami-br"]
    mean = next(
        m
        for m in reproduce(ami_br, "ami-br", models=["uni"]).measures
        if (m.metric, m.split, m.against) == ("auroc", "all", None)
    )
    assert mean.value is not None
    same = dataclasses.replace(recipe.published[1], model="uni", mean=mean.value + away, sd=0.01)
    other = dataclasses.replace(same, model="virchow", shown="V")
    lora = dataclasses.replace(same, method="e2e+lora", shown="L")
    planted = dataclasses.replace(recipe, published=(same, other, lora))
    monkeypatch.setitem(recipes.table.RECIPES, "ami-br", planted)
    done = reproduce(ami_br, "ami-br", models=["uni"])
    assert [m.details["drift"] for m in done.measures if m.against] == [drift, None, None]


@given(st.floats(0, 1), st.floats(0, 0.1), st.floats(0, 1), st.floats(0, 0.1))
def test_drift_is_the_same_from_either_side(a: float, sd_a: float, b: float, sd_b: float) -> None:
    turned = {HIGHER: LOWER, LOWER: HIGHER, NONE: NONE}
    assert drift_of(a, sd_a, b, sd_b) == turned[drift_of(b, sd_b, a, sd_a)]
    assert drift_of(a, math.nan, a, sd_a) == NONE


@given(st.lists(st.floats(0.001, 0.999), min_size=1, max_size=20), st.floats(0.01, 0.99))
def test_labels_made_alike_turn_at_their_share(scores: list[float], share: float) -> None:
    """The most probable label then is the positive one where its score is above its share."""
    p = alike(np.array(scores), share)
    assert np.allclose(p.sum(axis=1), 1)
    clear = np.abs(np.array(scores) - share) > 1e-9
    assert ((p[:, 1] > 0.5) == (np.array(scores) > share))[clear].all()


def test_the_published_numbers_are_those_of_the_abstract() -> None:
    """Banerjee et al.: up to 0.8135, 0.7788 and 0.7723 in balanced accuracy on the three sets."""
    best: dict[str, float] = {}
    for p in RECIPES["ami-br"].published:
        if p.metric == AT_PREVALENCE:
            best[p.where] = max(best.get(p.where, 0), p.mean)
    assert best == {"all": 0.8135, "on atnorm-br": 0.7788, "on atnorm-md": 0.7723}
    assert all(0 < p.sd < 0.1 for r in RECIPES.values() for p in r.published)


def test_cells_that_are_not_all_of_it_are_refused(ami_br: Store, tmp_path: Path) -> None:
    write_csv(tmp_path / "c.csv", cells_of([{"slide": "002.tiff", "atypical": 9, "normal": 9}]))
    add(str(tmp_path / "s"), "mine", tmp_path / "c.csv", OPTIONS)
    store = Store.open(str(tmp_path / "s"), write=True)
    with_signal(store, "mine", "uni", 1.0)
    with pytest.raises(
        EmbedstoreError, match="'mine' has 18 usable cells, 0 of them on the slides"
    ):
        reproduce(store, "ami-br", dataset="mine")
    with pytest.raises(EmbedstoreError, match="no dataset 'ami-br'.*embedstore fetch ami-br"):
        reproduce(store, "ami-br")
    with pytest.raises(EmbedstoreError, match="no recipe 'ami'; allowed: ami-br, midog2025-t2"):
        reproduce(store, "ami")
    with pytest.raises(EmbedstoreError, match="'mine' names fewer than 10 cases"):
        reproduce(store, "midog2025-t2", dataset="mine")
    assert not query(store, "select * from splits")


def test_the_challenge_s_folds_keep_cases_whole_and_test_every_cell_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "slide": f"s{k % 40}.tiff",
            "x": str(k),
            "y": "1",
            "label": ("atypical", "normal", "normal")[int(rng.integers(3))],
            "domain": "ab"[k % 2],
            "case": f"c{k % 20}",
        }
        for k in range(600)
    ]
    write_csv(tmp_path / "a.csv", rows)
    add(str(tmp_path / "s"), "midog2025-t2", tmp_path / "a.csv", OPTIONS)
    store = Store.open(str(tmp_path / "s"), write=True)
    with_signal(store, "midog2025-t2", "phikon", 3.0)
    done = reproduce(store, "midog2025-t2")
    placed = query(
        store,
        "select fold, role, annotation_id, case_id from manifests join annotations using (annotation_id)",
    )
    tested = [r["annotation_id"] for r in placed if r["role"] == "test"]
    assert len(tested) == len(set(tested)) == 600
    for fold in range(5):
        cases = {
            role: {r["case_id"] for r in placed if (r["fold"], r["role"]) == (fold, role)}
            for role in ("train", "val", "test")
        }
        assert not cases["train"] & cases["test"]
        assert not cases["val"] & cases["test"]
        assert not cases["train"] & cases["val"]
    beside = [m for m in done.measures if m.against]
    assert {m.details["published"] for m in beside} == {0.8744, 0.9505}
    assert all(m.details["drift"] is None for m in beside)
    assert any("no linear probe of phikon was published" in n for n in done.notes)


def test_the_paper_s_numbers_are_those_of_its_two_experiments(tmp_path: Path) -> None:
    """Means and SDs as `probes run` prints them, by annotation, in and out of domain."""
    rng = np.random.default_rng(2)
    rows = [
        {
            "slide": f"s{k % 12}.tiff",
            "x": str(k),
            "y": "1",
            "label": ("mitotic figure", "hard negative")[int(rng.integers(2))],
            "domain": "abc"[k % 3],
        }
        for k in range(600)
    ]
    write_csv(tmp_path / "a.csv", rows)
    add(str(tmp_path / "s"), "mine", tmp_path / "a.csv", AddOptions())
    store = Store.open(str(tmp_path / "s"), write=True)
    plant(store, "uni", 64, 2.0)
    done = reproduce(store, "paper-midog", dataset="mine")
    means = {m.split: m for m in done.measures if m.against is None}
    assert set(means) == {"all", "in domain", "out of domain"}
    for scheme in ("monte-carlo", "cross-domain"):
        report = run(store, ManifestSpec("mine", scheme), RunOptions(["uni"]))
        assert report.n_new == 0
        for s in summarise(report.rows):
            assert means[s.where].value == pytest.approx(s.mean, abs=1e-9)
            assert means[s.where].details["sd"] == pytest.approx(s.sd, abs=1e-9)
    of = {(m.split, m.against): m.details for m in done.measures if m.against}
    assert of["out of domain", OF_UNI]["published"] == 0.64
    assert of["out of domain", OF_UNI]["drift"] == HIGHER


def test_the_command_prints_it_and_python_returns_it(ami_br: Store) -> None:
    words = ("probes", "reproduce", "ami-br", "--model", "uni", "--store", ami_br.uri)
    done = call_command(*words)
    assert done.code == 0, done.err
    assert "UNI, linear probe" in done.out
    assert "balanced accuracy" in done.out
    assert "MELBA 2026:006" in done.err
    assert "otherwise than published" in done.err
    every = call_command(*words, "--every")
    assert "Virchow2, LoRA" in every.out
    assert "Virchow2, LoRA" not in done.out
    rows = json.loads(call_command(*words, "--json").out)
    frame = probes.reproduce(ami_br.uri, "ami-br", model="uni")
    assert len(rows) == len(frame) == 4 + 4 * 17
    assert sorted(r["value"] for r in rows) == pytest.approx(sorted(frame["value"]))


def test_the_page_has_it_beside_the_paper_s_numbers(ami_br: Store, tmp_path: Path) -> None:
    done = reproduce(ami_br, "ami-br", models=["uni"])
    report(ami_br, ["ami-br"], tmp_path / "page")
    with (tmp_path / "page" / "reproduced-1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    told = sorted(r["difference"] for r in rows_beside(done.measures))
    assert sorted(float(r["difference"]) for r in rows) == pytest.approx(told)
    assert "Published protocols, done on ami-br" in (tmp_path / "page" / "index.html").read_text()


def test_a_second_recipe_or_model_takes_the_place_of_none(ami_br: Store) -> None:
    with_signal(ami_br, "ami-br", "other", 2.5)
    reproduce(ami_br, "ami-br", models=["uni"])
    reproduce(ami_br, "ami-br", models=["other"])
    reproduce(ami_br, "paper-midog", models=["uni"], dataset="ami-br")
    sql = "select distinct factor, model from measures where study = 'reproduce' order by all"
    assert query_pairs(ami_br, sql) == [
        ("ami-br", "other"),
        ("ami-br", "uni"),
        ("paper-midog", "uni"),
    ]


def test_what_is_not_of_two_labels_or_has_random_weights_is_said(tmp_path: Path) -> None:
    rows = [
        {"slide": f"s{k % 9}", "x": str(k), "y": "1", "label": "abc"[k % 3], "domain": "d"}
        for k in range(90)
    ]
    write_csv(tmp_path / "a.csv", rows)
    three = AddOptions(
        labels={"a": "mitotic figure", "b": "b", "c": "c"}, positive="mitotic figure"
    )
    add(str(tmp_path / "s"), "three", tmp_path / "a.csv", three)
    store = Store.open(str(tmp_path / "s"), write=True)
    with pytest.raises(EmbedstoreError, match="of two labels, 'three' has 3: b, c, mitotic figure"):
        reproduce(store, "paper-midog", dataset="three")
    write_csv(tmp_path / "b.csv", [{**r, "label": "ab"[k % 2]} for k, r in enumerate(rows)])
    two = AddOptions(labels={"a": "mitotic figure", "b": "b"}, positive="mitotic figure")
    add(str(tmp_path / "s"), "two", tmp_path / "b.csv", two)
    plant(store, "uni", 32, 3.0, weights="random")
    done = reproduce(store, "paper-midog", dataset="two")
    assert {m.details["drift"] for m in done.measures if m.against} == {None}
    assert "uni: random weights, whose numbers say nothing" in done.notes
    assert "cross-domain is left out: one domain" in done.notes


def test_help_names_every_recipe() -> None:
    said = call_command("probes", "reproduce", "--help").out
    assert all(name in said for name in RECIPES)


def test_a_recipe_is_a_row(ami_br: Store) -> None:
    """Every recipe names a public dataset, scores what it publishes, and says where it departs."""
    from embedstore.archives.catalogue import PUBLIC

    for recipe in RECIPES.values():
        assert {recipe.dataset, *recipe.elsewhere} <= set(PUBLIC)
        assert {p.metric for p in recipe.published} <= set(recipe.metrics)
        assert recipe.departs
        assert recipe.citation
        assert all(isinstance(p, Published) for p in recipe.published)
    assert isinstance(reproduce(ami_br, "ami-br").measures[0], Measure)
