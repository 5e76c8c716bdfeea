"""Public collections of slides, known by the slides' names, and models trained on them."""

import re
from collections import Counter
from collections.abc import Iterable

from embedstore.models.pools import split_name
from embedstore.models.registry import REGISTRY

CORPORA: dict[str, re.Pattern[str]] = {
    "TCGA": re.compile(r"TCGA-\w\w-\w{4}(?!\w)", re.IGNORECASE),
    "CPTAC": re.compile(r"C3[LN]-\d{5}(?!\d)", re.IGNORECASE),
    "GTEx": re.compile(r"GTEX-\w{4,5}-\d{4}(?!\d)", re.IGNORECASE),
    "CAMELYON": re.compile(r"(patient_\d{3}_node_\d|(normal|tumor|test)_\d{3})(?!\d)"),
    "PANDA": re.compile(r"[0-9a-f]{32}(?![0-9a-f])"),
}
"""How the names of a collection's slides begin."""


def collections(slides: Iterable[str]) -> dict[str, int]:
    """Return how many of these slides are named as those of each collection, of any of them."""
    names = (slide.rsplit("/", 1)[-1] for slide in slides)
    return dict(Counter(c for n in names for c, form in CORPORA.items() if form.match(n)))


def may_have_seen(model: str, slides: Iterable[str]) -> dict[str, int]:
    """Return the collections that a model was trained on and how many slides are named as theirs.

    model: a registry name, or a variant of one. What a model was trained on is what its makers say.
    """
    split = split_name(model)
    entry = REGISTRY.get(split[0] if split else model)
    trained_on = entry.corpora if entry is not None else ()
    return {c: n for c, n in collections(slides).items() if c in trained_on}
