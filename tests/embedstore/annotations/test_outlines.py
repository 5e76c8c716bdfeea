"""Outlines that touch are one object: against every pair compared, and by hand."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from embedstore.annotations.outlines import TOUCH_PX, joined

Box = tuple[int, int, int, int]


def _ring(box: Box) -> list[tuple[float, float]]:
    x, y, w, h = box
    return [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]


def _meet(a: Box, b: Box) -> bool:
    """Two boxes with sides along the axes meet where their gap on both axes is TOUCH_PX at most.

    Diagonal neighbours are apart by their corners' distance.
    """
    gaps = [max(a[k] - b[k] - b[k + 2], b[k] - a[k] - a[k + 2], 0) for k in (0, 1)]
    return gaps[0] ** 2 + gaps[1] ** 2 <= TOUCH_PX**2


_boxes = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 25), st.integers(1, 25)),
    max_size=25,
)


@given(_boxes)
def test_groups_are_the_connected_components_of_the_pairs_that_meet(boxes: list[Box]) -> None:
    components = [{n} for n in range(len(boxes))]
    for n, m in combinations(range(len(boxes)), 2):
        if _meet(boxes[n], boxes[m]):
            both = [c for c in components if n in c or m in c]
            components = [c for c in components if c not in both] + [set().union(*both)]
    expected = [[_ring(boxes[n]) for n in sorted(c)] for c in sorted(components, key=min)]
    assert joined([_ring(b) for b in boxes]) == expected


def test_an_outline_without_a_neighbour_stays_alone_among_ten_thousand() -> None:
    grid = [(30 * x, 30 * y, 20, 20) for x in range(100) for y in range(100)]
    assert [len(g) for g in joined([_ring(b) for b in grid])] == [1] * 10_000
    assert len(joined([_ring((x, y, 30, 20)) for x, y, _, _ in grid])) == 100
