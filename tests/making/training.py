"""Backbones and options of short trainings."""

from e2e.predict import PredictOptions
from e2e.recipe import Recipe
from e2e.run import TrainOptions
from probes.splits.spec import Asked

RESNET, VIT = "timm:test_resnet", "timm:test_vit"


SMALL = Recipe(epochs=2, min_steps=6, batch_size=8, max_lr=1e-3, patch_px=32)


OPTIONS = TrainOptions(
    splits=Asked(folds=[0]),
    backbone="test_resnet",
    weights="random",
    recipe=SMALL,
    device="cpu",
    dtype="float32",
)

PLAIN = PredictOptions(device="cpu", dtype="float32")
"""Scores in float32, as OPTIONS trains."""
