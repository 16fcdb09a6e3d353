"""The events of a job in pages: what a reader keeps is a cursor, and with it misses nothing."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from api_schemas.events import EventType, ServiceEvent, WorkerEvent
from service.events import NOT_LISTED
from tests.service.world import Controller, World, committed, finished, metrics, pointers, started


def pages(world: World, job: str, **params: Any) -> list[dict[str, Any]]:
    found = [world.get(f"/v1/jobs/{job}/events", **params)]
    while found[-1]["next"]:
        found.append(world.get(f"/v1/jobs/{job}/events", after=found[-1]["next"], **params))
    return found


def types(page: dict[str, Any]) -> list[str]:
    return [item["type"] for item in page["items"]]


def test_the_history_of_a_job_in_order(world: World) -> None:
    controller = world.run()
    controller.report(finished("succeeded"))
    page = world.get(f"/v1/jobs/{controller.job}/events")
    assert types(page) == ["submitted", "phase", "started", "phase", "finished", "phase"]
    assert [item["phase"] for item in page["items"] if item["type"] == "phase"] == ["starting", "running", "succeeded"]
    assert page["next"] is None
    assert page["items"][0] == {
        "job": controller.job,
        "incarnation": 0,
        "generation": 0,
        "sequence": 1,
        "at": "2026-01-01T12:00:00Z",
        "type": "submitted",
        "name": "digits",
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_put_together_are_the_history(world: World, limit: int) -> None:
    job = world.run().job
    world.run()  # another job's events do not mix in
    found = pages(world, job, limit=limit)
    assert [item for page in found for item in page["items"]] == world.get(f"/v1/jobs/{job}/events")["items"]
    assert [len(page["items"]) for page in found[:-1]] == [limit] * (len(found) - 1)


def test_the_last_cursor_leads_to_what_happens_later(world: World) -> None:
    controller = world.run()
    last = world.get(f"/v1/jobs/{controller.job}/events")["last"]
    assert world.get(f"/v1/jobs/{controller.job}/events", after=last) == {"items": [], "next": None, "last": None}
    controller.report(finished("failed"))
    later = world.get(f"/v1/jobs/{controller.job}/events", after=last)
    assert types(later) == ["finished", "phase"]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
def test_pages_from_the_newest_back_are_the_history_reversed(world: World, limit: int) -> None:
    job = world.run().job
    world.run()
    found = pages(world, job, limit=limit, newest_first=True)
    whole = world.get(f"/v1/jobs/{job}/events")
    assert [item for page in found for item in page["items"]] == whole["items"][::-1]
    assert [len(page["items"]) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert found[0]["last"] == whole["last"], "from there a reader goes on"


@pytest.mark.parametrize("newest_first", [False, True])
def test_of_some_types_alone(world: World, newest_first: bool) -> None:
    controller = world.run()
    controller.report(finished("succeeded"))
    params = {"type": ["phase", "finished"], "limit": 2, "newest_first": newest_first}
    found = [kind for page in pages(world, controller.job, **params) for kind in types(page)]
    assert (found[::-1] if newest_first else found) == ["phase", "phase", "finished", "phase"]
    assert world.get(f"/v1/jobs/{controller.job}/events", type="rollback") == {"items": [], "next": None, "last": None}


def test_every_event_that_is_listed_can_be_asked_for() -> None:
    kinds = [kind for kind in get_args(ServiceEvent | WorkerEvent) if kind not in NOT_LISTED]
    assert list(get_args(EventType)) == [kind.model_fields["type"].default for kind in kinds]


def test_what_is_in_ledger_and_curves_is_not_listed(world: World) -> None:
    controller = world.run()
    before = world.get(f"/v1/jobs/{controller.job}/events")
    controller.report(committed(0, 64), metrics((64, {"loss": 1.0})))
    assert world.get(f"/v1/jobs/{controller.job}/events") == before


def test_requests_are_events_too(world: World) -> None:
    job = world.run().job
    world.http.post(f"/v1/jobs/{job}/resize", json={"workers": 3, "at_samples": 640})
    world.http.post(f"/v1/jobs/{job}/cancel")
    *_, asked, cancelling = world.get(f"/v1/jobs/{job}/events")["items"]
    assert (asked["type"], asked["workers"], asked["at_samples"]) == ("resize_requested", 3, 640)
    assert (cancelling["type"], cancelling["phase"]) == ("phase", "cancelling")


def test_a_score_that_is_not_finite_is_null(world: World) -> None:
    controller = world.run()
    scores = {"type": "evaluated", "samples": 64, "target": {"loss": float("nan")}, "ema": {"loss": float("inf")}}
    controller.report(scores)
    event = world.get(f"/v1/jobs/{controller.job}/events")["items"][-1]
    assert (event["target"], event["ema"]) == ({"loss": None}, {"loss": None})
    evaluation = world.job(controller.job)["evaluation"]
    assert evaluation == {"samples": 64, "target": {"loss": None}, "ema": {"loss": None}}


def test_a_second_incarnation_is_told_apart(world: World) -> None:
    first = world.run()
    second = Controller.launch(world.database, first.job)
    second.report(started(samples=640))
    items = world.get(f"/v1/jobs/{first.job}/events")["items"]
    assert [item["incarnation"] for item in items if item["type"] == "started"] == [1, 2]
    assert len({(item["incarnation"], item["sequence"]) for item in items}) == len(items)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "?limit"),
        ("limit=1001", "?limit"),
        ("after=-1", "?after"),
        ("after=", "?after"),
        ("after=99999999999999999999", "?after"),
        ("after=%D9%A3", "?after"),  # a digit, but none of ours
        ("since=3", "?since"),
        ("newest_first=perhaps", "?newest_first"),
        ("type=metrics", "?type"),
    ],
)
def test_a_wrong_parameter_is_named(world: World, query: str, pointer: str) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs/{world.submit()}/events?{query}"))) == [pointer]
