"""Checkpoint files as training tools write them: shards joined, the one network in them found.

Trainers wrap what they save: in a dict beside the optimizer, under `state_dict`, `model` or
`teacher`, with a prefix of their own on every key (data parallel, compiled, Lightning, DINO), in
several files. All of it reads as one flat dict of tensors, in which a network is where its keys
are.
"""

import argparse
import json
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from embedstore.errors import EmbedstoreError

INDEX = ".index.json"
"""How the file ends that says which shard holds which tensor."""

_SHARD = re.compile(r"^(?P<stem>.+)-(?P<n>\d+)-of-(?P<of>\d+)(?P<suffix>\.\w+)$")
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
"""Names that compiling and sharding put into the midst of keys."""

_HEAD = re.compile(
    r"^(\w*head\w*|fc|classifier|projector|predictor|decoder\w*|mask_token|queue\w*|logit_scale)\b"
)
"""What training puts beside a network and inference never asks: heads, decoders, queues."""

_PREFERRED = ("ema", "teacher", "encoder_q")
"""Which of several copies of a network is the one to use, the first first."""

_DEPTH = 6


def shards(path: Path, *, may_lack: bool = False) -> list[Path]:
    """Return the files that a checkpoint consists of, path alone where it is one file.

    path is a file, one of the shards, or their index. EmbedstoreError where one is missing, unless
    they may_lack.
    """
    if path.name.endswith(INDEX):
        try:
            names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
            files = [path.parent / str(n) for n in names]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
            raise EmbedstoreError(f"{path} is no index of a checkpoint's shards ({e})") from e
    elif (part := _SHARD.match(path.name)) is not None:
        width, of = len(part["n"]), int(part["of"])
        first = 0 if (path.parent / _shard_name(part, 0, width)).is_file() else 1
        files = [path.parent / _shard_name(part, n, width) for n in range(first, first + of)]
    else:
        return [path]
    if not may_lack and (gone := [f.name for f in files if not f.is_file()]):
        raise EmbedstoreError(
            f"{path} is part of a checkpoint in {len(files)} files, of which {len(gone)} are not "
            f"in its folder: {', '.join(gone[:3])}{', ...' * (len(gone) > 3)}"
        )
    return files


def _shard_name(part: re.Match[str], n: int, width: int) -> str:
    return f"{part['stem']}-{n:0{width}}-of-{part['of']}{part['suffix']}"


def read_tensors(path: Path) -> dict[str, Any]:
    """Return all tensors of a checkpoint by their dotted names, on the CPU, of any nesting."""
    tensors: dict[str, Any] = {}
    for file in shards(path):
        tensors |= dict(_flat(_read(file)))
    return tensors


def _read(file: Path) -> Any:
    import torch
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file)
    # weights_only: a pickle that would run code is refused, not run. timm keeps its own arguments.
    with (
        torch.serialization.safe_globals([argparse.Namespace]),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        return torch.load(file, map_location="cpu", weights_only=True)


def _flat(node: Any, prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(node, torch.Tensor):
        yield prefix[:-1], node
    elif isinstance(node, Mapping) and depth:
        for key, value in node.items():
            yield from _flat(value, f"{prefix}{key}.", depth - 1)


def network_in(
    path: Path, tensors: Mapping[str, Any], anchors: Collection[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the tensors of the network that has the keys `anchors`, without prefix, and notes.

    The prefix is the one under which most anchors are found. EmbedstoreError where two copies of
    the network fit alike and neither is an average or a teacher's, which is the one to use.
    """
    plain = {_WRAPPERS.sub("", k).lstrip("."): v for k, v in tensors.items()}
    prefix, others = _prefix(path, plain, anchors)
    state = {k.removeprefix(prefix): v for k, v in plain.items() if k.startswith(prefix)}
    beside = [k for k in plain if not k.startswith(prefix)]
    tops = {k.split(".")[0] for k in anchors}
    heads = [k for k in state if k.split(".")[0] not in tops and _HEAD.match(k)]
    for k in heads:
        del state[k]
    notes = [f"{path.name}: '{prefix}' was taken off its keys"] if prefix else []
    if plain.keys() != tensors.keys():
        notes.append(f"{path.name}: what wraps compiled or sharded modules was taken off its keys")
    if beside or heads:
        names = sorted(
            {_top(k, prefix) for k in beside} | {prefix + k.split(".")[0] for k in heads}
        )
        copy = f"; '{prefix}' was taken before '{others[0]}'" if others else ""
        notes.append(
            f"{path.name}: {len(beside) + len(heads)} tensors were left out "
            f"({', '.join(names[:5])}{', ...' * (len(names) > 5)}){copy}"
        )
    return state, notes


def _prefix(
    path: Path, tensors: Mapping[str, Any], anchors: Collection[str]
) -> tuple[str, list[str]]:
    """Return the prefix of the network that fits best, and those that fit as well."""
    ends: dict[str, list[str]] = {}
    for anchor in anchors:
        ends.setdefault(anchor.rsplit(".", 1)[-1], []).append(anchor)
    found: Counter[str] = Counter()
    for key in tensors:
        for anchor in ends.get(key.rsplit(".", 1)[-1], ()):
            if key == anchor or key.endswith(f".{anchor}"):
                found[key.removesuffix(anchor)] += 1
    if not found:
        return "", []
    most = max(found.values())
    best = sorted((p for p, n in found.items() if n == most), key=lambda p: (_rank(p), len(p), p))
    if len(best) > 1 and _rank(best[0]) == _rank(best[1]):
        same = all(_equal(tensors.get(best[0] + a), tensors.get(best[1] + a)) for a in anchors)
        if not same:
            raise EmbedstoreError(
                f"{path} holds the network {len(best)} times, at "
                f"{', '.join(repr(p) for p in best[:4])}, and which to use it does not say; save "
                "the tensors of one of them in a file of their own"
            )
    return best[0], best[1:]


def _rank(prefix: str) -> int:
    words = re.split(r"[._]", prefix)
    whole = prefix.split(".")
    named = (n for n, p in enumerate(_PREFERRED) if p in words or p in whole)
    return next(named, len(_PREFERRED))


def _equal(a: Any, b: Any) -> bool:
    import torch

    return a is b or (a is not None and b is not None and bool(torch.equal(a, b)))


def _top(key: str, prefix: str) -> str:
    """Return a key up to the first segment that tells it from what was taken."""
    mine, theirs = prefix.split("."), key.split(".")
    n = next((n for n, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), 0)
    return ".".join(theirs[: n + 1])
