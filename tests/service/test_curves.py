"""Training curves: by name and range, thinned on the server, as JSON and as CSV."""

from __future__ import annotations

import csv
import math
from io import StringIO
from typing import Any

import httpx
import pytest

from service.thinning import thin
from tests.service.world import World, metrics, pointers

LOSS = [(samples, 1000.0 / samples + math.sin(samples)) for samples in range(64, 64_000, 64)]


@pytest.fixture
def job(world: World) -> str:
    """Has a long curve `loss`, and three points of `lr`."""
    controller = world.run()
    controller.report(metrics(*((samples, {"loss": value}) for samples, value in LOSS)))
    controller.report(metrics((64, {"lr": 0.1}), (128, {"lr": 0.2}), (192, {"lr": 0.1})))
    return controller.job


def series(world: World, job: str, **params: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = world.get(f"/v1/jobs/{job}/metrics", **params)["series"]
    return found


def table(world: World, job: str, **params: Any) -> list[list[str]]:
    response = world.http.get(f"/v1/jobs/{job}/metrics", params=params, headers={"Accept": "text/csv"})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.reader(StringIO(response.text, newline="")))


def test_all_curves_by_default(world: World, job: str) -> None:
    found = series(world, job)
    assert found == {"loss": [list(point) for point in LOSS], "lr": [[64, 0.1], [128, 0.2], [192, 0.1]]}


def test_some_by_name(world: World, job: str) -> None:
    assert list(series(world, job, name=["lr", "lr"])) == ["lr"]
    assert list(series(world, job, name=["lr", "loss"])) == ["lr", "loss"]


def test_a_range_of_samples_has_both_its_ends(world: World, job: str) -> None:
    assert series(world, job, name="lr", **{"from": 65, "to": 128}) == {"lr": [[128, 0.2]]}
    assert series(world, job, name="lr", **{"from": 128}) == {"lr": [[128, 0.2], [192, 0.1]]}
    assert series(world, job, name="lr", **{"from": 128, "to": 64}) == {"lr": []}
    assert series(world, job, **{"from": 128, "to": 64}) == {}


def test_a_curve_that_has_no_points_is_empty_under_its_name(world: World, job: str) -> None:
    """A recipe may report it any time, so nobody can say that there is none."""
    assert series(world, job, name=["lr", "nothing"])["nothing"] == []
    assert series(world, world.submit(), name="loss") == {"loss": []}
    assert table(world, job, name="nothing") == [["name", "samples", "value"]]


def test_a_long_curve_is_thinned_to_the_points_asked_for(world: World, job: str) -> None:
    found = series(world, job, points=50)
    assert found["loss"] == [list(point) for point in thin(LOSS, 50)]
    assert len(found["loss"]) == 50
    assert found["lr"] == [[64, 0.1], [128, 0.2], [192, 0.1]]


def test_a_range_is_cut_out_before_it_is_thinned(world: World, job: str) -> None:
    found = series(world, job, name="loss", points=10, **{"from": 6400, "to": 12_800})["loss"]
    inside = [point for point in LOSS if 6400 <= point[0] <= 12_800]
    assert found == [list(point) for point in thin(inside, 10)]


def test_without_a_number_a_curve_has_a_thousand_points(world: World) -> None:
    controller = world.run()
    controller.report(metrics(*((samples, {"loss": 1.0}) for samples in range(1001))))
    assert len(series(world, controller.job)["loss"]) == 1000


def test_a_value_that_is_not_finite_is_null_and_left_out_where_a_curve_is_thinned(world: World) -> None:
    controller = world.run()
    values = [1.0, math.nan, 3.0, math.inf, 5.0, None, 7.0]
    controller.report(metrics(*((samples, {"loss": value}) for samples, value in enumerate(values))))
    whole = series(world, controller.job)["loss"]
    assert whole == [[0, 1.0], [1, None], [2, 3.0], [3, None], [4, 5.0], [5, None], [6, 7.0]]
    assert series(world, controller.job, points=4)["loss"] == [[0, 1.0], [2, 3.0], [4, 5.0], [6, 7.0]]


def test_a_job_without_curves_has_none(world: World) -> None:
    assert series(world, world.submit()) == {}


def test_csv_has_every_point(world: World, job: str) -> None:
    header, *rows = table(world, job)
    assert header == ["name", "samples", "value"]
    assert [(int(x), float(y)) for name, x, y in rows if name == "loss"] == LOSS
    assert [row for row in rows if row[0] == "lr"] == [["lr", "64", "0.1"], ["lr", "128", "0.2"], ["lr", "192", "0.1"]]


def test_csv_can_be_thinned_and_cut_too(world: World, job: str) -> None:
    assert len(table(world, job, name="loss", points=20)) == 1 + 20
    assert table(world, job, name="lr", **{"to": 64}) == [["name", "samples", "value"], ["lr", "64", "0.1"]]


def test_in_csv_a_name_is_quoted_and_a_value_that_is_not_finite_empty(world: World) -> None:
    controller = world.run()
    controller.report(metrics((1, {'a "b", c': math.nan}), (2, {'a "b", c': 1e-9})))
    assert table(world, controller.job)[1:] == [['a "b", c', "1", ""], ['a "b", c', "2", "1e-09"]]


def test_csv_of_a_job_that_does_not_exist_is_not_found(world: World) -> None:
    response = world.http.get("/v1/jobs/nobody/metrics", headers={"Accept": "text/csv"})
    assert response.status_code == httpx.codes.NOT_FOUND


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"points": 1}, "?points"),
        ({"points": 10_001}, "?points"),
        ({"from": -1}, "?from"),
        ({"to": 2**63}, "?to"),
        ({"to": "end"}, "?to"),
        ({"name": ["x"] * 101}, "?name"),
        ({"start": 3}, "?start"),
    ],
)
def test_a_wrong_parameter_is_named(world: World, params: dict[str, Any], pointer: str) -> None:
    response = world.http.get(f"/v1/jobs/{world.submit()}/metrics", params=params)
    assert list(pointers(response)) == [pointer]
