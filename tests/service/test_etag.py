"""Polling: an answer that nothing has changed is never wrong, whatever happened to the job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.roster import Roster
from service.tables import Job
from tests.service.world import Controller, World, committed, finished, metrics, resized, started

Change = Callable[[World, Controller], object]


def request(method: str, path: str, **body: Any) -> Change:
    return lambda world, controller: world.http.request(method, f"/v1/jobs/{controller.job}{path}", json=body)


def report(**event: Any) -> Change:
    return lambda _, controller: controller.report(event)


def explain(world: World, controller: Controller) -> None:
    """The reconciler says why the job waits."""
    with world.database.reading() as session:
        seen = session.get_one(Job, controller.job)
    Roster(world.database).explain(seen, "waiting_for_slots", f"Sample {seen.samples}.")


CHANGES: dict[str, Change] = {
    "priority": request("PATCH", "", priority=7),
    "labels": request("PATCH", "", labels={"team": "sound"}),
    "limits": request("PATCH", "", elasticity={"workers": [1, 3]}),
    "resize": request("POST", "/resize", workers=3),
    "resize later": request("POST", "/resize", workers=2, at_samples=4000),
    "cancel": request("POST", "/cancel"),
    "commit": report(**committed(0, 640)),
    "values": report(**metrics((640, {"lr": 0.05}))),
    "noise": report(**metrics((640, {"noise_scale": 100.0}))),
    "resized": report(**resized(640, (2, 3))),
    "rank lost": report(type="rank_lost", rank=1, reason="The node is gone."),
    "evaluated": report(type="evaluated", samples=640, target={"accuracy": 0.5}, ema=None),
    "exported": report(type="exported", artifacts={"ema": "/ema"}),
    "rollback": report(type="rollback", to_samples=0),
    "started again": report(**started(samples=320)),
    "failed": report(**finished("failed")),
    "explained": explain,
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_seen_by_whoever_polls(world: World, change: str) -> None:
    controller = world.run()
    controller.report(committed(0, 64))
    address = f"/v1/jobs/{controller.job}"
    before = world.http.get(address)
    CHANGES[change](world, controller)
    after = world.http.get(address, headers={"If-None-Match": before.headers["etag"]})
    assert after.status_code == 200
    assert after.headers["etag"] != before.headers["etag"]
    assert after.json()["revision"] > before.json()["revision"]
    assert after.json() != before.json() | {name: after.json()[name] for name in ("revision", "updated_at")}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.sampled_from(list(CHANGES)), max_size=8))
def test_unchanged_means_unchanged(world: World, changes: list[str]) -> None:
    """Against every ETag that was ever handed out: 304 only for the view that it came with."""
    controller = world.run()
    address = f"/v1/jobs/{controller.job}"
    handed_out: dict[str, Any] = {}
    for change in [None, *changes]:
        if change:
            CHANGES[change](world, controller)
        whole = world.http.get(address)
        assert handed_out.setdefault(whole.headers["etag"], whole.json()) == whole.json()
        for etag, view in handed_out.items():
            asked = world.http.get(address, headers={"If-None-Match": etag})
            assert (asked.status_code == 304) == (etag == whole.headers["etag"])
            assert asked.status_code == 304 or asked.json() == whole.json() != view


@pytest.mark.parametrize("header", ['"99", "{0}"', 'W/"{0}"', '"{0}"'])
def test_a_tag_may_stand_in_a_list_and_be_weakened_by_a_proxy(world: World, header: str) -> None:
    address = f"/v1/jobs/{world.submit()}"
    tag = world.http.get(address).headers["etag"].strip('"')
    assert world.http.get(address, headers={"If-None-Match": header.format(tag)}).status_code == 304


@pytest.mark.parametrize("header", ["", "1", '"11"', '"01"', '"x"', '"1"'])
def test_another_tag_is_no_match(world: World, header: str) -> None:
    """Nor is the bare revision: a version of the service with other fields may have said it."""
    address = f"/v1/jobs/{world.submit()}"
    assert world.get(address)["revision"] == 1
    assert world.http.get(address, headers={"If-None-Match": header}).status_code == 200


def test_what_changes_nothing_keeps_the_tag(world: World) -> None:
    controller = world.run()
    address = f"/v1/jobs/{controller.job}"
    repeated = controller.report(committed(0, 64))
    etag = world.http.get(address).headers["etag"]
    controller.send(repeated)
    world.http.patch(address, json={})
    world.http.patch(address, json={"priority": 0})
    world.http.post(f"{address}/resize", json={"workers": 99})
    world.http.post(f"{address}/resize?dry_run=true", json={"workers": 3})
    world.clock.move(3600)
    assert world.http.get(address, headers={"If-None-Match": etag}).status_code == 304


def test_the_tag_of_a_submit_is_that_of_the_job(world: World) -> None:
    response = world.http.post("/v1/jobs", json=world.job(world.submit())["spec"])
    again = world.http.get(response.headers["location"], headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304


def test_a_page_of_jobs_has_a_tag_too(world: World) -> None:
    controller = world.run()
    tag = world.http.get("/v1/jobs").headers["etag"]
    assert world.http.get("/v1/jobs", headers={"If-None-Match": tag}).status_code == 304
    assert world.http.get("/v1/jobs?status=queued", headers={"If-None-Match": tag}).status_code == 200
    controller.report(committed(0, 64))
    changed = world.http.get("/v1/jobs", headers={"If-None-Match": tag})
    assert (changed.status_code, changed.json()["items"][0]["progress"]["samples"]) == (200, 64)
