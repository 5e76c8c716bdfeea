"""`e2e predict`: the recorded scores again, by domain, and what it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest

from e2e.predict import PredictOptions, predict
from e2e.run import run
from embedstore.errors import EmbedstoreError
from embedstore.store import Store
from probes.runs import RunOptions
from probes.runs import run as run_probes
from probes.splits.spec import Asked, ManifestSpec
from tests.making.commands import run_command
from tests.making.stores import query
from tests.making.training import OPTIONS, PLAIN, SMALL


@pytest.mark.parametrize(
    ("backbone", "adapt"), [("test_resnet", "full"), ("test_vit", "lora"), ("test_resnet", "head")]
)
def test_predict_gives_the_scores_that_were_recorded(
    store: Store, backbone: str, adapt: str
) -> None:
    options = replace(OPTIONS, backbone=backbone, recipe=replace(SMALL, adapt=adapt, lora_rank=2))
    report = run(store, ManifestSpec("tiny"), options)
    run_id = report.rows[0].run_id
    scored = {r["annotation_id"]: r for r in predict(store, run_id, "tiny", PLAIN).to_pylist()}
    assert len(scored) == 64
    recorded = query(store, f"from predictions where run_id = '{run_id}'")
    assert len(recorded) > 15
    for r in recorded:
        assert scored[r["annotation_id"]]["label"] == r["label"] == "mitotic figure"
        assert scored[r["annotation_id"]]["score"] == pytest.approx(r["score"], abs=1e-5)


def test_predict_tells_other_runs_and_unknown_ones_apart(store: Store) -> None:
    report = run_probes(store, ManifestSpec("tiny"), RunOptions(splits=Asked(folds=[0])))
    with pytest.raises(EmbedstoreError, match="probes predict"):
        predict(store, report.rows[0].run_id, "tiny")
    with pytest.raises(EmbedstoreError, match="no trained model of run 'nope'"):
        predict(store, "nope", "tiny")
    trained = run(store, ManifestSpec("tiny"), OPTIONS).rows[0].run_id
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
    run_id = run(store, ManifestSpec("tiny"), options).rows[0].run_id
    with pytest.raises(EmbedstoreError, match="are not those of run"):
        predict(store, run_id, "tiny", PredictOptions(weights=str(files[1])))
    files[0].rename(tmp_path / "moved.pt")
    moved = predict(store, run_id, "tiny", replace(PLAIN, weights=str(tmp_path / "moved.pt")))
    assert len(moved) == 64
