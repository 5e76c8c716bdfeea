"""MIDOG 2025, track 2: atypical mitotic figures of many tumour types, five folds by case.

The challenge's own test set is hidden. What is published of its training set are folds that their
authors drew and did not publish, so that these stand beside other folds of the same cells.
"""

from collections.abc import Iterator

import numpy as np

from embedstore.errors import EmbedstoreError
from probes.recipes.folds import Row, grouped_folds, rows_of
from probes.recipes.published import AT_PREVALENCE, Published
from probes.splits.candidates import Candidates

CITATION = (
    "Weiss et al. 2025, A dataset of atypical vs normal mitoses classification for MIDOG 2025, "
    "doi 10.5281/zenodo.15188326; Kotte et al. 2025, MIDOG 2025 Track 2: A Deep Learning Model for "
    "Classification of Atypical and Normal Mitotic Figures under Class and Hardness Imbalances, "
    "arXiv:2509.10502"
)
DEPARTS = (
    "their folds are not published; here: five by case, labels alike, a tenth of the rest for "
    "validation",
    "theirs is a ResNet trained end to end with augmentation; here a linear probe",
)
N_FOLDS, N_VAL = 5, 10


def folds(manifest: Candidates) -> Iterator[Row]:
    """Yield five folds by case; EmbedstoreError where fewer than ten cases are named."""
    labels = np.array(manifest.pool.labels)
    cases = np.array([c or i for c, i in zip(manifest.cases, manifest.images, strict=True)])
    if len(set(manifest.cases) - {None}) < N_VAL:
        raise EmbedstoreError(
            f"'{manifest.spec.dataset}' names fewer than {N_VAL} cases, and the folds go by case; "
            "add it as `embedstore fetch midog2025-t2` does"
        )
    for fold, (rest, test) in enumerate(grouped_folds(labels, cases, N_FOLDS, 42)):
        inside, outside = grouped_folds(labels[rest], cases[rest], N_VAL, 42)[0]
        parts = {"train": rest[inside], "val": rest[outside], "test": test}
        yield from rows_of(manifest.pool.ids, fold, "case", **parts)


PUBLISHED: tuple[Published, ...] = tuple(
    Published(
        dataset="MIDOG 2025",
        shown="ResNet of Kotte et al.",
        model="resnet-kotte",
        method="e2e",
        scheme="imported",
        where="all",
        mean=mean,
        sd=sd,
        place="abstract",
        metric=metric,
    )
    for metric, mean, sd in ((AT_PREVALENCE, 0.8744, 0.0093), ("auroc", 0.9505, 0.029))
)
