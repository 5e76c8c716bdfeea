"""How often a 95% interval holds the truth, and how often equal models are told apart, by slides.

Runs alone, seeds fixed: simulates studies of 5, 10, 30 and 100 slides of equal and of unequal size
(log-normal), whose annotations are alike by a share of the variance (ICC), scores them, and counts:
of the intervals that the product gives for AUROC, average precision and balanced accuracy, those
that hold the value of a study without end; of comparisons of two models that are equal, those with
p < 0.05. Beside them the percentile bootstrap over slides, which the product had before, and
DeLong's test, which takes annotations as independent. --json FILE writes all cells and the
worst of each kind.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from probes.scores.classical import delong
from probes.scores.joint import Fold, paired
from probes.scores.metrics import evaluate
from probes.scores.statistics import jackknife

SLIDES, ICCS = (5, 10, 30, 100), (0.05, 0.2, 0.5)
METRICS = ("auroc", "average_precision", "balanced_accuracy")
PER_SLIDE, SIGNAL, N_RESAMPLES = 30, 1.2, 300
LEVEL = 0.05


@dataclass(frozen=True)
class Study:
    """Annotations: their labels, slides, and the scores of two models of equal worth."""

    y: NDArray[np.intp]
    slide: NDArray[np.intp]
    scores: tuple[NDArray[np.float64], NDArray[np.float64]]

    def p(self, model: int) -> NDArray[np.float64]:
        """Return probabilities (n, 2), cut at 0.5 where the labels lie half way apart."""
        of_figure = expit(self.scores[model] - SIGNAL / 2)
        return np.column_stack((1 - of_figure, of_figure))


def study(rng: np.random.Generator, n_slides: int, icc: float, *, is_unequal: bool) -> Study:
    """Draw one: slides differ in size, prevalence, and in what a model makes of their annotations.

    Half of what slides differ by is common to their annotations, half is of each label.
    """
    sizes = np.full(n_slides, PER_SLIDE)
    if is_unequal:
        drawn = rng.lognormal(0, 1, n_slides)
        sizes = np.maximum(4, np.round(drawn / np.exp(0.5) * PER_SLIDE)).astype(int)
    slide = np.repeat(np.arange(n_slides), sizes)
    y = (rng.random(len(slide)) < rng.beta(4, 6, n_slides)[slide]).astype(np.intp)
    scores = []
    for _ in range(2):
        common = rng.normal(0, np.sqrt(icc / 2), n_slides)
        of_label = rng.normal(0, np.sqrt(icc / 2), (2, n_slides))
        own = rng.normal(0, np.sqrt(1 - icc), len(slide))
        scores.append(SIGNAL * y + common[slide] + of_label[y, slide] + own)
    return Study(y, slide, (scores[0], scores[1]))


def truths(icc: float, *, is_unequal: bool) -> dict[str, float]:
    """Return each metric of a study of 20,000 slides."""
    large = study(np.random.default_rng(12345), 20_000, icc, is_unequal=is_unequal)
    ones = np.ones((1, len(large.y)))
    return {k: float(v[0]) for k, v in evaluate(large.y, large.p(0), ones, 0.5, METRICS).items()}


def percentile(values: Any, n_slides: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return the replicates of each of values(counts) that are numbers, slides drawn anew."""
    counts = rng.multinomial(n_slides, np.full(n_slides, 1 / n_slides), N_RESAMPLES)
    return {k: v[np.isfinite(v)] for k, v in values(counts.astype(np.float32)).items()}


def cell(n_slides: int, icc: float, *, is_unequal: bool, n_studies: int) -> dict[str, Any]:
    """Return the shares of one kind of study."""
    truth = truths(icc, is_unequal=is_unequal)
    held: dict[str, list[bool]] = {k: [] for m in METRICS for k in (m, f"{m}_percentile")}
    told: dict[str, list[bool]] = {k: [] for k in ("paired", "paired_percentile", "delong")}
    n_none = 0
    rng = np.random.default_rng([n_slides, int(100 * icc), is_unequal])
    for _ in range(n_studies):
        s = study(rng, n_slides, icc, is_unequal=is_unequal)
        groups = [str(k) for k in s.slide]
        one, two = s.p(0), s.p(1)
        for name, e in jackknife(s.y, one, groups, 0.5, names=METRICS).items():
            if np.isfinite(e.low):
                held[name].append(e.low <= truth[name] <= e.high)
            else:
                n_none += 1

        def both(counts: Any, s: Study = s, one: Any = one, two: Any = two) -> dict[str, Any]:
            w = counts[:, s.slide]
            first = evaluate(s.y, one, w, 0.5, METRICS)
            second = evaluate(s.y, two, w, 0.5, ("auroc",))["auroc"]
            return first | {"difference": first["auroc"] - second}

        replicates = percentile(both, n_slides, rng)
        for name in METRICS:
            if len(replicates[name]):
                low, high = np.quantile(replicates[name], [LEVEL / 2, 1 - LEVEL / 2])
                held[f"{name}_percentile"].append(low <= truth[name] <= high)
        p_value = paired([Fold(s.y, one, two, groups)]).p_value
        if np.isfinite(p_value):
            told["paired"].append(p_value < LEVEL)
        if len(differences := replicates["difference"]):
            beyond = min((differences <= 0).mean(), (differences >= 0).mean())
            told["paired_percentile"].append(2 * beyond < LEVEL)
        told["delong"].append(delong(s.y, one[:, 1], two[:, 1]).p_value < LEVEL)
    shares = {f"coverage_{k}": float(np.mean(v)) for k, v in held.items()}
    shares |= {f"type1_{k}": float(np.mean(v)) for k, v in told.items()}
    return shares | {"no_interval": n_none / (n_studies * len(METRICS))}


def main() -> None:
    """Simulate all cells and print them, the worst last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--slides", type=int, nargs="+", default=SLIDES)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args()
    cells = []
    for n_slides, is_unequal, icc in itertools.product(args.slides, (False, True), ICCS):
        started = time.perf_counter()
        found = cell(n_slides, icc, is_unequal=is_unequal, n_studies=args.studies)
        kind = {"slides": n_slides, "sizes": ("equal", "unequal")[is_unequal], "icc": icc}
        cells.append(kind | found)
        shown = {k: round(v, 3) for k, v in found.items()}
        print(*kind.values(), shown, f"{time.perf_counter() - started:.0f} s", flush=True)
    worst = worst_of(cells)
    for name, value in worst.items():
        print(f"{name:40} {value:6.3f}")
    if args.json is not None:
        made_of = {"studies": args.studies, "cells": cells}
        args.json.write_text(json.dumps({**worst, **made_of}, indent=1) + "\n")


def worst_of(cells: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the lowest coverage and the highest type-I error, at each number of slides."""
    worst = {}
    for n in dict.fromkeys(c["slides"] for c in cells):
        of_n = [c for c in cells if c["slides"] == n]
        for end in ("", "_percentile"):
            names = [f"coverage_{m}{end}" for m in METRICS]
            worst[f"worst_coverage_{n}{end}"] = min(c[k] for c in of_n for k in names)
            worst[f"worst_type1_{n}{end}"] = max(c[f"type1_paired{end}"] for c in of_n)
        worst[f"worst_type1_{n}_delong"] = max(c["type1_delong"] for c in of_n)
    return worst


if __name__ == "__main__":
    main()
