"""Fewer points of a curve, and still its shape: Largest-Triangle-Three-Buckets. Pure.

Steinarsson, Downsampling Time Series for Visual Representation (University of Iceland, 2013), section 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[int, float]


def thin(points: Sequence[Point], count: int) -> list[Point]:
    """At most `count` (2 or more) of the points, which are in order of x: the first, the last, and of each of
    `count` - 2 equal buckets between them the one that spans the largest triangle with its neighbours."""
    if len(points) <= count:
        return list(points)
    width = (len(points) - 2) / max(1, count - 2)
    edges = [1 + round(bucket * width) for bucket in range(count - 1)]
    kept = [points[0]]
    for bucket in range(count - 2):
        following = points[edges[bucket + 1] : edges[bucket + 2]] if bucket < count - 3 else points[-1:]
        candidates = points[edges[bucket] : edges[bucket + 1]]
        kept.append(_largest(kept[-1], candidates, _mean(following)))
    return [*kept, points[-1]]


def _largest(left: Point, candidates: Sequence[Point], right: tuple[float, float]) -> Point:
    def doubled_area(point: Point) -> float:
        return abs((left[0] - right[0]) * (point[1] - left[1]) - (left[0] - point[0]) * (right[1] - left[1]))

    return max(candidates, key=doubled_area)


def _mean(points: Sequence[Point]) -> tuple[float, float]:
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)
