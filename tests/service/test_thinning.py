"""Thinning keeps a curve's ends, its order, its number of points and what stands out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from service.thinning import Point, thin

FINITE = st.floats(allow_nan=False, allow_infinity=False)


def curves() -> st.SearchStrategy[list[Point]]:
    """Points in order of x."""
    return st.dictionaries(st.integers(0, 2**63 - 1), FINITE, max_size=60).map(lambda curve: sorted(curve.items()))


@given(points=curves(), count=st.integers(2, 70))
def test_a_thinned_curve_is_a_part_of_the_curve_in_order(points: list[Point], count: int) -> None:
    thinned = thin(points, count)
    assert len(thinned) == min(count, len(points))
    assert thinned == sorted(set(thinned) & set(points))


@given(points=curves(), count=st.integers(2, 70))
def test_both_ends_stay(points: list[Point], count: int) -> None:
    thinned = thin(points, count)
    assert thinned[:1] == points[:1]
    assert thinned[-1:] == points[-1:]


@given(at=st.integers(1, 998), height=st.sampled_from([-100.0, 100.0]))
def test_a_spike_stays(at: int, height: float) -> None:
    points = [(x, height if x == at else 0.0) for x in range(1000)]
    assert (at, height) in thin(points, 20)
