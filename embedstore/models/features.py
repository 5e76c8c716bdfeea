"""Pooling of a network's last features: one pass of the network, any number of pools."""

from collections.abc import Sequence
from typing import Any

import torch

from embedstore.errors import EmbedstoreError
from embedstore.models.pools import OWN, centre_side
from embedstore.models.registry import OF_TOKENS


def pool_each(
    network: Any, own: str, x: torch.Tensor, pools: Sequence[str], patch_um: float
) -> list[torch.Tensor]:
    """Return what a network makes of normalised patches (n, 3, height, width): (n, dim) a pool.

    own is an entry's pooling, patch_um the width of a patch in micrometres. Raises EmbedstoreError
    for a pool that the network has not, or a centre that is smaller than a token or wider than
    the patch.
    """
    features: torch.Tensor = network.forward_features(x)
    pooled = []
    for pool in (own if p == OWN else p for p in pools):
        if pool == own and own not in OF_TOKENS:
            pooled.append(network.forward_head(features, pre_logits=True))
        else:
            pooled.append(_joined(network, features, pool, patch_um))
    return pooled


def pool(network: Any, own: str, x: torch.Tensor) -> torch.Tensor:
    """Return what a network makes of normalised patches by its own pooling, as `pool_each`."""
    return pool_each(network, own, x, (OWN,), 1.0)[0]


def _joined(network: Any, features: torch.Tensor, pool: str, patch_um: float) -> torch.Tensor:
    parts = []
    for part in pool.split("+"):
        if part in ("cls", "cls-l2"):
            token = _class_token(network, features)
            parts.append(token if part == "cls" else torch.nn.functional.normalize(token, dim=-1))
            continue
        tokens = _patch_tokens(network, features)
        if part == "mean":
            parts.append(tokens.mean(1))
        else:
            grid = _grid(network, features, tokens)
            weights = _of_centre(part, grid, patch_um).to(tokens.device)
            parts.append((tokens.float() * weights.flatten()[:, None]).sum(1).to(tokens.dtype))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def has_class_token(network: Any) -> bool:
    """Return whether the first of a network's tokens is a class token."""
    return getattr(network, "cls_token", None) is not None


def _class_token(network: Any, features: torch.Tensor) -> torch.Tensor:
    if features.ndim != 3 or not has_class_token(network):
        raise EmbedstoreError(
            f"{type(network).__name__} has no class token; its pools are mean, centreK and "
            "centre:Num, and what it does by itself (own)"
        )
    return _normed(network, features)[:, 0]


def _patch_tokens(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Return the tokens of the patch, or the places of the last map, as (n, places, dim)."""
    if features.ndim == 4:
        is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        return (features if is_last else features.permute(0, 2, 3, 1)).flatten(1, 2)
    if features.ndim != 3:
        raise EmbedstoreError(f"{type(network).__name__} has no patch tokens; its only pool is own")
    # Registers sit between the class token and the patch tokens.
    n_prefix = getattr(network, "num_prefix_tokens", 0)
    return _normed(network, features)[:, n_prefix:]


def _grid(network: Any, features: torch.Tensor, tokens: torch.Tensor) -> tuple[int, int]:
    """Return the rows and columns of patch tokens."""
    if features.ndim == 4:
        is_last = getattr(network, "output_fmt", "NCHW") == "NHWC"
        rows, columns = features.shape[1:3] if is_last else features.shape[2:]
        return rows, columns
    side = round(tokens.shape[1] ** 0.5)
    if side**2 != tokens.shape[1]:
        raise EmbedstoreError(
            f"{type(network).__name__} gives {tokens.shape[1]} tokens, which are no square: it has "
            "no centre"
        )
    return side, side


def _normed(network: Any, features: torch.Tensor) -> torch.Tensor:
    """Return tokens after the last norm, which networks that average by themselves apply later."""
    late = getattr(network, "fc_norm", None)
    if late is not None and isinstance(getattr(network, "norm", None), torch.nn.Identity):
        normed: torch.Tensor = late(features)
        return normed
    return features


def _of_centre(part: str, grid: tuple[int, int], patch_um: float) -> torch.Tensor:
    """Return the weight (rows, columns) of each token in a central square, of sum 1."""
    n_rows, n_columns = grid
    side = centre_side(part, patch_um / n_columns)
    least = min(n_rows, n_columns)
    if side is None or not 1 - 1e-9 <= side <= least + 1e-9:
        um = patch_um / n_columns
        raise EmbedstoreError(
            f"pool '{part}' is {'smaller than a token' if (side or 0) < 1 else 'beyond the patch'}:"
            f" there are {n_rows} x {n_columns} tokens of {um:g} um; allowed: centre1 to "
            f"centre{least}, or centre:{um:g}um to centre:{um * least:g}um"
        )
    rows, columns = (_covered(n, side) for n in grid)
    return torch.outer(rows, columns) / side**2


def _covered(n: int, side: float) -> torch.Tensor:
    """Return which share of each of n tokens in a row the central `side` of them cover."""
    low, high = (n - side) / 2, (n + side) / 2
    edges = torch.arange(n, dtype=torch.float64)
    share = (torch.clamp(edges + 1, max=high) - torch.clamp(edges, min=low)).clamp(0, 1)
    return share.float()
