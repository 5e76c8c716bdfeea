"""`e2e run` and `e2e predict`: on the probes' manifests, into the probes' tables, killed and resumed."""

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from e2e.predict import predict
from e2e.run import Listener, run
from embedstore.add import AddOptions, add
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions
from probes.runs import run as run_probes
from probes.scores.results import from_null
from probes.splits.spec import Asked, ManifestSpec
from tests.making.slides import make_tiny, write_slide
from tests.making.stores import query
from tests.making.training import OPTIONS, PLAIN, RESNET, SMALL


def test_probe_and_e2e_share_the_manifest_and_its_test_annotations(store: Store) -> None:
    spec = ManifestSpec("tiny")
    probes = run_probes(store, spec, RunOptions(splits=Asked(folds=[0, 1])))
    trained = run(store, spec, replace(OPTIONS, splits=Asked(folds=[0, 1])))
    assert probes.manifest_id == trained.manifest_id
    joined = query(
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
                for p in query(
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
    from probes.scores.comparisons import CompareOptions
    from probes.scores.results import summarise
    from probes.scores.sides import Side
    from probes.studies.compare import compare

    spec = ManifestSpec("tiny", seed=7)
    probe = run_probes(store, spec, RunOptions(splits=Asked(folds=[0])))
    full = run(store, spec, OPTIONS)
    head = run(store, spec, replace(OPTIONS, recipe=replace(SMALL, adapt="head")))
    sides = [Side.parse(f"{method}:{RESNET}") for method in ("e2e", "e2e+head")]
    options = CompareOptions()
    rows, _ = compare(store, spec, Side.parse(f"uni:{RESNET}"), sides, options)
    value = {
        name: next(from_null(r.value) for r in report.rows if r.metric == "auroc")
        for name, report in (("uni", probe), ("e2e", full), ("e2e+head", head))
    }
    assert {r["b"]: r["difference"] for r in rows} == {
        f"{name}:{RESNET}": pytest.approx(value["uni"] - value[name])
        for name in ("e2e", "e2e+head")
    }
    assert {s.method for s in summarise(head.rows)} == {"e2e+head"}


def test_labels_are_the_annotations_own_and_all_metrics_are_there(store: Store) -> None:
    report = run(store, ManifestSpec("tiny"), OPTIONS)
    (auroc,) = [r for r in report.rows if r.metric == "auroc"]
    scored = query(
        store,
        "select p.score, a.label from predictions p join annotations a using (annotation_id) "
        f"where run_id = '{auroc.run_id}' and role = 'test'",
    )
    from sklearn.metrics import roc_auc_score

    truth = [r["label"] == "mitotic figure" for r in scored]
    assert auroc.value == pytest.approx(roc_auc_score(truth, [r["score"] for r in scored]))
    assert len(report.rows) == 7
    (brier,) = [r for r in report.rows if r.metric == "brier"]
    assert from_null(brier.ci_low) < from_null(brier.value) < from_null(brier.ci_high)
    assert (brier.ci_by, brier.ci_kind, brier.n_groups) == ("slide", "jackknife", 4)
    assert (auroc.weights, auroc.model) == ("random", RESNET)
    assert json.loads(auroc.params)["max_lr"] == 1e-3
    assert json.loads(auroc.chosen or "{}")["dtype"] in ("float32", "bfloat16")
    assert "pixels" not in json.loads(auroc.chosen or "{}")
    assert re.fullmatch("[0-9a-f]{16}", auroc.pixels or "")


def test_a_recorded_run_is_not_trained_again_and_force_repeats_it_exactly(store: Store) -> None:
    first = run(store, ManifestSpec("tiny"), OPTIONS)
    lines: list[str] = []
    again = run(store, ManifestSpec("tiny"), OPTIONS, Listener(line=lines.append))
    assert (again.n_new, again.n_recorded, lines) == (0, 1, [])
    forced = run(
        store, ManifestSpec("tiny"), replace(OPTIONS, force=True), Listener(line=lines.append)
    )
    assert forced.n_new == 1
    assert [r.value for r in forced.rows] == [r.value for r in first.rows]
    assert re.search(r"random weights.*fold 0, fraction 1, n_train \d+", lines[0])
    assert re.search(
        r"epoch 2/2 +loss [\d.]+ +val loss [\d.]+ +val AUROC [\d.]+ .*images/s", lines[-1]
    )
    other = replace(OPTIONS, recipe=replace(SMALL, jitter=0.0))
    assert run(store, ManifestSpec("tiny"), other).n_new == 1  # another recipe is another run


def test_a_run_leaves_its_model_curve_and_config(store: Store) -> None:
    report = run(store, ManifestSpec("tiny"), OPTIONS)
    folder = Path(store.uri) / "runs" / report.rows[0].run_id
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


def test_cross_domain_is_scored_by_domain(store: Store) -> None:
    options = replace(OPTIONS, splits=replace(OPTIONS.splits, train_domains=["a"]))
    report = run(store, ManifestSpec("tiny", scheme="cross-domain"), options)
    aurocs = {r.eval_domain: r for r in report.rows if r.metric == "auroc"}
    assert set(aurocs) == {"a", "b"}
    assert aurocs["b"].n_test == 32
    assert {r.train_domain for r in report.rows} == {"a"}


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
    value = {r.metric: from_null(r.value) for r in report.rows}
    assert value["auroc"] > 0.95
    run_id = report.rows[0].run_id
    table = predict(store, run_id, "p", PLAIN).to_pylist()
    assert len(table) == 3 * 45
    sums: dict[str, float] = {}
    for r in table:
        sums[r["annotation_id"]] = sums.get(r["annotation_id"], 0) + r["score"]
    assert all(s == pytest.approx(1) for s in sums.values())
    assert query(store, "select count(*) as n from patches")[0]["n"] == 0  # files already


def test_only_annotations_of_the_manifest_are_read_and_trained_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from e2e.data import StoredPatches

    seen: set[str] = set()
    real = StoredPatches.read

    def note(self: Any, ids: Any) -> Any:
        seen.update(ids)
        return real(self, ids)

    monkeypatch.setattr(StoredPatches, "read", note)
    spec = ManifestSpec("tiny", where="domain = 'a'")
    report = run(store, spec, OPTIONS)
    ids = {
        r["annotation_id"]
        for r in query(
            store, f"from manifests where manifest_id = '{report.manifest_id}' and fold = 0"
        )
    }
    assert seen == ids
    assert len(ids) == 32


def test_the_patch_cache_changes_no_number(store: Store) -> None:
    spec = ManifestSpec("tiny")
    cached = run(store, spec, replace(OPTIONS, force=True))
    direct = run(store, spec, replace(OPTIONS, force=True, patch_cache=False))
    assert [r.value for r in direct.rows] == [r.value for r in cached.rows]


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
    assert again.rows[0].run_id == first.rows[0].run_id
    assert [r.value for r in again.rows] != [r.value for r in first.rows]
    assert run(store, ManifestSpec("tiny"), OPTIONS).n_new == 0


def test_slides_without_a_file_are_named_and_a_cache_does_without_them(tmp_path: Path) -> None:
    tiny = make_tiny(tmp_path / "data", per_label=4)
    uri = str(tmp_path / "store")
    add(uri, "tiny", tiny.csv, AddOptions())
    store = Store.open(uri)
    with pytest.raises(EmbedstoreError, match=r"4 slides .*a0\.tiff.*--slides DIR"):
        run(store, ManifestSpec("tiny"), OPTIONS)
    assert query(store, "from results") == []
    assert not (Path(uri) / "runs").exists()
    add(uri, "tiny", tiny.csv, AddOptions(slides=tiny.slides))
    run(store, ManifestSpec("tiny"), OPTIONS)
    shutil.move(tiny.slides, tmp_path / "elsewhere")
    assert run(store, ManifestSpec("tiny"), replace(OPTIONS, splits=Asked(folds=[1]))).n_new == 1
