"""Slices: which rows of a model's matrix play which role; one model's, or several's as one."""

from probes.slices.fusion import MEAN, Fusion, fusion_of, mean_odds, weights_of
from probes.slices.matrix import (
    FACTS,
    Matrix,
    Rows,
    codes_of,
    label_order,
    load_matrix,
    newest,
)

__all__ = [
    "FACTS",
    "MEAN",
    "Fusion",
    "Matrix",
    "Rows",
    "codes_of",
    "fusion_of",
    "label_order",
    "load_matrix",
    "mean_odds",
    "newest",
    "weights_of",
]
