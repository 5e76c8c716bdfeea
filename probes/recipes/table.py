"""The protocols by name; a new one is a row here and a file of its numbers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from embedstore.errors import UsageError, nearest
from probes.recipes import banerjee2026, ganz2025, midog2025
from probes.recipes.folds import Row
from probes.recipes.published import AT_PREVALENCE, Published
from probes.splits.candidates import Candidates


@dataclass(frozen=True)
class Recipe:
    """A protocol: of which public dataset, split how, scored on what, and what was published.

    folds draws its own splits, else schemes are those of ours that are its. elsewhere: datasets
    that its probes are scored on as well. departs: in words what is done otherwise here.
    """

    about: str
    citation: str
    dataset: str
    published: tuple[Published, ...]
    departs: tuple[str, ...]
    folds: Callable[[Candidates], Iterator[Row]] | None = None
    group_by: str = "annotation"
    schemes: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("auroc",)
    method: str = "uni"


_BOTH = (AT_PREVALENCE, "auroc")


def _of_paper(data: str, dataset: str) -> Recipe:
    numbers = tuple(p for p in ganz2025.PUBLISHED if p.dataset == data)
    schemes = tuple(dict.fromkeys(p.scheme for p in numbers))
    about = "; ".join(ganz2025.SCHEMES[s] for s in schemes)
    return Recipe(
        f"the paper on {data}: {about}",
        ganz2025.PAPER,
        dataset,
        numbers,
        ganz2025.DEPARTS,
        schemes=schemes,
    )


RECIPES: dict[str, Recipe] = {
    "ami-br": Recipe(
        "atypical mitotic figures: five folds by slide, 56 test slides, and two other datasets",
        banerjee2026.CITATION,
        "ami-br",
        banerjee2026.PUBLISHED,
        banerjee2026.DEPARTS,
        folds=banerjee2026.folds,
        group_by="slide",
        elsewhere=banerjee2026.ELSEWHERE,
        metrics=_BOTH,
    ),
    "midog2025-t2": Recipe(
        "atypical mitotic figures of the challenge's training set: five folds by case",
        midog2025.CITATION,
        "midog2025-t2",
        midog2025.PUBLISHED,
        midog2025.DEPARTS,
        folds=midog2025.folds,
        group_by="case",
        metrics=_BOTH,
    ),
    "paper-midog": _of_paper("MIDOG", "midog2022"),
    "paper-ccmct": _of_paper("CCMCT", "ccmct"),
}


def recipe_of(name: str) -> Recipe:
    """Return a protocol by its name; UsageError with those that there are."""
    if name not in RECIPES:
        raise UsageError(
            f"no recipe '{name}'; allowed: {', '.join(RECIPES)}{nearest(name, RECIPES)}"
        )
    return RECIPES[name]
