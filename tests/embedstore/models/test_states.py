"""Checkpoints as training tools write them: the same network in every wrapping, or an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from embedstore.errors import EmbedstoreError
from embedstore.models.embedder import Embedder
from embedstore.models.states import network_in
from tests.making.commands import SHARED, call_command
from tests.making.hub import Hub, ask
from tests.making.models import PATCHES, embedder, plain_state

VIT = "timm:test_vit"
State = dict[str, Any]


@pytest.fixture(scope="module")
def model() -> Embedder:
    return embedder(VIT, key="trained elsewhere")


def under(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}


def other(state: State) -> State:
    return {k: v + 1 for k, v in state.items()}


def heads(*names: str) -> State:
    return {f"{n}.weight": torch.zeros(2, 2) for n in names}


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
WRAPPED: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": OPTIMIZER, "lr": 0.1},
    "model_state_dict": lambda s: {"model_state_dict": s, "loss": None},
    "lightning": lambda s: {"state_dict": under("model.", s), "epoch": 1},
    "data parallel": lambda s: under("module.", s),
    "compiled": lambda s: under("_orig_mod.", s),
    "both": lambda s: {"state_dict": under("model._orig_mod.module.", s)},
    "compiled blocks": lambda s: {
        k.replace("blocks.1.", "blocks.1._orig_mod."): v for k, v in s.items()
    },
    "sharded blocks": lambda s: {
        k.replace("blocks.0.", "blocks.0._fsdp_wrapped_module."): v for k, v in s.items()
    },
    "dino": lambda s: {
        "student": under("backbone.", other(s)) | heads("dino_head.mlp"),
        "teacher": under("backbone.", s) | heads("dino_head.mlp", "ibot_head.last_layer"),
    },
    "dino in one": lambda s: under("student.backbone.", other(s)) | under("teacher.backbone.", s),
    "average": lambda s: {"state_dict": other(s), "state_dict_ema": s},
    "moco": lambda s: under("encoder_q.", s) | under("encoder_k.", other(s)),
    "autoencoder": lambda s: s | heads("decoder_embed", "decoder_blocks.0.attn", "mask_token"),
    "classifier": lambda s: s | {"head.weight": torch.zeros(9, 64), "head.bias": torch.zeros(9)},
    "two that are one": lambda s: under("a.", s) | under("b.", s),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_every_wrapping_gives_the_network_inside(
    model: Embedder, tmp_path: Path, name: str
) -> None:
    torch.save(WRAPPED[name](plain_state(model)), tmp_path / "w.pth")
    loaded = embedder(VIT, str(tmp_path / "w.pth"))
    np.testing.assert_array_equal(loaded.embed(PATCHES), model.embed(PATCHES))
    assert bool(loaded.notes) == (name != "plain")


def test_what_was_left_out_is_told(model: Embedder, tmp_path: Path) -> None:
    torch.save(WRAPPED["dino"](plain_state(model)), tmp_path / "w.pth")
    first, second = embedder(VIT, str(tmp_path / "w.pth")).notes
    assert first == "w.pth: 'teacher.backbone.' was taken off its keys"
    assert "(student, teacher.dino_head, teacher.ibot_head)" in second
    assert "'teacher.backbone.' was taken before 'student.backbone.'" in second


WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "missing": (lambda s: under("model.", {k: v for k, v in s.items() if "qkv" not in k}), "qkv"),
    "unknown": (
        lambda s: {"teacher": under("backbone.", s | {"blocks.9.what": torch.zeros(1)})},
        "blocks.9.what",
    ),
    "a number": (lambda s: s | {"cls_token": 3}, "1 missing (cls_token)"),
    "nothing": (lambda s: {"state_dict": s | {"pos_embed": None}}, "1 missing (pos_embed)"),
    "a number for all": (lambda s: {"state_dict": 7}, "missing"),
    "a list": (lambda s: [s], "missing"),
    "two": (
        lambda s: under("base_encoder.", s) | under("momentum_encoder.", other(s)),
        "2 times, at 'base_encoder.', 'momentum_encoder.'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_the_network_is_an_error(model: Embedder, tmp_path: Path, name: str) -> None:
    make, said = WRONG[name]
    torch.save(make(plain_state(model)), tmp_path / "w.pth")
    with pytest.raises(EmbedstoreError) as e:
        embedder(VIT, str(tmp_path / "w.pth"))
    assert said in str(e.value)
    assert "w.pth" in str(e.value)


def put_shards(model: Embedder, folder: Path, *, index: bool = True) -> Path:
    state = plain_state(model)
    names, where = list(state), dict[str, str]()
    for n in range(3):
        file = f"model-{n + 1:05}-of-00003.safetensors"
        save_file({k: state[k] for k in names[n::3]}, folder / file)
        where |= dict.fromkeys(names[n::3], file)
    if index:
        text = json.dumps({"metadata": {}, "weight_map": where})
        (folder / "model.safetensors.index.json").write_text(text)
    return folder


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("named", ["", "model-00002-of-00003.safetensors"])
def test_shards_are_one_checkpoint(
    model: Embedder, tmp_path: Path, index: bool, named: str
) -> None:
    folder = put_shards(model, tmp_path, index=index)
    loaded = embedder(VIT, str(folder / named))
    np.testing.assert_array_equal(loaded.embed(PATCHES), model.embed(PATCHES))
    before = loaded.weights.sha256
    assert before
    changed = plain_state(model)
    file = folder / "model-00003-of-00003.safetensors"
    save_file({k: changed[k] + 1 for k in list(changed)[2::3]}, file)
    assert embedder(VIT, str(folder / named)).weights.sha256 != before
    file.unlink()
    with pytest.raises(EmbedstoreError, match=r"00003-of-00003|checkpoint files"):
        embedder(VIT, str(folder / named))


def test_shards_of_the_hub_are_fetched(
    model: Embedder, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = put_shards(model, tmp_path)
    files = {f"ok/sharded/{p.name}": p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setattr(Hub, "files", files)
    found = ask("vars(find_weights('m', 'hub', 'ok/sharded'))", hub, tmp_path / "home")
    assert "path" in found, found
    path = Path(found["path"])
    assert path.name == "model.safetensors.index.json"
    assert len(list(path.parent.glob("*.safetensors"))) == 3
    loaded = embedder(VIT, str(path))
    np.testing.assert_array_equal(loaded.embed(PATCHES), model.embed(PATCHES))


@given(
    st.lists(st.sampled_from(["model", "net", "backbone", "module", "x_1"]), max_size=4),
    st.sets(st.sampled_from(["optimizer.a", "head.w", "epoch.n", "loss"]), max_size=3),
)
def test_any_prefix_is_found_and_nothing_else_is_taken(prefix: list[str], beside: set[str]) -> None:
    anchors = [f"blocks.{n}.w" for n in range(4)] + ["norm.w"]
    dotted = "".join(f"{p}." for p in prefix)
    tensors = {dotted + a: a for a in anchors} | {f"zz_{b}": b for b in beside}
    if not dotted:
        tensors = {a: a for a in anchors}
    state, notes = network_in(Path("w.pth"), tensors, anchors)
    assert state == {a: a for a in anchors}
    assert len(notes) == bool(dotted) + bool(dotted and beside)


@pytest.mark.parametrize(
    "name", ["sharded", "dinov2-teacher.pth", "lightning.ckpt", "data-parallel.pth"]
)
def test_18_checkpoint_layouts(tmp_path: Path, name: str) -> None:
    folder = SHARED / "data/inputs/18-checkpoint-layouts"
    uri, model = str(tmp_path / "s"), "timm:test_vit2"
    table, slides = folder / "cells.csv", folder / "slides"
    words = ("embedstore", "add", "d", "--annotations", table, "--slides", slides, "--store", uri)
    assert call_command(*words).code == 0
    for as_name, file in (("this", name), ("plain", "sharded")):
        told = ("--model", model, "--weights", f"{model}={folder / file}", "--as", as_name)
        rest = ("--dtype", "float32", "--store", uri)
        done = call_command("embedstore", "ingest", "d", *told, *rest)
        assert done.code == 0, done.err
        if as_name == "this":
            assert ("was taken off its keys" in done.err) == (name != "sharded")
            assert ("left out (teacher.dino_head)" in done.err) == ("dinov2" in name)
    sql = "select count(*) as n from this a join plain b using (annotation_id) where a.vector = b.vector"
    assert call_command("embedstore", "sql", sql, "--json", "--store", uri).json() == [{"n": 4}]
