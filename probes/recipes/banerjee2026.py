"""Banerjee et al., MELBA 2026: atypical mitotic figures, AMi-Br's test slides and two other sets.

The numbers are those that the authors' notebooks print in their repository; the best of them are
the abstract's. The folds are drawn as their training scripts do. Mean and SD over five folds.
"""

from collections.abc import Iterator

import numpy as np

from embedstore.errors import EmbedstoreError
from probes.recipes.folds import Row, grouped_folds, rows_of
from probes.recipes.published import AT_PREVALENCE, Published
from probes.splits.candidates import Candidates

CITATION = (
    "Banerjee et al. 2026, Benchmarking Deep Learning and Vision Foundation Models for Atypical "
    "vs. Normal Mitosis Classification with Cross-Dataset Evaluation, MELBA 2026:006"
)
ELSEWHERE = ("atnorm-br", "atnorm-md")
N_CELLS, N_TEST = 3_720, 826
DEPARTS = (
    "theirs: a linear layer on embeddings as they are, Adam at 5e-5 (Prov-GigaPath: 1e-3) with "
    "early stopping on validation, labels drawn alike; here: the probe of UNI, fitted to its "
    "optimum",
    "theirs decides at 0.5 after drawing labels alike; here the share of the positive label in "
    "train decides, which stands for that threshold",
    "their embeddings are fp16 (Prov-GigaPath's are not) of the patch at the model's own "
    "preprocessing",
)

_TEST_SLIDES = """
007.tiff 011.tiff 017.tiff 018.tiff 020.tiff 021.tiff 027.tiff 031.tiff 032.tiff 03_stitched1.tif
049.tiff 060.tiff 062.tiff 066.tiff 071.tiff 072.tiff 073.tiff 074.tiff 075.tiff 07_stitched1.tif
081.tiff 082.tiff 084.tiff 085.tiff 088.tiff 08_stitched1.tif 091.tiff 098.tiff 09_stitched1.tif
108.tiff 118.tiff 119.tiff 120.tiff 125.tiff 128.tiff 12_stitched1.tif 130.tiff 139.tiff 140.tiff
142.tiff 146.tiff 17_stitched1.tif 22_stitched1.tif 28.tif 30.tif 33.tif 34.tif 35.tif 42.tif
45.tif 55.tif 57.tif 66.tif 68.tif 71.tif 72.tif
"""
"""The slides of AMi-Br that are not in the authors' amibr_train_split.csv."""


def folds(manifest: Candidates) -> Iterator[Row]:
    """Yield the authors' five folds: train and validation by slide, test always the same slides.

    EmbedstoreError where the cells are not all of AMi-Br, or their slides have other names.
    """
    ids, labels = np.array(manifest.pool.ids), np.array(manifest.pool.labels)
    slides = np.array([(s or "").replace("\\", "/").rpartition("/")[2] for s in manifest.slides])
    is_test = np.isin(slides, _TEST_SLIDES.split())
    if (len(ids), int(is_test.sum())) != (N_CELLS, N_TEST):
        raise EmbedstoreError(
            f"'{manifest.spec.dataset}' has {len(ids):,} usable cells, {int(is_test.sum()):,} of "
            f"them on the slides that were tested; AMi-Br has {N_CELLS:,} and {N_TEST:,}: add all "
            "of it as `embedstore fetch ami-br` does, which names each cell's slide"
        )
    learnt = np.flatnonzero(~is_test)
    for fold, (inside, outside) in enumerate(grouped_folds(labels[learnt], slides[learnt], 5, 42)):
        parts = {"train": learnt[inside], "val": learnt[outside], "test": np.flatnonzero(is_test)}
        yield from rows_of(manifest.pool.ids, fold, "slide", **parts)


_NUMBERS = """
uni | Virchow | virchow | 6029 0132 6520 0168 | 5969 0155 6733 0266 | 5623 0235 6184 0566
uni | Virchow2 | virchow2 | 6089 0192 6637 0214 | 6236 0296 6795 0344 | 5694 0173 6046 0324
uni | H-optimus-0 | h-optimus-0 | 6319 0153 6801 0181 | 6369 0147 7090 0163 | 5821 0195 6142 0207
uni | H-optimus-1 | h-optimus-1 | 5943 0132 6518 0152 | 6271 0168 6777 0275 | 5966 0317 6462 0461
uni | Prov-GigaPath | gigapath | 6091 0140 6569 0132 | 6005 0091 6323 0125 | 5601 0153 5818 0129
uni | UNI | uni | 6339 0189 6949 0275 | 6406 0339 7028 0310 | 5510 0123 5892 0118
uni | UNI2-h | uni2-h | 6220 0095 6765 0157 | 6482 0214 7059 0230 | 5773 0212 6119 0357
lora | Virchow | virchow | 7878 0250 8891 0150 | 7696 0198 8540 0200 | 7705 0287 8641 0247
lora | Virchow2 | virchow2 | 8135 0145 9026 0051 | 7632 0190 8579 0117 | 7424 0305 8503 0171
lora | H-optimus-0 | h-optimus-0 | 7846 0169 8721 0148 | 7044 0383 7921 0271 | 6549 0281 7879 0163
lora | H-optimus-1 | h-optimus-1 | 7762 0110 8611 0083 | 7658 0298 8524 0100 | 7396 0202 8389 0104
lora | Prov-GigaPath | gigapath | 7602 0113 8682 0122 | 7263 0296 8077 0184 | 7007 0228 8073 0259
lora | UNI | uni | 7952 0092 8839 0059 | 7183 0226 7979 0142 | 7069 0278 8222 0224
lora | UNI2-h | uni2-h | 7138 0121 8153 0211 | 7301 0152 8228 0143 | 6914 0321 7616 0415
e2e | EffNetV2-M | effnetv2-m | 7474 0167 8315 0168 | 7283 0168 8110 0084 | 6975 0277 7604 0217
e2e | Swin-B | swin-b | 8052 0124 9029 0112 | 7752 0134 8683 0113 | 7723 0142 8806 0087
e2e | ViT-L | vit-l | 7899 0268 8872 0107 | 7788 0229 8710 0075 | 7494 0342 8720 0117
"""
"""Method, the authors' name, the registry's; then of AMi-Br, AtNorM-Br and AtNorM-MD balanced
accuracy and its SD, AUROC and its SD, all in ten-thousandths."""

_METHODS = {"uni": "uni", "lora": "e2e+lora", "e2e": "e2e"}


def _published() -> Iterator[Published]:
    sets = ("all", *(f"on {d}" for d in ELSEWHERE))
    for line in _NUMBERS.strip().splitlines():
        method, shown, model, *numbers = (text.strip() for text in line.split("|"))
        for where, text in zip(sets, numbers, strict=True):
            accuracy, accuracy_sd, auroc, auroc_sd = (int(n) / 10_000 for n in text.split())
            said = ("AMi-Br", shown, model, _METHODS[method], "imported", where)
            place = "the authors' inference notebook"
            yield Published(*said, accuracy, accuracy_sd, place, AT_PREVALENCE)
            yield Published(*said, auroc, auroc_sd, place)


PUBLISHED: tuple[Published, ...] = tuple(_published())
