"""The audit: a row for every change of size, with every value before and after."""

from __future__ import annotations

import pytest

from tests.service.world import START, World, pointers, resized


def test_a_row_has_all_that_the_change_did(world: World) -> None:
    controller = world.run()
    controller.generation = 2
    controller.report(resized(640, (2, 3), warnings=["momentum_lost"], reason="somebody asked"))
    (row,) = world.get(f"/v1/jobs/{controller.job}/resizes")["items"]
    assert row == {
        "id": 1,
        "at": START.isoformat().replace("+00:00", "Z"),
        "cause": "api",
        "reason": "somebody asked",
        "generation": 2,
        "samples": 640,
        "workers": [2, 3],
        "kappa": [2.0, 3.0],
        "batch": [128, 192],
        "before": {"lr": 0.1},
        "after": {"lr": 0.2},
        "state_factors": {"step": 0.5},
        "warnings": ["momentum_lost"],
        "decide_s": 0.1,
        "pause_s": 0.2,
        "steps_lost": 0,
        "samples_lost": 0,
    }


def test_rows_come_in_pages_the_oldest_first(world: World) -> None:
    controller = world.run()
    other = world.run()
    for samples in range(5):
        controller.report(resized(samples, (2, 3)))
        other.report(resized(100 + samples, (2, 3)))
    address = f"/v1/jobs/{controller.job}/resizes"
    pages = [world.get(address, limit=2)]
    while pages[-1]["next"]:
        pages.append(world.get(address, limit=2, after=pages[-1]["next"]))
    assert [[row["samples"] for row in page["items"]] for page in pages] == [[0, 1], [2, 3], [4]]


def test_the_job_follows_its_last_row(world: World) -> None:
    controller = world.run()
    controller.report(resized(640, (2, 3)))
    view = world.job(controller.job)
    assert (view["workers"], view["kappa"], view["batch"], view["values"]) == (3, 3.0, 192, {"lr": 0.2})


def test_a_job_that_was_never_resized_has_no_rows(world: World) -> None:
    assert world.get(f"/v1/jobs/{world.run().job}/resizes") == {"items": [], "next": None}


@pytest.mark.parametrize(
    ("query", "pointer"), [("limit=0", "?limit"), ("limit=1001", "?limit"), ("after=x", "?after"), ("page=2", "?page")]
)
def test_a_wrong_parameter_is_named(world: World, query: str, pointer: str) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs/{world.submit()}/resizes?{query}"))) == [pointer]


def test_the_farthest_cursor_leads_to_nothing(world: World) -> None:
    page = world.get(f"/v1/jobs/{world.run().job}/resizes", after="9" * 18)
    assert page == {"items": [], "next": None}
