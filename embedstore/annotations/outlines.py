"""Outlines of cells: where their middles are, and which of them touch."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

Place = tuple[float, float]

TOUCH_PX = 1.0
"""Outlines that come as close as this are parts of one object."""


def centroid(ring: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """Return the area centroid (x, y) of a closed ring and its area, in pixels; holes are no part.

    The shoelace sums run from the first vertex, since far from the origin they lose all digits. A
    ring without area, or one that crosses itself so that its centroid falls outside of its bounds,
    gives the mean of its vertices.
    """
    x0, y0 = float(ring[0][0]), float(ring[0][1])
    points = [(float(p[0]) - x0, float(p[1]) - y0) for p in ring]
    if len(points) > 1 and points[-1] == points[0]:
        points.pop()
    twice = x = y = 0.0
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        cross = ax * by - bx * ay
        twice, x, y = twice + cross, x + (ax + bx) * cross, y + (ay + by) * cross
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    extent = max(max(xs) - min(xs), max(ys) - min(ys))
    if abs(twice) > 1e-9 * extent**2:
        cx, cy = x / (3 * twice), y / (3 * twice)
        if min(xs) <= cx <= max(xs) and min(ys) <= cy <= max(ys):
            return x0 + cx, y0 + cy, abs(twice) / 2
    return x0 + sum(xs) / len(xs), y0 + sum(ys) / len(ys), 0.0


def joined(outlines: Sequence[list[Place]]) -> list[list[list[Place]]]:
    """Return outlines in groups, those that touch or overlap within TOUCH_PX in one.

    Groups stand in the order of their first outlines. Only outlines whose boxes meet are compared:
    a slide's cells may all be one feature.
    """
    leader = list(range(len(outlines)))

    def first(n: int) -> int:
        while leader[n] != n:
            leader[n] = n = leader[leader[n]]
        return n

    for n, m in _boxes_that_meet(outlines):
        a, b = sorted((first(n), first(m)))
        if a != b and _outlines_meet(outlines[n], outlines[m]):
            leader[b] = a
    groups: dict[int, list[list[Place]]] = {}
    for n, outline in enumerate(outlines):
        groups.setdefault(first(n), []).append(outline)
    return list(groups.values())


def _boxes_that_meet(outlines: Sequence[list[Place]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of outlines whose boxes come within TOUCH_PX, swept from left to right."""
    if len(outlines) < 2:
        return
    places = [np.asarray(o, np.float64) for o in outlines]
    low, high = np.array([p.min(0) for p in places]), np.array([p.max(0) for p in places])
    order = np.argsort(low[:, 0], kind="stable")
    low, high = low[order], high[order] + TOUCH_PX
    ends = np.searchsorted(low[:, 0], high[:, 0], side="right")
    for n, end in enumerate(ends):
        beside = slice(n + 1, int(end))
        meet = (low[beside, 1] <= high[n, 1]) & (low[n, 1] <= high[beside, 1])
        for m in np.flatnonzero(meet):
            yield int(order[n]), int(order[n + 1 + m])


def _outlines_meet(a: Sequence[Place], b: Sequence[Place]) -> bool:
    """Return whether two outlines cross, come within TOUCH_PX, or lie in each other."""
    near = any(
        _inside(p, ring) or any(_distance(p, *edge) <= TOUCH_PX for edge in _edges(ring))
        for vertices, ring in ((a, b), (b, a))
        for p in vertices
    )
    return near or any(_cross(*one, *other) for one in _edges(a) for other in _edges(b))


def _cross(p: Place, q: Place, r: Place, s: Place) -> bool:
    return _side(p, q, r) * _side(p, q, s) < 0 and _side(r, s, p) * _side(r, s, q) < 0


def _side(a: Place, b: Place, p: Place) -> float:
    return (b[0] - a[0]) * (p[1] - a[1]) - (b[1] - a[1]) * (p[0] - a[0])


def _edges(ring: Sequence[Place]) -> list[tuple[Place, Place]]:
    return list(zip(ring, [*ring[1:], ring[0]], strict=True))


def _inside(p: Place, ring: Sequence[Place]) -> bool:
    crossings = 0
    for (ax, ay), (bx, by) in _edges(ring):
        if (ay > p[1]) != (by > p[1]) and p[0] < ax + (p[1] - ay) / (by - ay) * (bx - ax):
            crossings += 1
    return crossings % 2 == 1


def _distance(p: Place, a: Place, b: Place) -> float:
    """Return how far p is from the line between a and b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = dx * dx + dy * dy
    along = ((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / length if length else 0.0
    along = min(max(along, 0.0), 1.0)
    return math.hypot(p[0] - a[0] - along * dx, p[1] - a[1] - along * dy)


def common_centroid(rings: Iterable[Sequence[Place]]) -> Place:
    """Return the centroid of several rings by area, the mean of theirs where none has any."""
    parts = [centroid(ring) for ring in rings]
    total = sum(p[2] for p in parts)
    weights = [p[2] / total if total else 1 / len(parts) for p in parts]
    x, y = (sum(w * p[k] for w, p in zip(weights, parts, strict=True)) for k in (0, 1))
    return x, y
