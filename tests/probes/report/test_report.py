"""The report: its numbers against SQL and numpy, its files, what it says is missing, hostile names."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import EmbedstoreError
from embedstore.models.registry import REGISTRY
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.report import report
from probes.report.blocks import styles
from probes.report.data import gather
from probes.report.images import Patches
from probes.report.predictions import scores_of
from probes.report.published import PUBLISHED, paper_dataset
from probes.report.repeat import command
from probes.report.sections.map import components
from probes.report.tables import Column, Table, best_of, latex_text, markdown_text, to_csv, to_latex
from probes.run import RunOptions, run
from probes.scores.metrics import calibration_error
from probes.scores.results import summarise
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.stores import DATASET, OTHER, bare_store, cells, plant_cells, put_embeddings


def table(written: dict[str, Path], name: str) -> list[dict]:
    return list(csv.DictReader(io.StringIO(written[f"{name}.csv"].read_text())))


def sql(store: Store, query: str) -> list[dict]:
    return fetch_rows(connect(store), query)


# ----------------------------------------------------------------------------------- numbers


def test_figure_1_holds_the_means_over_folds(store: Store, written: dict[str, Path]) -> None:
    want = sql(
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
        got = [float(r[k]) for k in ("mean", "sd", "ci_low", "n_runs")]
        assert got == pytest.approx([w["mean"], w["sd"], w["low"], w["k"]])
        assert int(r["n_train"]) == round(w["n"])


def test_table_2_is_as_the_paper_counts(store: Store, written: dict[str, Path]) -> None:
    want = sql(
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
    want = sql(
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
    done = run(made, ManifestSpec("one"), RunOptions(eval_dataset="two", n_resamples=20))
    report(made, ["one"], tmp_path / "r")
    (r,) = csv.DictReader(io.StringIO((tmp_path / "r" / "elsewhere.csv").read_text()))
    want = np.mean(
        [x["value"] for x in done.rows if x["metric"] == "auroc" and x["eval_domain"] == "all"]
    )
    assert (r["eval_dataset"], r["n_runs"]) == ("two", "5")
    assert float(r["mean"]) == pytest.approx(want)


def test_the_audit_is_the_mean_over_splits(store: Store, written: dict[str, Path]) -> None:
    want = sql(
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
        rows = sql(
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
    for e in scores.entries:
        rows = sql(
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
    rows = scores.disagreements(scores.entries, 1000)
    gaps = [r["high"] - r["low"] for r in rows]
    assert gaps == sorted(gaps, reverse=True)
    assert len(rows) == len({r["annotation_id"] for r in rows})
    top = scores.against(scores.entries[:2], scores.entries[2], 5)
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
    flat, none = components(np.ones((5, 4)))
    assert not flat.any()
    assert none == [0, 0]


# ------------------------------------------------------------------------------------- files


def test_every_file_is_there_and_valid(written: dict[str, Path]) -> None:
    names = set(written)
    for stem in ("figure1", "figure2-1", "calibration", "map-1"):
        assert {f"{stem}.svg", f"{stem}.png"} <= names
        ET.parse(written[f"{stem}.svg"])
        with Image.open(written[f"{stem}.png"]) as image:
            image.load()
            assert image.width > 500
    tables = [n.removesuffix(".csv") for n in names if n.endswith(".csv")]
    assert {
        "table1",
        "table2",
        "figure1",
        "figure2",
        "leakage",
        "grouping",
        "pairs",
        "paper-1",
        "calibration",
        "domain",
        "metrics",
        "manifests",
        "weights",
        "commands",
    } <= set(tables)
    for stem in tables:
        rows = list(csv.reader(io.StringIO(written[f"{stem}.csv"].read_text())))
        assert len(rows) > 1
        assert {len(r) for r in rows} == {len(rows[0])}
        lines = [x for x in written[f"{stem}.md"].read_text().splitlines() if x.startswith("|")]
        assert len(lines) == len(rows) + 1
        assert len({len(re.findall(r"(?<!\\)\|", x)) for x in lines}) == 1, stem
        tex = written[f"{stem}.tex"].read_text()
        body = tex[tex.index("\\toprule") : tex.index("\\bottomrule")].splitlines()
        ampersands = {len(re.findall(r"(?<!\\)&", x)) for x in body if x.endswith("\\\\")}
        assert len(ampersands) == 1, stem
        bare = re.sub(r"\\[{}]", "", tex)
        assert bare.count("{") == bare.count("}")
        text = tex[tex.index("\\caption") :]
        assert not re.search(r"(?<!\\)[#%_^~]", text), stem
    assert len(names) == 1 + 8 + 3 * len(tables)


def test_no_markup_of_a_name_survives_in_text_forms() -> None:
    assert markdown_text("<b>|*_`[x](y)") == r"&lt;b&gt;\|\*\_\`\[x\](y)"
    assert latex_text("50% of $x_1$ & {y}\\z") == (r"50\% of \$x\_1\$ \& \{y\}\textbackslash{}z")
    row = Table("t", "T", [Column("a", "a")], [{"a": "=1+1\n2", "b": float("nan")}])
    assert to_csv(row) == 'a,b\n"\'=1+1\n2",\n'
    assert "=1+1 2" in to_latex(row)


def test_bold_is_the_best_of_its_group_and_nothing_where_all_are_equal() -> None:
    rows = [
        {"g": 1, "v": 0.5},
        {"g": 1, "v": 0.7},
        {"g": 2, "v": 0.9},
        {"g": 2, "v": 0.9},
        {"g": 1, "v": None},
        {"g": 3, "v": float("nan")},
    ]
    assert best_of(rows, "v", ("g",)) == {(1, "v")}
    runs = [{"v": 0.9, "n": 1}, {"v": 0.5, "n": 5}, {"v": 0.6, "n": 5}]
    assert best_of(runs, "v", (), "n") == {(2, "v")}


class _Reader(HTMLParser):
    """What a browser would see: tags, attributes that run scripts, addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts, self.handlers, self.addresses = [], [], []

    def handle_starttag(self, tag: Any, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append(dict(attrs).get("type"))
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        self.addresses += [v for k, v in attrs if k in ("src", "href")]


def test_the_page_escapes_every_name_and_needs_no_network(written: dict[str, Path]) -> None:
    text = written["index.html"].read_text()
    seen = _Reader()
    seen.feed(text)
    n_widgets = text.count('class="widget"')
    assert seen.scripts == ["application/json"] * n_widgets + [None]
    assert not seen.handlers
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<img src=x" not in text
    assert "<b>|m|" not in text
    for address in seen.addresses:
        assert address.startswith(("#", "data:image/jpeg")) or address in written, address
    assert not re.findall(r"https?://(?!www\.w3\.org)", text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for data in re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL):
        json.loads(data)


def test_nothing_is_written_to_the_store(store: Store, tmp_path: Path) -> None:
    before = {t: store.stats(t)["version"] for t in store.tables()}
    report(store, [DATASET], tmp_path / "again")
    assert {t: store.stats(t)["version"] for t in store.tables()} == before


def test_writing_again_gives_the_same_figures(
    store: Store, written: dict[str, Path], tmp_path: Path
) -> None:
    rows = report(store, [], tmp_path)
    for r in rows:
        file = Path(r["file"])
        if file.suffix in (".svg", ".csv", ".md", ".tex"):
            assert file.read_bytes() == written[file.name].read_bytes(), file.name


# ------------------------------------------------------------------------- what is not there


def test_an_empty_dataset_names_the_commands_that_fill_it(tmp_path: Path) -> None:
    bare = bare_store(str(tmp_path / "s"), "few", cells(6))
    report(bare, [], tmp_path / "r")
    text = re.sub("</?span>", "", (tmp_path / "r" / "index.html").read_text())
    for line in (
        "probes run few --fraction 0.01",
        "probes run few --scheme cross-domain",
        "probes split few",
        "probes run few --group-by case",
        "embedstore ingest few --model",
        "probes run few --target domain",
        "e2e run few",
    ):
        assert line in text, line
    assert "Nothing is recorded yet" in text


def test_missing_models_of_the_paper_are_named(written: dict[str, Path]) -> None:
    text = written["index.html"].read_text()
    rows = table(written, "paper-1")
    for p in PUBLISHED:
        assert p.shown in text
    assert all(r["mean"] == "" for r in rows)
    assert "missing" in written["paper-1.md"].read_text()
    assert "not the paper" in text


def test_the_published_numbers_are_the_papers() -> None:
    assert len(PUBLISHED) == 20
    assert {p.model for p in PUBLISHED} <= set(REGISTRY)
    by = {(p.shown, p.where): (p.mean, p.sd) for p in PUBLISHED if p.scheme == "cross-domain"}
    assert by["UNI", "in domain"] == (0.76, 0.03)
    assert by["Phikon", "out of domain"] == (0.61, 0.05)
    assert by["End-to-end ResNet50", "out of domain"] == (0.74, 0.07)
    assert paper_dataset("MIDOG22") == "MIDOG"
    assert paper_dataset("odael") == "CCMCT"
    assert paper_dataset("mine") is None


def test_a_measured_number_stands_beside_the_published_one(tmp_path: Path) -> None:
    made = plant_cells(str(tmp_path / "s"), "midog-small", ("uni",))
    done = run(made, ManifestSpec("midog-small", scheme="cross-domain"), RunOptions(n_resamples=20))
    report(made, [], tmp_path / "r")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "r" / "paper-1.csv").read_text())))
    assert len(rows) == 19
    for s in summarise(done.rows):
        (r,) = [r for r in rows if r["model"] == "UNI" and r["where"] == s.where]
        assert float(r["mean"]) == pytest.approx(s.mean)
        assert float(r["difference"]) == pytest.approx(s.mean - float(r["published_mean"]))
        gap = abs(s.mean - float(r["published_mean"]))
        assert (r["within"] == "True") == (gap <= float(r["published_sd"]) + 1e-9)
    assert sum(r["mean"] == "" for r in rows) == 17


