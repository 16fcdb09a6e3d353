"""Long curves in blocks: no peak is lost, and a rollback voids them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlmodel import col, func, select

from service import blocks
from service.blocks import SIZES, Block, cut
from service.roster import Roster
from service.tables import BlockRow
from service.thinning import thin
from tests.service.world import Controller, World, metrics

PEAK = 12_345
STEP = 64
BLOCK = SIZES[0] * SIZES[1]


def curve(count: int, start: int = 0) -> list[tuple[int, float]]:
    return [(STEP * at, 1e6 if at == PEAK else float(at % 7)) for at in range(start, start + count)]


def report(controller: Controller, points: list[tuple[int, float]], name: str = "loss") -> None:
    controller.report(metrics(*((samples, {name: value}) for samples, value in points)))


def condense(world: World, job: str) -> None:
    blocks.extend(world.database, job)


def series(world: World, job: str, **params: Any) -> list[list[Any]]:
    found: list[list[Any]] = world.get(f"/v1/jobs/{job}/metrics", name="loss", **params)["series"]["loss"]
    return found


def count(world: World) -> int:
    with world.database.reading() as session:
        return session.exec(select(func.count(col(BlockRow.start)))).one()


@pytest.fixture
def controller(world: World) -> Controller:
    """Of a job with a long curve, in blocks."""
    controller = world.run()
    report(controller, curve(20_000))
    condense(world, controller.job)
    return controller


def test_a_long_curve_is_thinned_and_keeps_its_peak_and_its_ends(world: World, controller: Controller) -> None:
    found = series(world, controller.job, points=100)
    assert len(found) == 100
    assert [PEAK * STEP, 1e6] in found
    assert (found[0], found[-1]) == ([0, 0.0], [STEP * 19_999, 19_999 % 7.0])
    assert {tuple(point) for point in found} <= set(curve(20_000))


def test_what_is_new_since_is_read_along(world: World, controller: Controller) -> None:
    report(controller, curve(7, start=20_000))
    assert series(world, controller.job, points=100)[-1] == [STEP * 20_006, 20_006 % 7.0]
    condense(world, controller.job)
    assert series(world, controller.job, points=100)[-1] == [STEP * 20_006, 20_006 % 7.0]


def test_a_part_is_cut_out_by_its_samples_not_by_blocks(world: World, controller: Controller) -> None:
    found = series(world, controller.job, points=50, **{"from": STEP * 1001, "to": STEP * 9999})
    assert (found[0], found[-1]) == ([STEP * 1001, 1001 % 7.0], [STEP * 9999, 9999 % 7.0])


def test_a_closer_look_is_as_the_points_are(world: World, controller: Controller) -> None:
    found = series(world, controller.job, points=100, **{"from": 0, "to": STEP * 500})
    assert found == [list(point) for point in thin(curve(501), 100)]


def test_all_points_are_there_where_all_are_asked_for(world: World, controller: Controller) -> None:
    response = world.http.get(f"/v1/jobs/{controller.job}/metrics", headers={"Accept": "text/csv"})
    assert len(response.text.splitlines()) == 20_001


def test_a_rollback_voids_the_blocks_beyond_it(world: World, controller: Controller) -> None:
    controller.generation += 1
    controller.report({"type": "rollback", "to_samples": STEP * 10_000})
    again = [(samples, -1.0) for samples, _ in curve(10_000, start=10_001)]
    report(controller, again)
    for _ in range(2):
        found = series(world, controller.job, points=100)
        assert all((value == -1.0) == (samples > STEP * 10_000) for samples, value in found)
        assert [PEAK * STEP, 1e6] not in found
        condense(world, controller.job)


def test_blocks_are_made_once(world: World, controller: Controller) -> None:
    made = count(world)
    assert made == sum(20_000 // size for size in (16, 128, 1024, 8192))
    condense(world, controller.job)
    assert count(world) == made


def test_short_curves_and_values_that_are_not_finite(world: World) -> None:
    controller = world.run()
    report(controller, [(at, float("nan")) for at in range(BLOCK)])
    report(controller, [(at, 1.0) for at in range(3)], "lr")
    condense(world, controller.job)
    assert count(world) == SIZES[1] + 1
    assert world.get(f"/v1/jobs/{controller.job}/metrics", points=4)["series"] == {"lr": [[0, 1.0], [1, 1.0], [2, 1.0]]}


def test_they_go_with_their_job(world: World, controller: Controller) -> None:
    world.lose(controller.job)
    assert count(world) == 0
    condense(world, controller.job)


def test_what_reports_brought_is_made_into_blocks_behind_them(world: World) -> None:
    roster = Roster(world.database)
    controller = world.run()
    roster.take(
        controller.message([controller.event(metrics(*((samples, {"loss": 0.0}) for samples, _ in curve(20))))])
    )
    assert count(world) == 0
    roster.condense()
    assert count(world) == 1


POINT = st.tuples(st.integers(0, 2**40), st.none() | st.floats(-1e9, 1e9))


@given(st.lists(POINT, unique_by=lambda point: point[0]).map(sorted), st.integers(1, 9))
def test_a_block_has_the_lowest_and_the_highest_of_its_points(
    points: list[tuple[int, float | None]], size: int
) -> None:
    made = cut([Block.of(*point) for point in points], size)
    assert len(made) == len(points) // size
    for number, block in enumerate(made):
        inside = points[number * size : (number + 1) * size]
        values = [y for _, y in inside if y is not None]
        assert (block.start, block.stop) == (inside[0][0], inside[-1][0])
        assert (block.low, block.high) == ((min(values), max(values)) if values else (None, None))
        assert {(block.low_at, block.low), (block.high_at, block.high)} <= set(inside)


@given(st.lists(POINT, unique_by=lambda point: point[0]).map(sorted))
def test_blocks_of_blocks_are_blocks_of_all_their_points(points: list[tuple[int, float | None]]) -> None:
    parts = [Block.of(*point) for point in points]
    assert cut(cut(parts, 4), 2) == cut(parts, 8)
