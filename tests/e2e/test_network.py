"""The classifier: its losses against scikit-learn, and what each way of adapting leaves alone."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import log_loss

from e2e.network import PROJECTIONS, Classifier, loss_of, probabilities
from embedstore.errors import EmbedstoreError
from embedstore.models.checkpoints import Weights
from embedstore.models.embedder import choose_device
from embedstore.models.loading import load_embedder, resolve

CPU = choose_device("cpu")


def classifier(arch: str, n_labels: int = 2, **options: Any) -> Classifier:
    name = f"timm:{arch}"
    embedder = load_embedder(
        name, resolve(name), Weights("random", None, None), dtype="float32", device=CPU
    )
    return Classifier(embedder, n_labels, **options)


def one_step(model: Classifier, n_labels: int) -> None:
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):  # LoRA's second factor moves only once the first has
        loss = loss_of(model(x), torch.arange(4) % n_labels).mean()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("n_labels", [2, 3, 5])
def test_losses_and_probabilities_are_those_of_scikit_learn(n_labels: int) -> None:
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(50, 1 if n_labels == 2 else n_labels)) * 3)
    codes = np.arange(50) % n_labels
    p = probabilities(logits)
    assert p.shape == (50, n_labels)
    assert torch.allclose(p.sum(1), torch.ones(50, dtype=torch.float64))
    loss = loss_of(logits, torch.from_numpy(codes))
    assert loss.mean() == pytest.approx(log_loss(codes, p.numpy()), rel=1e-6)


def test_the_paper_trains_everything() -> None:
    model = classifier("test_resnet")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one_step(model, 2)
    after = model.learnt()
    assert set(after) == set(before)
    assert all(p.requires_grad for p in model.parameters())
    moved = [k for k in before if not torch.equal(before[k], after[k])]
    assert {"network.conv1.0.weight", "head.weight"} <= set(moved)
    assert any("running_mean" in k for k in moved)


def test_head_moves_the_last_layer_alone() -> None:
    model = classifier("test_resnet", n_labels=3, adapt="head")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one_step(model, 3)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == {"head.weight", "head.bias"} == set(model.learnt())


def test_lora_adds_to_attention_and_mlp_and_moves_nothing_else() -> None:
    model = classifier("test_vit", adapt="lora", lora_rank=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.rand(2, 3, 64, 64)
    base = classifier("test_vit", adapt="head", seed=0)
    base.head.load_state_dict(model.head.state_dict())
    model.eval()
    base.eval()
    assert torch.allclose(model(x), base(x), atol=1e-6)  # what is added begins as nothing
    one_step(model, 2)
    moved = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert moved == set(model.learnt())
    layers = {k.split(".lora_")[0].rpartition(".")[2] for k in moved if "lora_" in k}
    assert layers == {"qkv", "proj", "fc1", "fc2"}
    assert not any("patch_embed" in k for k in moved)
    n_blocks = len(timm.create_model("test_vit").blocks)
    assert sum("lora_A" in k for k in moved) == 4 * n_blocks
    assert layers <= set(PROJECTIONS)


def test_what_was_learnt_comes_back() -> None:
    for adapt in ("lora", "head", "full"):
        model = classifier("test_vit", adapt=adapt)
        one_step(model, 2)
        state = {k: v.clone() for k, v in model.learnt().items()}
        other = classifier("test_vit", adapt=adapt, seed=9)
        other.load_learnt(state)
        x = torch.rand(2, 3, 64, 64)
        assert torch.allclose(model.eval()(x), other.eval()(x), atol=1e-6)
        with pytest.raises(EmbedstoreError, match="of another model"):
            other.load_learnt({**state, "more": torch.zeros(1)})


def test_a_network_without_projections_has_no_lora() -> None:
    with pytest.raises(EmbedstoreError, match="--adapt full or head"):
        classifier("test_resnet", adapt="lora")


def test_new_parameters_follow_from_the_seed() -> None:
    weights = [classifier("test_vit", seed=s).head.weight for s in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