def test_demonstration_data_and_random_weights_are_marked(tmp_path: Path) -> None:
    made = plant_cells(
        str(tmp_path / "s"),
        "shown",
        ("resnet50-imagenet",),
        domains=("demo rose", "demo violet", "demo amber"),
    )
    made.merge("models", [{**sql(made, "select * from models")[0], "weights": "random"}])
    run(made, ManifestSpec("shown", scheme="cross-domain"), RunOptions(n_resamples=20))
    report(made, [], tmp_path / "r")
    title = (tmp_path / "r" / "paper-1.md").read_text().splitlines()[0]
    assert "demonstration data, not tissue; with random weights" in title
    text = (tmp_path / "r" / "index.html").read_text()
    assert "Demonstration data: shown" in text
    assert "Random weights: resnet50-imagenet" in text


def test_wrong_input_is_told(store: Store, tmp_path: Path) -> None:
    with pytest.raises(EmbedstoreError, match="no dataset 'nope'"):
        report(store, ["nope"], tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(EmbedstoreError, match="is a file; --output names a folder"):
        report(store, [], tmp_path / "file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    empty = Store.open(str(tmp_path / "s"), create=True)
    with pytest.raises(EmbedstoreError, match="holds no dataset"):
        report(empty, [], tmp_path / "r")


def test_more_than_two_labels_have_mistakes_and_calibration(tmp_path: Path) -> None:
    """Beyond two labels: what is most surely taken for another one, and bins of the likeliest."""
    mine = [{**c, "label": f"label {k % 3}"} for k, c in enumerate(cells(240))]
    made = bare_store(str(tmp_path / "s"), "three", mine)
    ids = [f"three/{c['slide']}/{c['source_id']}" for c in mine]
    rng, names = np.random.default_rng(0), [c["label"] for c in mine]
    for m in ("one", "two"):
        vectors = rng.normal(size=(240, 60)) + 1.2 * np.eye(60)[[int(n[-1]) for n in names]]
        put_embeddings(made, m, ids, vectors.astype(np.float32))
    run(made, ManifestSpec("three"), RunOptions(n_resamples=10))
    (s,) = scores_of(gather(made, []))
    assert s.positive is None
    rows = sql(
        made,
        "select r.model, p.run_id, p.annotation_id as i, p.label, p.score, a.label as truth from predictions p "
        "join (select distinct run_id, model from results) r using (run_id) join annotations a using (annotation_id) "
        "where p.role = 'test'",
    )
    order = sorted(set(names))
    truth = {r["i"]: r["truth"] for r in rows}
    for e in s.entries:
        each = [r for r in rows if r["model"] == e.model]
        keys = sorted({(r["run_id"], r["i"]) for r in each})
        p = np.zeros((len(keys), 3))
        place = {k: n for n, k in enumerate(keys)}
        for r in each:
            p[place[r["run_id"], r["i"]], order.index(r["label"])] = r["score"]
        y = np.array([order.index(truth[i]) for _, i in keys])
        bins = s.bins()[e]
        assert sum(b["n"] for b in bins) == len(keys)
        gap = sum(b["n"] * abs(b["mean_score"] - b["share_positive"]) for b in bins) / len(keys)
        want = calibration_error(y, p, np.ones((1, len(y))), 0.5)[0]
        assert gap == pytest.approx(want, abs=1e-6)
        means = {
            i: p[[n for n, k in enumerate(keys) if k[1] == i]].mean(axis=0)
            for i in truth
            if any(k[1] == i for k in keys)
        }
        wrong = sorted((-m.max(), i) for i, m in means.items() if order[m.argmax()] != truth[i])
        got = s.mistakes(6)[e]["wrong"]
        assert [r["annotation_id"] for r in got] == [i for _, i in wrong[:6]]
        assert [r["score"] for r in got] == pytest.approx([-v for v, _ in wrong[:6]], abs=1e-6)
        assert [r["said"] for r in got] == [order[means[i].argmax()] for _, i in wrong[:6]]
    for r in s.disagreements(s.entries, 3):
        assert r["high"] - r["low"] > 0
    report(made, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Taken for another label, most surely first" in page
    assert "share that is right" in page


def test_pre_cropped_patches_are_shown_from_their_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 255, size=(40, 112, 112, 3), dtype=np.uint8)
    for k, p in enumerate(pixels):
        folder = tmp_path / "patches" / ("mitotic figure", "non-mitotic figure")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(p).save(folder / f"{k:02d}.png")
    at = ("--store", tmp_path / "s")
    assert (
        call_command("embedstore", "add", "crops", "--annotations", tmp_path / "patches", *at).code
        == 0
    )
    made = Store.open(str(tmp_path / "s"))
    (tmp_path / "patches" / "mitotic figure" / "00.png").unlink()  # gone since
    facts = gather(made, [])
    patches = Patches(facts, "crops")
    assert patches
    ids = {
        r["annotation_id"]: int(Path(r["path"]).stem)
        for r in sql(
            made, "select annotation_id, path from annotations join slides using (dataset, slide)"
        )
    }
    found = patches.read(ids, 112)
    assert len(found) == 39
    for i, image in found.items():
        np.testing.assert_array_equal(image, pixels[ids[i]])


# ---------------------------------------------------------------------------------- the verb


def test_the_command_lists_its_files(store: Store, tmp_path: Path) -> None:
    done = call_command(
        "probes", "report", "--output", tmp_path / "r", "--json", "--store", store.uri
    )
    rows = done.json()
    assert rows[0]["file"].endswith("index.html")
    assert {r["kind"] for r in rows} == {"page", "figure", "table"}
    assert {Path(r["file"]).name for r in rows} == {p.name for p in (tmp_path / "r").iterdir()}
    failed = call_command("probes", "report", "x", "--output", tmp_path / "r", "--store", store.uri)
    assert failed.code == 1
    assert "no dataset 'x'" in failed.err


def test_commands_are_quoted_for_a_shell(written: dict[str, Path]) -> None:
    assert command("probes", "run", "a b", "--where", "x = 'y'") == (
        "probes run 'a b' --where 'x = '\"'\"'y'\"'\"''"
    )
    made = [r["command"] for r in table(written, "commands")]
    assert any("--scheme cross-domain" in c for c in made)
    assert any("--target domain" in c for c in made)
    assert all(c.startswith(("probes run 'set", "embedstore ingest 'set")) for c in made)


def test_twenty_four_models_look_different(store: Store) -> None:
    facts = gather(store, [])
    few = styles(facts)
    assert len(set(few.values())) == len(few)
    from dataclasses import replace

    one = facts.entries[0]
    facts.__dict__["entries"] = [replace(one, model=f"m{k}") for k in range(24)]
    assert len(set(styles(facts).values())) == 24
