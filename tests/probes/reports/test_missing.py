"""What the report says is missing, beside the published numbers, and of other kinds of data."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import EmbedstoreError
from embedstore.models.registry import REGISTRY
from embedstore.reading.pixels import Patches
from embedstore.store import Store
from probes.recipes.ganz2025 import PUBLISHED, paper_dataset
from probes.reports import report
from probes.reports.data import gather
from probes.reports.predictions import scores_of
from probes.runs import RunOptions, run
from probes.scores.metrics import calibration_error
from probes.scores.results import summarise
from probes.splits.spec import ManifestSpec
from tests.making.commands import call_command
from tests.making.reports import table
from tests.making.stores import bare_store, cells, plant_cells, put_embeddings, query

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
    done = run(made, ManifestSpec("midog-small", scheme="cross-domain"), RunOptions())
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
    made.merge("models", [{**query(made, "select * from models")[0], "weights": "random"}])
    run(made, ManifestSpec("shown", scheme="cross-domain"), RunOptions())
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
    run(made, ManifestSpec("three"), RunOptions())
    (s,) = scores_of(gather(made, []))
    assert s.positive is None
    rows = query(
        made,
        "select r.model, p.run_id, p.annotation_id as i, p.label, p.score, a.label as truth from predictions p "
        "join (select distinct run_id, model from results) r using (run_id) join annotations a using (annotation_id) "
        "where p.role = 'test'",
    )
    order = sorted(set(names))
    truth = {r["i"]: r["truth"] for r in rows}
    for e in s.sides:
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
    for r in s.disagreements(s.sides, 3):
        assert r["high"] - r["low"] > 0
    report(made, [], tmp_path / "r")
    page = (tmp_path / "r" / "index.html").read_text()
    assert "Taken for another label, most confident first" in page
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
    patches = Patches(facts.store, facts.con, "crops")
    assert patches
    ids = {
        r["annotation_id"]: int(Path(r["path"]).stem)
        for r in query(
            made, "select annotation_id, path from annotations join slides using (dataset, slide)"
        )
    }
    found = patches.read(ids, 112)
    assert len(found) == 39
    for i, image in found.items():
        np.testing.assert_array_equal(image, pixels[ids[i]])
