"""A backbone with a classifier on top, and which of its parameters are trained."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from e2e.recipe import LOW_RANK
from embedstore.errors import EmbedstoreError
from embedstore.models.embedder import Embedder
from embedstore.models.features import pool
from probes.methods.odds import log_odds

PROJECTIONS = (
    "qkv",
    "q_proj",
    "k_proj",
    "v_proj",
    "q",
    "k",
    "v",
    "kv",
    "proj",
    "out_proj",
    "fc1",
    "fc2",
    "fc1_g",
    "fc1_x",
)
"""What timm calls the linear layers of attention and MLP: LoRA adds to these."""


class Classifier(nn.Module):
    """Normalisation, backbone, pooling and one linear layer; logits (n, 1) of two labels, else K.

    adapt is a recipe's: what is frozen is also kept in evaluation mode.
    """

    def __init__(
        self,
        embedder: Embedder,
        n_labels: int,
        *,
        adapt: str = "full",
        lora_rank: int = 16,
        seed: int = 0,
    ) -> None:
        """Take an embedder's network; the new parameters are drawn from the seed."""
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.adapt, self.pooling = adapt, embedder.entry.pooling
        mean, std = (torch.tensor(v)[:, None, None] for v in embedder.entry.norm)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        network = embedder.network
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(embedder.entry.dim, 1 if n_labels == 2 else n_labels)
            if adapt in LOW_RANK:
                network = _with_lora(embedder.name, network, lora_rank, dora=adapt == "dora")
        self.network = network.requires_grad_(True) if adapt == "full" else network
        self.to(embedder.device)

    def train(self, mode: bool = True) -> "Classifier":
        """Set training mode for what is trained."""
        super().train(mode)
        if self.adapt != "full":
            self.network.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of patches, float (n, 3, height, width) with values 0 to 1."""
        x = ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        if self.adapt == "head":
            with torch.no_grad():
                pooled = pool(self.network, self.pooling, x)
        else:
            pooled = pool(self.network, self.pooling, x)
        logits: torch.Tensor = self.head(pooled)
        return logits

    def learnt(self) -> dict[str, torch.Tensor]:
        """Return what training changes: all of a fully trained network, else what was added."""
        state = self.state_dict()
        if self.adapt == "full":
            return state
        trained = {k for k, p in self.named_parameters() if p.requires_grad}
        return {k: v for k, v in state.items() if k in trained}

    def load_learnt(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take what `learnt` gave; EmbedstoreError where the keys are not the same."""
        wanted = self.learnt()
        if differ := sorted(set(wanted) ^ set(state)):
            raise EmbedstoreError(f"the checkpoint is of another model: keys {differ[:3]} differ")
        self.load_state_dict(dict(state), strict=False)


def _with_lora(name: str, network: nn.Module, rank: int, *, dora: bool) -> nn.Module:
    """Return the network, frozen, with low-rank additions (Hu et al. 2022) to its projections.

    dora: with a length of its own for each output (Liu et al. 2024).
    """
    try:
        import peft
    except ImportError as e:
        raise EmbedstoreError(
            "--adapt lora and dora need the package peft: pip install 'mitosis-embedstore[lora]'"
        ) from e
    targets = [
        n
        for n, m in network.named_modules()
        if isinstance(m, nn.Linear) and n.rpartition(".")[2] in PROJECTIONS
    ]
    if not targets:
        raise EmbedstoreError(
            f"{name} has no attention or MLP projections for LoRA to add to; --adapt full or head"
        )
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, use_dora=dora)
    adapted: nn.Module = peft.inject_adapter_in_model(config, network)
    return adapted


def loss_of(logits: torch.Tensor, codes: torch.Tensor, focal: float = 0.0) -> torch.Tensor:
    """Return the cross-entropy of each row, (n,): binary on one logit, else softmax.

    logits (n, 1 or K); codes: int64 (n,), or shares of the labels, float (n, K). focal: gamma, by
    which a row counts the less the surer it is right (Lin et al. 2017); 0 leaves the cross-entropy.
    """
    if focal or codes.ndim == 2:
        return _loss_of_shares(logits, codes, focal)
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(
            logits[:, 0], codes.to(logits.dtype), reduction="none"
        )
    return functional.cross_entropy(logits, codes, reduction="none")


def _loss_of_shares(logits: torch.Tensor, codes: torch.Tensor, focal: float) -> torch.Tensor:
    if logits.shape[1] == 1:
        log_p = torch.cat((functional.logsigmoid(-logits), functional.logsigmoid(logits)), dim=1)
    else:
        log_p = logits.log_softmax(dim=1)
    shares = codes if codes.ndim == 2 else functional.one_hot(codes, log_p.shape[1])
    shares = shares.to(log_p.dtype)
    return -(shares * (1 - log_p.exp()).clamp_min(0) ** focal * log_p).sum(dim=1)


def probabilities(logits: torch.Tensor) -> torch.Tensor:
    """Return float64 (n, K), summing to 1, for logits (n, 1 or K)."""
    z = logits.double()
    if z.shape[1] == 1:
        p = torch.sigmoid(z)
        return torch.cat((1 - p, p), dim=1)
    return z.softmax(dim=1)


def decision(logits: torch.Tensor) -> NDArray[np.float64]:
    """Return the log-odds of each label, float64 (n, K), for logits (n, 1 or K): what ranks."""
    z = logits.double().numpy()
    return np.hstack((-z, z)) if z.shape[1] == 1 else log_odds(z)


def n_parameters(model: Classifier) -> tuple[int, int]:
    """Return how many numbers a model has, and how many of them training changes."""
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(p.numel() for p in model.parameters()), n_trained
