"""Networks on the CPU and patches for them."""

from typing import Any

import numpy as np
import torch

from embedstore.models.checkpoints import find_weights
from embedstore.models.embedder import Embedder
from embedstore.models.loading import load_embedder, resolve

CPU = torch.device("cpu")


PATCHES = np.random.default_rng(0).integers(0, 255, (6, 224, 224, 3), dtype=np.uint8)


def embedder(
    name: str, spec: str = "random", dtype: str = "float32", key: str | None = None
) -> Embedder:
    entry = resolve(name)
    return load_embedder(
        key or name, entry, find_weights(name, spec, entry.hub), dtype=dtype, device=CPU
    )


def plain_state(model: Any) -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in model.network.state_dict().items()}
