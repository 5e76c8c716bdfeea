"""Robustness index and margins against croma 1.0.0, and leaving a slide out against doing it anew."""

import warnings
from typing import Any

import numpy as np
import pytest

from probes.studies import neighbors
from probes.studies.neighbors import Left, around


def planted(seed: int, n: int = 400, d: int = 24, n_slides: int = 20) -> dict[str, Any]:
    """Rows of slides of 3 centres and 2 labels; the centre shifts them, and so does the slide."""
    rng = np.random.default_rng(seed)
    slide = rng.integers(0, n_slides, n)
    centre = slide % 3
    label = rng.integers(0, 2, n)
    label[:2] = 0, 1  # labels are numbered as they come
    x = rng.normal(size=(n, d))
    x[:, 0] += 2 * label
    x[:, 1] += 1.5 * centre
    x += rng.normal(0, 0.5, (n_slides, d))[slide]
    return {"x": x + 0.5, "labels": label, "groups": slide, "centre": centre}


def croma_of(p: dict[str, Any], *, m: int = 5) -> tuple[Any, Any]:
    import pandas as pd
    from croma import RI, CRoMa

    n = len(p["labels"])
    manifest = pd.DataFrame(
        {
            "sample_id": [str(k) for k in range(n)],
            "image_path": "x",
            "label": [f"l{v}" for v in p["labels"]],
            "group_id": [f"g{v}" for v in p["groups"]],
            "centre": [f"c{v}" for v in p["centre"]],
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        index = RI.compute(
            p["x"], manifest, confounder_column="centre", k_candidates=list(neighbors.KS)
        )
        margin = CRoMa.compute(p["x"], manifest, confounder_column="centre", m=m)
    return index, margin


def ours(p: dict[str, Any]) -> neighbors.Around:
    return around(p["x"], p["labels"], p["groups"], {"centre": p["centre"]})


@pytest.mark.parametrize("seed", range(6))
def test_index_and_margins_are_cromas(seed: int) -> None:
    p = planted(seed)
    index, margin = croma_of(p)
    found = ours(p)
    k = neighbors.chosen_k(found.any, p["labels"])
    assert k == index.k
    counts = neighbors.index_counts(found.any, k, p["labels"], p["centre"])
    assert neighbors.index_of(counts.sum(axis=0)) == pytest.approx(index.value, abs=1e-6)
    values = neighbors.margins(found.so["centre"], found.os["centre"])
    assert values == pytest.approx(margin.sample_values, abs=1e-6)
    assert neighbors.median(values) == pytest.approx(margin.value, abs=1e-6)
    assert neighbors.worst_tenth(values) == pytest.approx(margin.ltm_alpha, abs=1e-6)
    assert neighbors.share_below(values) == pytest.approx(margin.f0, abs=1e-6)


def without(p: dict[str, Any], slide: int) -> dict[str, Any]:
    kept = p["groups"] != slide
    return {k: v[kept] for k, v in p.items()}


def test_a_slide_left_out_is_gone_as_a_neighbour_too() -> None:
    """Oracle: the same of the rows that are left, from the start."""
    p = planted(1)
    found, left = ours(p), Left(p["groups"], 20)
    near = found.so["centre"], found.os["centre"]
    of_margins = neighbors.margins_without(*near, left)
    k = 21
    counts = neighbors.index_without(found.any, k, p["labels"], p["centre"], left)
    for slide in range(20):
        q = without(p, slide)
        again = ours(q)
        expected = neighbors.margins(again.so["centre"], again.os["centre"])
        assert of_margins[slide] == pytest.approx(expected)
        each = neighbors.index_counts(again.any, k, q["labels"], q["centre"])
        assert counts[slide].tolist() == each.sum(axis=0).tolist()


def test_rows_without_such_neighbours_have_no_margin() -> None:
    p = planted(2, n=60)
    p["centre"] = np.zeros(60, dtype=np.intp)  # nothing of the same label elsewhere
    found = ours(p)
    values = neighbors.margins(found.so["centre"], found.os["centre"])
    assert np.isnan(values).all()
    assert np.isnan(neighbors.median(values))
    alike = np.ones((60, 4))
    same = around(alike, p["labels"], p["groups"], {"c": p["groups"] % 2})
    assert np.isnan(neighbors.margins(same.so["c"], same.os["c"])).all()  # all distances are 0


def test_a_group_of_its_own_leaves_out_itself_alone() -> None:
    p = planted(3, n=50)
    alone = np.full(50, -1)
    found = around(p["x"], p["labels"], alone, {"centre": p["centre"]})
    assert (found.any.rows[:, :49] >= 0).all()
    assert not (found.any.rows == np.arange(50)[:, None]).any()
