"""`e2e run` and `e2e predict`: on the probes' manifests, into the probes' tables, killed and resumed."""

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.predict import PredictOptions, predict
from e2e.recipe import Recipe
from e2e.run import Listener, TrainOptions, run
from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.ingest import IngestOptions, ingest
from embedstore.store import Store
from embedstore.store.sql import connect, fetch_rows
from probes.run import RunOptions
from probes.run import run as run_probes
from probes.splits.spec import ManifestSpec
from tests.making.commands import BIN, outside, run_command
from tests.making.slides import TinyDataset, make_tiny, write_slide

RESNET, VIT = "timm:test_resnet", "timm:test_vit"
SMALL = Recipe(epochs=2, min_steps=6, batch_size=8, max_lr=1e-3, patch_px=32)
OPTIONS = TrainOptions(
    backbone="test_resnet",
    weights="random",
    recipe=SMALL,
    folds=[0],
    n_resamples=50,
    device="cpu",
    dtype="float32",
)

PLAIN = PredictOptions(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[TinyDataset, Store]:
    """A dataset of its own with one model's embeddings; tests add runs to it."""
    folder = tmp_path_factory.mktemp("e2e")
    tiny = make_tiny(folder / "data", per_label=8)
    uri = str(folder / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    ingest(store, "tiny", [RESNET], IngestOptions(weights={RESNET: "random"}))
    return tiny, store


@pytest.fixture
def store(place: tuple[TinyDataset, Store]) -> Store:
    return place[1]


def rows_of(store: Store, sql: str) -> list[dict]:
    return fetch_rows(connect(store), sql)


def test_probe_and_e2e_share_the_manifest_and_its_test_annotations(store: Store) -> None:
    spec = ManifestSpec("tiny")
    probes = run_probes(store, spec, RunOptions(folds=[0, 1], n_resamples=50))
    trained = run(store, spec, replace(OPTIONS, folds=[0, 1]))
    assert probes.manifest_id == trained.manifest_id
    joined = rows_of(
        store,
        "select a.fold, a.value as probe, b.value as e2e, a.n_test, b.n_test as n, a.n_train, "
        "b.n_train as m from results a join results b using (manifest_id, fold, fraction, metric, "
        f"eval_domain) where a.method = 'uni' and b.method = 'e2e' and metric = 'auroc' and "
        f"b.model = '{RESNET}'",
    )
    assert [r["fold"] for r in sorted(joined, key=lambda r: r["fold"])] == [0, 1]
    assert all(r["n_test"] == r["n"] and r["n_train"] == r["m"] for r in joined)
    for fold in (0, 1):
        sets = [
            {
                p["annotation_id"]
                for p in rows_of(
                    store,
                    "select annotation_id from predictions join (select distinct run_id, method, "
                    f"fold from results) using (run_id) where method = '{m}' and fold = {fold} "
                    "and role = 'test'",
                )
            }
            for m in ("uni", "e2e")
        ]
        assert sets[0] == sets[1]
        assert len(sets[0]) == 12


def test_e2e_is_compared_with_a_probe_and_an_adaptation_has_a_name_of_its_own(store: Store) -> None:
    from probes.compare import CompareOptions, compare
    from probes.scores.results import summarise
    from probes.scores.sides import Side

    spec = ManifestSpec("tiny", seed=7)
    probe = run_probes(store, spec, RunOptions(folds=[0], n_resamples=50))
    full = run(store, spec, OPTIONS)
    head = run(store, spec, replace(OPTIONS, recipe=replace(SMALL, adapt="head")))
    sides = [Side.parse(f"{method}:{RESNET}") for method in ("e2e", "e2e+head")]
    options = CompareOptions(seed=7, n_resamples=50)
    rows, _ = compare(store, "tiny", Side.parse(f"uni:{RESNET}"), sides, options)
    value = {
        name: next(r["value"] for r in report.rows if r["metric"] == "auroc")
        for name, report in (("uni", probe), ("e2e", full), ("e2e+head", head))
    }
    assert {r["b"]: r["difference"] for r in rows} == {
        f"{name}:{RESNET}": pytest.approx(value["uni"] - value[name])
        for name in ("e2e", "e2e+head")
    }
    assert {s.method for s in summarise(head.rows)} == {"e2e+head"}


def test_labels_are_the_annotations_own_and_all_metrics_are_there(store: Store) -> None:
    report = run(store, ManifestSpec("tiny"), OPTIONS)
    (auroc,) = [r for r in report.rows if r["metric"] == "auroc"]
    scored = rows_of(
        store,
        "select p.score, a.label from predictions p join annotations a using (annotation_id) "
        f"where run_id = '{auroc['run_id']}' and role = 'test'",
    )
    from sklearn.metrics import roc_auc_score

    truth = [r["label"] == "mitotic figure" for r in scored]
    assert auroc["value"] == pytest.approx(roc_auc_score(truth, [r["score"] for r in scored]))
    assert len(report.rows) == 7
    assert auroc["ci_low"] <= auroc["value"] <= auroc["ci_high"]
    assert (auroc["weights"], auroc["model"]) == ("random", RESNET)
    assert json.loads(auroc["params"])["max_lr"] == 1e-3
    assert json.loads(auroc["chosen"])["dtype"] in ("float32", "bfloat16")
    assert "pixels" not in json.loads(auroc["chosen"])
    assert re.fullmatch("[0-9a-f]{16}", auroc["pixels"])


def test_a_recorded_run_is_not_trained_again_and_force_repeats_it_exactly(store: Store) -> None:
    first = run(store, ManifestSpec("tiny"), OPTIONS)
    lines = []
    again = run(store, ManifestSpec("tiny"), OPTIONS, Listener(line=lines.append))
    assert (again.n_new, again.n_recorded, lines) == (0, 1, [])
    forced = run(
        store, ManifestSpec("tiny"), replace(OPTIONS, force=True), Listener(line=lines.append)
    )
    assert forced.n_new == 1
    assert [r["value"] for r in forced.rows] == [r["value"] for r in first.rows]
    assert re.search(r"random weights.*fold 0, fraction 1, n_train \d+", lines[0])
    assert re.search(
        r"epoch 2/2 +loss [\d.]+ +val loss [\d.]+ +val AUROC [\d.]+ .*images/s", lines[-1]
    )
    other = replace(OPTIONS, recipe=replace(SMALL, jitter=0.0))
    assert run(store, ManifestSpec("tiny"), other).n_new == 1  # another recipe is another run


def test_force_goes_on_after_an_interruption(store: Store) -> None:
    first = run(store, ManifestSpec("tiny"), OPTIONS)
    forced, lines = replace(OPTIONS, force=True), []

    def stop(line: str) -> None:
        if "epoch 1/2" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, ManifestSpec("tiny"), forced, Listener(line=stop))
    again = run(store, ManifestSpec("tiny"), forced, Listener(line=lines.append))
    assert not any("epoch 1/2" in line for line in lines)
    assert any("epoch 2/2" in line for line in lines)
    assert [r["value"] for r in again.rows] == [r["value"] for r in first.rows]


def test_a_run_leaves_its_model_curve_and_config(store: Store) -> None:
    report = run(store, ManifestSpec("tiny"), OPTIONS)
    folder = Path(store.uri) / "runs" / report.rows[0]["run_id"]
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "curve.csv",
        "model.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert config["manifest_id"] == report.manifest_id
    assert config["labels"] == ["non-mitotic figure", "mitotic figure"]
    with (folder / "curve.csv").open() as f:
        curve = list(csv.DictReader(f))
    assert [int(r["epoch"]) for r in curve] == [1, 2]
    assert all(float(r["loss"]) > 0 for r in curve)


@pytest.mark.parametrize(
    ("backbone", "adapt"), [("test_resnet", "full"), ("test_vit", "lora"), ("test_resnet", "head")]
)
def test_predict_gives_the_scores_that_were_recorded(
    store: Store, backbone: str, adapt: str
) -> None:
    options = replace(OPTIONS, backbone=backbone, recipe=replace(SMALL, adapt=adapt, lora_rank=2))
    report = run(store, ManifestSpec("tiny"), options)
    run_id = report.rows[0]["run_id"]
    scored = {r["annotation_id"]: r for r in predict(store, run_id, "tiny", PLAIN).to_pylist()}
    assert len(scored) == 64
    recorded = rows_of(store, f"from predictions where run_id = '{run_id}'")
    assert len(recorded) > 15
    for r in recorded:
        assert scored[r["annotation_id"]]["label"] == r["label"] == "mitotic figure"
        assert scored[r["annotation_id"]]["score"] == pytest.approx(r["score"], abs=1e-5)


def test_cross_domain_is_scored_by_domain(store: Store) -> None:
    options = replace(OPTIONS, train_domains=["a"])
    report = run(store, ManifestSpec("tiny", scheme="cross-domain"), options)
    aurocs = {r["eval_domain"]: r for r in report.rows if r["metric"] == "auroc"}
    assert set(aurocs) == {"a", "b"}
    assert aurocs["b"]["n_test"] == 32
    assert {r["train_domain"] for r in report.rows} == {"a"}


def test_more_than_two_labels_and_pre_cropped_patches(tmp_path: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for n in range(45):
        pixels = rng.integers(0, 80, (40, 40, 3), dtype=np.uint8)
        pixels[..., n % 3] += 120
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
        rows.append({"path": f"{n}.png", "label": "rgb"[n % 3], "case": str(n // 9)})
    with (tmp_path / "p.csv").open("w", newline="") as f:
        writer = csv.DictWriter(f, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    uri = str(tmp_path / "S")
    add(
        uri,
        "p",
        tmp_path / "p.csv",
        AddOptions(format="patches", slides=tmp_path, labels={c: c for c in "rgb"}),
    )
    store = Store.open(uri)
    recipe = replace(SMALL, epochs=4, min_steps=120, max_lr=1e-2, hue=0.0)
    report = run(store, ManifestSpec("p", group_by="case"), replace(OPTIONS, recipe=recipe))
    value = {r["metric"]: r["value"] for r in report.rows}
    assert value["auroc"] > 0.95
    run_id = report.rows[0]["run_id"]
    table = predict(store, run_id, "p", PLAIN).to_pylist()
    assert len(table) == 3 * 45
    sums: dict[str, float] = {}
    for r in table:
        sums[r["annotation_id"]] = sums.get(r["annotation_id"], 0) + r["score"]
    assert all(s == pytest.approx(1) for s in sums.values())
    assert rows_of(store, "select count(*) as n from patches")[0]["n"] == 0  # files already


def test_only_annotations_of_the_manifest_are_read_and_trained_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2e.data import StoredPatches

    seen: set[str] = set()
    real = StoredPatches.read

    def note(self, ids: Any) -> Any:
        seen.update(ids)
        return real(self, ids)

    monkeypatch.setattr(StoredPatches, "read", note)
    spec = ManifestSpec("tiny", where="domain = 'a'")
    report = run(store, spec, OPTIONS)
    ids = {
        r["annotation_id"]
        for r in rows_of(
            store, f"from manifests where manifest_id = '{report.manifest_id}' and fold = 0"
        )
    }
    assert seen == ids
    assert len(ids) == 32


def test_the_patch_cache_changes_no_number(store: Store) -> None:
    spec = ManifestSpec("tiny")
    cached = run(store, spec, replace(OPTIONS, force=True))
    direct = run(store, spec, replace(OPTIONS, force=True, patch_cache=False))
    assert [r["value"] for r in direct.rows] == [r["value"] for r in cached.rows]


def test_a_changed_slide_is_trained_on_again(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "data", per_label=4)
    uri = str(tmp_path / "store")
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    store = Store.open(uri)
    first = run(store, ManifestSpec("tiny"), OPTIONS)
    pixels = np.random.default_rng(9).integers(0, 255, (700, 900, 3), dtype=np.uint8)
    write_slide(tiny.slides / "a0.tiff", pixels)
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    again = run(store, ManifestSpec("tiny"), OPTIONS)
    assert again.n_new == 1
    assert again.rows[0]["run_id"] == first.rows[0]["run_id"]
    assert [r["value"] for r in again.rows] != [r["value"] for r in first.rows]
    assert run(store, ManifestSpec("tiny"), OPTIONS).n_new == 0


def test_slides_without_a_file_are_named_and_a_cache_does_without_them(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "data", per_label=4)
    uri = str(tmp_path / "store")
    add(uri, "tiny", tiny.csv, AddOptions())
    store = Store.open(uri)
    with pytest.raises(EmbedstoreError, match=r"4 slides .*a0\.tiff.*--slides DIR"):
        run(store, ManifestSpec("tiny"), OPTIONS)
    assert rows_of(store, "from results") == []
    assert not (Path(uri) / "runs").exists()
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    run(store, ManifestSpec("tiny"), OPTIONS)
    shutil.move(tiny.slides, tmp_path / "elsewhere")
    assert run(store, ManifestSpec("tiny"), replace(OPTIONS, folds=[1])).n_new == 1


def test_killed_at_any_moment_the_same_command_ends_with_the_same_numbers(
    place: tuple[TinyDataset, Store], tmp_path: Path
) -> None:
    tiny, _ = place
    words = [
        "--backbone",
        "test_resnet",
        "--weights",
        "random",
        "--epochs",
        "6",
        "--min-steps",
        "60",
        "--batch-size",
        "8",
        "--patch-px",
        "48",
        "--fold",
        "0",
        "--json",
    ]
    found = {}
    for what in ("whole", "killed"):
        uri = str(tmp_path / what)
        add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
        command = [str(BIN / "e2e"), "run", "tiny", *words, "--store", uri]
        for after in (1, 3) if what == "killed" else ():
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=outside()
            )  # as many threads as the others: sums depend on them
            for line in process.stderr:
                if f"epoch {after}/6" in line:
                    break
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=60)
            assert rows_of(Store.open(uri), "from results") == []
        done = run_command("e2e", "run", "tiny", *words, "--store", uri)
        found[what] = [r["value"] for r in done.json()]
        assert ("epoch 1/6" in done.err) == (what == "whole")  # the other went on
        assert "epoch 6/6" in done.err
    assert found["whole"] == found["killed"]
    assert len(found["whole"]) == 7


def test_ctrl_c_says_how_to_go_on(place: tuple[TinyDataset, Store], tmp_path: Path) -> None:
    _, store = place
    command = [
        BIN / "e2e",
        "run",
        "tiny",
        "--backbone",
        "test_resnet",
        "--weights",
        "random",
        "--epochs",
        "50",
        "--min-steps",
        "500",
        "--patch-px",
        "64",
        "--store",
        store.uri,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 1/50" in line:
            process.send_signal(signal.SIGINT)
            break
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command does the rest" in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "resnet51"}, "timm:resnet"),
        ({"recipe": replace(SMALL, adapt="lora")}, "--adapt full or head"),
        ({"weights": "none.pt"}, "no weights for timm:test_resnet at none.pt"),
        ({"fractions": [0.001]}, "fraction 0.001"),
        ({"manifest": "ffff"}, "ffff"),
        ({"device": "cuda:7"}, "cuda:7"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(store: Store, changes: Any, said: str) -> None:
    runs = Path(store.uri) / "runs"
    before = sorted(runs.iterdir())
    with pytest.raises(EmbedstoreError, match=re.escape(said)):
        run(store, ManifestSpec("tiny"), replace(OPTIONS, **{"folds": [4], **changes}))
    assert sorted(runs.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [
                "--backbone",
                "test_resnet",
                "--weights",
                "random",
                "--adapt",
                "some",
                "--batch-size",
                "1",
            ],
            "--batch-size 1",
        ),
        (["--weights", "hub"], "timm/resnet50.tv2_in1k"),
    ],
)
def test_bad_input_has_one_message_and_the_right_code(store: Store, words: Any, said: str) -> None:
    done = run_command("e2e", "run", "tiny", *words, "--store", store.uri)
    assert done.code == 1
    assert done.out == ""
    assert said in done.err
    assert "Traceback" not in done.err


def test_predict_tells_other_runs_and_unknown_ones_apart(store: Store) -> None:
    report = run_probes(store, ManifestSpec("tiny"), RunOptions(folds=[0], n_resamples=50))
    with pytest.raises(EmbedstoreError, match="probes predict"):
        predict(store, report.rows[0]["run_id"], "tiny")
    with pytest.raises(EmbedstoreError, match="no trained model of run 'nope'"):
        predict(store, "nope", "tiny")
    trained = run(store, ManifestSpec("tiny"), OPTIONS).rows[0]["run_id"]
    with pytest.raises(EmbedstoreError, match="no dataset 'other'"):
        predict(store, trained, "other")
    done = run_command("e2e", "predict", trained, "tiny", "--json", "--store", store.uri)
    assert len(done.json()) == 64


def test_lora_refuses_another_backbone_than_it_was_trained_on(store: Store, tmp_path: Path) -> None:
    import timm
    import torch

    files = []
    for n in range(2):
        torch.manual_seed(n)
        files.append(tmp_path / f"{n}.pt")
        torch.save(timm.create_model("test_vit", num_classes=0).state_dict(), files[n])
    recipe = replace(SMALL, adapt="lora", lora_rank=2)
    options = replace(OPTIONS, backbone="test_vit", weights=str(files[0]), recipe=recipe)
    run_id = run(store, ManifestSpec("tiny"), options).rows[0]["run_id"]
    with pytest.raises(EmbedstoreError, match="are not those of run"):
        predict(store, run_id, "tiny", PredictOptions(weights=str(files[1])))
    files[0].rename(tmp_path / "moved.pt")
    there = predict(store, run_id, "tiny", replace(PLAIN, weights=str(tmp_path / "moved.pt")))
    assert len(there) == 64
