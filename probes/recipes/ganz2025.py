"""Ganz et al. 2025, the paper: the numbers it prints, which are AUROC over annotations."""

from probes.recipes.published import Published
from probes.scores.evaluate import ALL as ALL_DOMAINS
from probes.scores.results import IN, OUT

PAPER = (
    "Ganz et al., Is Self-Supervision Enough? Benchmarking Foundation Models Against End-to-End "
    "Training for Mitotic Figure Classification, BVM 2025"
)


def _table_2(
    shown: str,
    model: str,
    inside: tuple[float, float],
    outside: tuple[float, float],
    method: str = "uni",
) -> tuple[Published, Published]:
    one, two = (
        Published("MIDOG", shown, model, method, "cross-domain", where, *number, "Table 2")
        for where, number in ((IN, inside), (OUT, outside))
    )
    return one, two


E2E = "End-to-end ResNet50"
PUBLISHED: tuple[Published, ...] = (
    Published(
        "MIDOG",
        E2E,
        "resnet50-imagenet",
        "e2e",
        "monte-carlo",
        ALL_DOMAINS,
        0.89,
        0.01,
        "Figure 1, all training data",
    ),
    Published(
        "CCMCT",
        E2E,
        "resnet50-imagenet",
        "e2e",
        "monte-carlo",
        ALL_DOMAINS,
        0.87,
        0.01,
        "Figure 1, all training data",
    ),
    *_table_2("Prov-GigaPath", "gigapath", (0.79, 0.04), (0.66, 0.07)),
    *_table_2("H-optimus-0", "h-optimus-0", (0.79, 0.04), (0.66, 0.07)),
    *_table_2("Virchow", "virchow", (0.79, 0.04), (0.66, 0.06)),
    *_table_2("Virchow2", "virchow2", (0.79, 0.04), (0.66, 0.06)),
    *_table_2("UNI", "uni", (0.76, 0.03), (0.64, 0.05)),
    *_table_2("Phikon", "phikon", (0.76, 0.03), (0.61, 0.05)),
    *_table_2("ViT-H ImageNet", "vit-h-imagenet", (0.68, 0.05), (0.56, 0.04)),
    *_table_2("ResNet50 ImageNet", "resnet50-imagenet", (0.63, 0.04), (0.53, 0.03)),
    *_table_2(E2E, "resnet50-imagenet", (0.87, 0.04), (0.74, 0.07), "e2e"),
)

SCHEMES = {
    "monte-carlo": "five draws of 80 to 20 over annotations",
    "cross-domain": "train on each domain, test on all",
}
"""The schemes of its two experiments, Figure 1 and Table 2, in words."""
DEPARTS = (
    "its embeddings are of patches that its authors cut; what a model is given here is in the view "
    "models",
    "its splits are drawn at random; here by the same arithmetic, from another seed",
)

SAME_DATA: dict[str, tuple[str, ...]] = {"MIDOG": ("midog",), "CCMCT": ("ccmct", "odael")}
"""Which names of datasets stand for the paper's: a dataset whose name holds one of the words."""


def paper_dataset(dataset: str) -> str | None:
    """Return the paper's name of a dataset, None for one it does not use."""
    folded = dataset.casefold()
    return next((k for k, words in SAME_DATA.items() if any(w in folded for w in words)), None)
