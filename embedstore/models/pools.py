"""What of a network's last features stands for a patch, by name; importable without torch.

A pool is one part, or several joined by "+", one beside the other in the vector:
cls, the class token; mean, the mean of the patch tokens (of a network without tokens, of the places
of its last map); centreK, the mean of the central K x K of them; centre:Num, of those in the
central N x N micrometres. Tokens on the border of the centre count by the share that is covered.
"""

import re
from collections.abc import Sequence

from embedstore.errors import UsageError

OWN = "own"
"""What the model itself pools by: an entry's `pooling`."""
EVERY = "all"
"""Stands for the sweep `SWEEP`."""
SWEEP = (OWN, "cls", "mean", "cls+mean", "centre2", "centre4", "cls+centre2")
FORMS = "own, cls, mean, centreK (tokens), centre:Num, parts joined by +, or all"

_TOKENS = re.compile(r"centre(\d+)")
_WIDTH = re.compile(r"centre:(\d+(?:\.\d+)?)um")


def check_pool(pool: str) -> None:
    """Raise UsageError for what names no pool."""
    parts = pool.split("+")
    known = all(p in ("cls", "mean") or _is_centre(p) for p in parts)
    if pool not in (OWN, EVERY) and (not known or len(set(parts)) < len(parts)):
        raise UsageError(f"unknown --pool '{pool}'; allowed: {FORMS}")


def _is_centre(part: str) -> bool:
    match = _TOKENS.fullmatch(part) or _WIDTH.fullmatch(part)
    return match is not None and float(match[1]) > 0


def variant_name(name: str, mpp_out: float, pool: str) -> str:
    """Return what a model's embeddings with a pool at a scale (um per pixel) are stored under."""
    return f"{name}@{mpp_out:g}/{pool}"


def split_name(name: str) -> tuple[str, float, str] | None:
    """Return (model, mpp_out, pool) of what `variant_name` made, None of any other name."""
    match = _VARIANT.fullmatch(name)
    if match is None:
        return None
    parts = match["pool"].split("+")
    if not all(p in _PARTS or _is_centre(p) for p in parts):
        return None
    return match["model"], float(match["mpp"]), match["pool"]


_VARIANT = re.compile(r"(?P<model>.+)@(?P<mpp>\d+(\.\d+)?)/(?P<pool>[^/@]+)")
_PARTS = (OWN, "cls", "cls-l2", "mean", "gap", "timm")


def swept(pools: Sequence[str], own: str, *, has_class_token: bool) -> list[str]:
    """Return the pools that are asked for, by their plain names, each once.

    own is the model's; of "all", what needs a class token is left out where there is none.
    """
    able = [p for p in SWEEP if has_class_token or "cls" not in p.split("+")]
    asked = [p for pool in pools for p in (able if pool == EVERY else [pool])]
    return list(dict.fromkeys(own if p == OWN else p for p in asked))


def centre_side(part: str, token_um: float) -> float | None:
    """Return how many tokens the centre of a part is wide, None for a part that is no centre.

    token_um: the width of a token in micrometres.
    """
    if (match := _TOKENS.fullmatch(part)) is not None:
        return float(match[1])
    match = _WIDTH.fullmatch(part)
    return float(match[1]) / token_um if match is not None else None
