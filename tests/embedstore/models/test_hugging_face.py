"""Checkpoints in Hugging Face's form give the same tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from embedstore.models.checkpoints import find_weights
from embedstore.models.loading import build, load_embedder, resolve
from embedstore.models.registry import REGISTRY
from tests.making.models import CPU, embedder


class Tiny:
    """A small transformer of each Hugging Face kind beside the timm network it must become."""

    def __init__(self, kind: str) -> None:
        import transformers as hf

        torch.manual_seed(3)
        self.theirs: hf.PreTrainedModel
        same: dict[str, Any] = {
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
            kwargs: dict[str, Any] = {"norm_layer": "LayerNorm-1e-12"}
        else:
            swiglu: dict[str, Any] = {"use_swiglu_ffn": True} if "swiglu" in kind else {}
            options = {**same, **swiglu, "patch_size": 14, "mlp_ratio": 4}
            if "registers" in kind:
                self.theirs = hf.Dinov2WithRegistersModel(
                    hf.Dinov2WithRegistersConfig(**options, num_register_tokens=4)
                )
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
    tiny.theirs.train(False)
    tiny.theirs.save_pretrained(tmp_path)
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
