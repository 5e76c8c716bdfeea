"""Models of the hub: built, loaded and normalised as their config says."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from tests.making.commands import ROOT, call_command, run_command
from tests.making.hub import COMMIT, Hub
from tests.making.slides import TinyDataset

CONFIG: dict[str, Any] = {
    "architecture": "test_vit",
    "num_classes": 0,
    "num_features": 64,
    "global_pool": "token",
    "model_args": {"reg_tokens": 2, "dynamic_img_size": True},
    "pretrained_cfg": {
        "mean": [0.7, 0.6, 0.5],
        "std": [0.2, 0.3, 0.4],
        "license": "mit",
        "input_size": [3, 160, 160],
        "num_classes": 0,
    },
}


@pytest.fixture(scope="module")
def published() -> torch.nn.Module:
    """A timm model as its makers put it on the hub: config.json and model.safetensors."""
    torch.manual_seed(11)
    network: torch.nn.Module = timm.create_model(
        "test_vit", num_classes=0, **CONFIG["model_args"]
    ).eval()
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    flat = {**CONFIG, **CONFIG["pretrained_cfg"]}
    del flat["pretrained_cfg"], flat["model_args"]
    Hub.files = {
        "ok/net/config.json": json.dumps(CONFIG).encode(),
        "ok/net/model.safetensors": save(state),
        "ok/flat/config.json": json.dumps(flat | {"num_classes": 1000}).encode(),
        "ok/foreign/config.json": json.dumps({"architectures": ["ViTModel"]}).encode(),
        "ok/wrong/config.json": json.dumps(CONFIG | {"architecture": "test_resnet9"}).encode(),
        "ok/text/config.json": b"no json",
    }
    return network


def on_hub(hub: str, home: Path, offline: bool = False) -> dict[str, str]:
    return {
        "HF_ENDPOINT": hub,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
    }


def add_tiny(tiny: TinyDataset, uri: Path) -> None:
    added = call_command(
        "embedstore",
        "add",
        "tiny",
        "--annotations",
        tiny.csv,
        "--slides",
        tiny.slides,
        "--store",
        uri,
    )
    assert added.code == 0, added.err


def test_a_timm_model_of_the_hub_is_built_loaded_and_normalised_as_it_says(
    hub: str, published: torch.nn.Module, tiny: TinyDataset, tmp_path: Path
) -> None:
    from embedstore.slides.patches import PatchGeometry
    from embedstore.slides.regions import read_patch
    from embedstore.slides.slide import Slide
    from embedstore.store import Store
    from embedstore.store.sql import connect, fetch_rows

    uri, name = tmp_path / "s", "hf-hub:ok/net"
    add_tiny(tiny, uri)
    words = (
        "embedstore",
        "ingest",
        "tiny",
        "--model",
        name,
        "--dtype",
        "float32",
        "--json",
        "--store",
        uri,
    )
    (row,) = run_command(*words, env=on_hub(hub, tmp_path / "hf")).json()
    assert (row["embedded"], row["weights"]) == (48, f"ok/net@{COMMIT}")
    con = connect(Store.open(str(uri)))
    (model,) = fetch_rows(con, "select * from models")
    assert (model["arch"], model["dim"], model["pooling"]) == ("test_vit", 64, "timm")
    assert (model["mean"], model["std"]) == ([0.7, 0.6, 0.5], [0.2, 0.3, 0.4])
    assert (
        model["weights_sha256"] == hashlib.sha256(Hub.files["ok/net/model.safetensors"]).hexdigest()
    )
    # By hand: the published network on a normalised patch.
    one = tiny.rows[3]
    with Slide(tiny.slides / one["slide"]) as slide:
        patch = read_patch(slide, float(one["x"]), float(one["y"]), 0.25, PatchGeometry())
    x = (patch / 255.0 - np.array([0.7, 0.6, 0.5])) / np.array([0.2, 0.3, 0.4])
    with torch.inference_mode():
        expected = published(torch.tensor(x, dtype=torch.float32).permute(2, 0, 1)[None])[0]
    (stored,) = fetch_rows(
        con,
        "select vector from embeddings join annotations using (annotation_id) "
        f"where annotations.slide = '{one['slide']}' and x_l0 = {one['x']} "
        f"and y_l0 = {one['y']}",
    )
    np.testing.assert_allclose(stored["vector"], expected.numpy(), atol=1e-4)
    # What was fetched serves offline, and what is embedded needs no hub at all.
    again = run_command(*words, env=on_hub(hub, tmp_path / "hf", offline=True))
    assert again.json()[0]["embedded"] == 0
    other = run_command(*words, "--as", "copy", env=on_hub(hub, tmp_path / "hf", offline=True))
    assert other.json()[0]["embedded"] == 48


def test_a_folder_with_its_config_serves_where_there_is_no_hub(
    published: torch.nn.Module, tiny: TinyDataset, tmp_path: Path
) -> None:
    uri, folder = tmp_path / "s", tmp_path / "net"
    add_tiny(tiny, uri)
    folder.mkdir()
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes(Hub.files[f"ok/net/{file}"])
    for weights in (folder, folder / "model.safetensors"):
        (row,) = call_command(
            "embedstore",
            "ingest",
            "tiny",
            "--model",
            "hf-hub:some/where",
            "--weights",
            f"some/where={weights}",
            "--pooling",
            "cls+mean",
            "--json",
            "--store",
            uri,
        ).json()
    assert (row["there_before"], row["embedded"], row["weights"]) == (48, 0, "net")
    done = call_command(
        "embedstore",
        "sql",
        "select dim, pooling, registry_name from models",
        "--json",
        "--store",
        uri,
    )
    assert done.json() == [
        {"dim": 128, "pooling": "cls+mean", "registry_name": "hf-hub:some/where"}
    ]


WRONG = {
    "hf-hub:none/net": "the hub knows no none/net",
    "hf-hub:gated/net": "gated: accept its terms",
    "hf-hub:ok/foreign": "is no timm model: its config.json names no 'architecture'",
    "hf-hub:ok/wrong": "has no architecture 'test_resnet9'",
    "hf-hub:ok/text": "is no JSON file",
    "hf-hub:ok/model": "has no config.json",
    "hf-hub:ok/flat": "has no checkpoint file that is known here",
    "hf-hub:nowhere": "unknown model 'hf-hub:nowhere'",
}


INGEST_EACH = """
import json, sys
from tests.making.commands import call_command
uri, env, models = json.loads(sys.argv[1])
words = ("embedstore", "ingest", "tiny", "--store", uri, "--model")
print(json.dumps({m: vars(call_command(*words, m, env=env)) for m in models}))
"""


@pytest.fixture(scope="module")
def told(
    hub: str,
    published: torch.nn.Module,
    tiny: TinyDataset,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, dict[str, Any]]:
    """What ingest says of each wrong model, all asked in one process online."""
    folder = tmp_path_factory.mktemp("wrong")
    add_tiny(tiny, folder / "s")
    given = json.dumps([str(folder / "s"), on_hub(hub, folder / "hf"), list(WRONG)])
    done = subprocess.run(
        [sys.executable, "-c", INGEST_EACH, given],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    messages: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return messages


@pytest.mark.parametrize("model", WRONG)
def test_what_is_wrong_with_a_hub_model_is_told(
    told: dict[str, dict[str, Any]], model: Any
) -> None:
    code = 2 if model == "hf-hub:nowhere" else 1  # no hub could hold a name of that form
    assert (told[model]["code"], told[model]["out"]) == (code, "")
    assert WRONG[model] in told[model]["err"]
