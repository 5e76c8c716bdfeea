"""The leakage audit: what a split's train gives away about its test."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from probes.splits.draw import Indices, Split

Floats = NDArray[np.float64]

PATCH_UM = 224 * 0.25
"""Width of a patch in micrometres where no model says of how wide a field its embeddings are."""


def audit(
    split: Split,
    *,
    slides: Sequence[str | None],
    cases: Sequence[str | None],
    centres_um: Floats,
    patch_um: float = PATCH_UM,
) -> dict[str, float | None]:
    """Return the shares of the test annotations that train gives something away about.

    Four numbers in 0..1: the annotation's slide is in train; its case is; its patch overlaps a
    train patch; a train annotation's centre lies inside its patch. Patches are squares, patch_um
    wide (slides without mpp are taken as 0.25 um/px). Of pre-cropped patches the place is unknown,
    and the slide and case where none is named: shares are over the test annotations of which they
    are known, None where of none. All arguments are of the pool's annotations, None in slides and
    cases and NaN in centres_um (n, 2) where unknown.
    """
    is_placed: NDArray[np.bool_] = np.isfinite(centres_um[:, 0])
    distance = _nearest_um(slides, centres_um, split.test, split.train[is_placed[split.train]])
    shares = {
        "shared_slides": (_shared(slides, split.test, split.train), _known(slides, split.test)),
        "shared_cases": (_shared(cases, split.test, split.train), _known(cases, split.test)),
        "overlapping_patches": (distance < patch_um, is_placed[split.test]),
        "shared_centres": (distance < patch_um / 2, is_placed[split.test]),
    }
    return {k: float(np.mean(v[of])) if of.any() else None for k, (v, of) in shares.items()}


def _known(names: Sequence[str | None], test: Indices) -> NDArray[np.bool_]:
    return np.array([names[i] is not None for i in test], dtype=bool)


def _shared(names: Sequence[str | None], test: Indices, seen: Indices) -> NDArray[np.bool_]:
    in_train = {names[i] for i in seen}
    return np.array([names[i] in in_train for i in test], dtype=bool)


def _nearest_um(
    slides: Sequence[str | None], centres_um: Floats, test: Indices, seen: Indices
) -> Floats:
    """Return each test centre's Chebyshev distance to the nearest train centre on its slide, um."""
    by_slide: dict[str | None, list[int]] = {}
    for i in seen:
        by_slide.setdefault(slides[i], []).append(int(i))
    distance = np.full(len(test), np.inf)
    slide_of = np.array([slides[i] for i in test])
    for slide, members in by_slide.items():
        on_slide = np.flatnonzero(slide_of == slide)
        if len(on_slide):
            tree = cKDTree(centres_um[members])
            distance[on_slide], _ = tree.query(centres_um[test[on_slide]], p=np.inf)
    return distance
