"""Patches of neighbours, cut from shared regions, are those that are read one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embedstore.slides.patches import PatchGeometry
from embedstore.slides.regions import read_each, read_patch
from embedstore.slides.slide import Slide

SIDE = 600
PIXELS = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)


class InMemory:
    """A slide of levels by 1 and 2, white beyond, that counts what is drawn of it."""

    downsamples: tuple[float, ...] = (1.0, 2.0)

    def __init__(self) -> None:
        """Nothing is drawn yet."""
        self.n_px = 0

    def read_region(self, x_l0: Any, y_l0: Any, level: Any, width: Any, height: Any) -> Any:
        """Return the region; a larger one than it holds is asked for at its edges alone."""
        self.n_px += width * height
        image = Image.fromarray(PIXELS[:: level + 1, :: level + 1])
        x, y = x_l0 // (level + 1), y_l0 // (level + 1)
        white = Image.new("RGB", (width, height), (255, 255, 255))
        white.paste(image, (-x, -y))
        return white


place = st.floats(-20, SIDE + 20)
geometry = st.builds(
    PatchGeometry, st.integers(8, 90), st.sampled_from([0.125, 0.2, 0.25, 0.3, 0.5])
)


@given(
    wanted=st.lists(
        st.tuples(place, place, st.sets(geometry, min_size=1, max_size=3)), min_size=1, max_size=12
    )
)
def test_patches_read_together_are_those_read_alone(wanted: Any) -> None:
    together, alone, seen = InMemory(), InMemory(), set()
    for n, patches in read_each(together, wanted, 0.25):
        x, y, geometries = wanted[n]
        assert patches.keys() == geometries
        for g, patch in patches.items():
            assert patch.shape == (g.size_px, g.size_px, 3)
            assert (patch == read_patch(alone, x, y, 0.25, g)).all()
        seen.add(n)
    assert seen == set(range(len(wanted)))
    assert together.n_px <= alone.n_px


def test_what_a_cluster_shares_is_drawn_once() -> None:
    """A hundred patches within three of their widths: not a hundred times their pixels."""
    rng, slide, size = np.random.default_rng(1), InMemory(), 64
    centres = rng.uniform(200, 200 + 3 * size, (100, 2))
    wanted = [(x, y, [PatchGeometry(size, 0.25)]) for x, y in centres]
    assert len(list(read_each(slide, wanted, 0.25))) == 100
    assert slide.n_px < (4 * size + 64) ** 2


def test_no_more_is_drawn_of_two_diagonal_neighbours_than_they_need() -> None:
    """A row of patches that overlap at their corners only: the corners beside it stay undrawn."""
    slide, size = InMemory(), 64
    wanted = [(100 + 40.0 * k, 100 + 40.0 * k, [PatchGeometry(size, 0.25)]) for k in range(8)]
    assert len(list(read_each(slide, wanted, 0.25))) == 8
    assert slide.n_px <= 8 * size**2


@pytest.mark.parametrize("name", ["cmu-1-small-region.svs", "tcga-cr-7395-01a-01-ts1.svs"])
@pytest.mark.parametrize("mpp_out", [0.25, 0.5, 1.0])
def test_on_a_real_slide_to_the_last_bit(data: Path, name: str, mpp_out: float) -> None:
    rng = np.random.default_rng(2)
    with Slide(data / "wsi" / name) as slide:
        mpp = slide.mpp or 0.25  # one of them states none
        middle = np.array([slide.width / 2, slide.height / 2])
        centres = np.concatenate(
            [middle + rng.normal(0, 150, (12, 2)), [[0, 0], [slide.width - 1, slide.height - 1]]]
        )
        geometries = [PatchGeometry(224, mpp_out), PatchGeometry(320, mpp_out)]
        wanted = [(x, y, geometries) for x, y in centres.tolist()]
        for n, patches in read_each(slide, wanted, mpp):
            for g in geometries:
                assert (patches[g] == read_patch(slide, *wanted[n][:2], mpp, g)).all()
