"""A number that a publication prints, and what of ours stands beside it."""

from dataclasses import dataclass

AT_PREVALENCE = "balanced_accuracy_at_prevalence"
"""Balanced accuracy where the share of the positive label in train is what decides.

That is the threshold 0.5 of a probe that learns from as many of each label: see `banerjee2026`.
"""

METRICS = {"auroc": "AUROC", AT_PREVALENCE: "balanced accuracy"}
"""Metrics of publications in words."""
HOW = {"uni": "linear probe", "e2e": "end to end", "e2e+lora": "LoRA"}
"""In words how a published score came about, by the method and variant that do so here."""


@dataclass(frozen=True)
class Published:
    """One number as printed: mean and SD of a metric.

    dataset is the publication's; model is its name in the registry where it has one, method how
    the score came about here (`HOW`); scheme and where say which of our results it stands beside,
    all at the fraction 1; shown is the publication's own name of the model, place where the number
    stands.
    """

    dataset: str
    shown: str
    model: str
    method: str
    scheme: str
    where: str
    mean: float
    sd: float
    place: str
    metric: str = "auroc"
