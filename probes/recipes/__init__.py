"""Published protocols as data: what is split how, what is measured, and what came out there."""

from probes.recipes.published import AT_PREVALENCE, HOW, METRICS, Published
from probes.recipes.table import RECIPES, Recipe, recipe_of

__all__ = ["AT_PREVALENCE", "HOW", "METRICS", "RECIPES", "Published", "Recipe", "recipe_of"]
