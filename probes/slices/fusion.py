"""Several models as one: their vectors side by side, or the mean of their probes' log-odds."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from embedstore.errors import UsageError

Floats = NDArray[np.float64]

MEAN = "mean-logit:"
"""How the name begins of models whose probes are averaged: mean-logit:uni+virchow2."""
TINY = 1e-12


@dataclass(frozen=True)
class Fusion:
    """The models that a name stands for, in order; mean: their probes' log-odds are averaged."""

    name: str
    parts: tuple[str, ...]
    mean: bool = False


def fusion_of(name: str, known: Collection[str]) -> Fusion | None:
    """Return the models that A+B (or mean-logit:A+B) names; None for a name of one model.

    Names of pools hold a + themselves (uni@0.125/cls+mean): what is a model as a whole is that one.
    UsageError where a part is none.
    """
    mean = name.startswith(MEAN)
    pieces = name.removeprefix(MEAN).split("+")
    if not mean and (name in known or len(pieces) < 2):
        return None
    parts, start = [], 0
    while start < len(pieces):
        # The longest name that is a model comes first.
        ends = [e for e in range(len(pieces), start, -1) if "+".join(pieces[start:e]) in known]
        if not ends:
            raise UsageError(
                f"'{name}': no model '{'+'.join(pieces[start:])}'; there: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        parts.append("+".join(pieces[start : ends[0]]))
        start = ends[0]
    if len(set(parts)) != len(parts) or len(parts) < 2:
        raise UsageError(f"'{name}': name two models or more, each once, as A+B")
    return Fusion(name, tuple(parts), mean)


def weights_of(shas: Sequence[str | None]) -> str:
    """Return a digest of several models' weights, in order."""
    return hashlib.sha256("+".join(s or "" for s in shas).encode()).hexdigest()


def side_by_side(matrices: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return rows of several models (n, d_i) as one matrix (n, sum of d_i), each scaled.

    A model's vector is made as long as the root of its width, so that none outweighs another by
    scale alone. Each row by itself: nothing is fitted, so nothing leaks.
    """
    parts = []
    for x in matrices:
        length = np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        parts.append((x / np.maximum(length, TINY) * np.sqrt(x.shape[1])).astype(np.float32))
    return np.concatenate(parts, axis=1)


def mean_odds(each: Sequence[tuple[Floats, Floats | None]]) -> tuple[Floats, Floats]:
    """Return probabilities and log-odds (n, K) of the mean of several probes' log-odds.

    each: probabilities and log-odds of a probe; where it has none, those of its probabilities,
    which are kept from 0 and 1.
    """
    odds = []
    for p, decision in each:
        kept = np.clip(p, TINY, 1 - TINY)
        odds.append(np.log(kept / (1 - kept)) if decision is None else decision)
    mean = np.mean(odds, axis=0)
    if mean.shape[1] == 2:
        positive = expit(mean[:, 1])
        return np.column_stack((1 - positive, positive)), mean
    return np.asarray(softmax(np.log(expit(mean) + TINY), axis=1)), mean
