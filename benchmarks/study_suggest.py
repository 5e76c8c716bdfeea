"""Whether `probes suggest` chooses better than chance: a labelling campaign played again.

Reads a store whose dataset is labelled (--store, --dataset, --model). Each round holds out some
cases, labels START cells of the rest at random, then STEP more four times: by `suggest`, by the
least margin alone, or at random, from the same start. After each, the AUROC of a probe on the cases
held out. Prints the mean AUROC of each way, and of each less random with an interval over rounds
(normal, rounds share cases: it is too narrow, if anything); --json FILE writes all.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from embedstore.reading.vectors import vectors_of
from embedstore.store import Store
from probes.methods.table import METHODS, USUAL
from probes.studies.suggest import choose, share

START, STEP, N_STEPS = 40, 40, 4
WAYS = ("suggest", "margin", "random")


def fitted(x: Any, y: Any, at: NDArray[np.intp]) -> Any:
    """Return a probe on some rows."""
    return METHODS[USUAL].make().fit(x[at], y[at])


def more(way: str, x: Any, y: Any, slides: Any, known: Any, pool: Any, seed: int) -> Any:
    """Return which rows of the pool a way labels next."""
    if way == "random":
        return np.random.default_rng(seed).permutation(pool)[:STEP]
    p = np.asarray(fitted(x, y, known).predict_proba(x[pool]), dtype=float)
    if way == "margin":
        return pool[np.argsort(np.abs(p[:, 0] - 0.5), kind="stable")[:STEP]]
    quota = share(STEP, len(set(slides[pool])))
    return pool[choose(x[pool], p, slides[pool], STEP, quota, seed=seed)]


def played(x: Any, y: Any, cases: Any, slides: Any, seed: int) -> dict[str, list[float]]:
    """Return the AUROC of each way after each step, on cases that are held out."""
    rng = np.random.default_rng(seed)
    names = np.unique(cases)
    out = rng.permutation(names)[: max(1, len(names) // 4)]
    test = np.flatnonzero(np.isin(cases, out))
    rest = rng.permutation(np.flatnonzero(~np.isin(cases, out)))
    found: dict[str, list[float]] = {}
    for way in WAYS:
        known = rest[:START]
        scores = []
        for step in range(N_STEPS + 1):
            p = fitted(x, y, known).predict_proba(x[test])[:, 1]
            scores.append(float(roc_auc_score(y[test], p)))
            pool = np.setdiff1d(rest, known)
            new = more(way, x, y, slides, known, pool, seed * 100 + step)
            known = np.concatenate([known, new])
        found[way] = scores
    return found


def main() -> None:
    """Play the rounds and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    x, rows = vectors_of(
        Store.open(asked.store), asked.model, asked.dataset, None, "label, case_id, slide"
    )
    labels = np.array(rows["label"].to_pylist())
    y = (labels == sorted(set(labels))[0]).astype(int)
    cases, slides = (np.array(rows[k].to_pylist()) for k in ("case_id", "slide"))
    rounds = [played(x, y, cases, slides, seed) for seed in range(asked.rounds)]
    each = {way: np.array([r[way] for r in rounds]) for way in WAYS}
    found: dict[str, Any] = {"rounds": len(rounds), "cells": START + STEP * np.arange(N_STEPS + 1)}
    found = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in found.items()}
    for way in WAYS:
        found[way] = each[way].mean(axis=0).round(4).tolist()
    for way in WAYS[:2]:
        less = each[way] - each["random"]
        half = 1.96 * less.std(axis=0, ddof=1) / np.sqrt(len(rounds))
        found[f"{way} less random"] = less.mean(axis=0).round(4).tolist()
        found[f"{way} less random, half interval"] = half.round(4).tolist()
    for key, value in found.items():
        print(f"{key:36} {value}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
