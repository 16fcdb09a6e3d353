"""How the dashboard hears what is new, and what that costs; also where the service is away."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.dashboard.browser import Screen, needs_chromium
from tests.integration.stage import LONG, Job, Stage

pytestmark = [needs_chromium, pytest.mark.timeout(400)]

PROGRESS = re.compile(r"^[\d\s]+ of [\d\s]+ samples$")
IDLE_S = 30
IDLE_BYTES_A_MINUTE = 5000


@pytest.mark.usefixtures("ended")
def test_a_service_that_goes_and_comes_back(stage: Stage, browser: Browser) -> None:
    screen, other = Screen(browser, stage.address), Screen(browser, stage.address)
    page = screen.go("/jobs")
    expect(page.get_by_role("row").filter(has_text="short")).to_be_visible()
    trains = stage.submit(name="trains on", elasticity={"workers": [1, 2]}, **LONG)
    progress = other.go(f"/jobs/{trains.id}").get_by_text(PROGRESS)
    seen = progress.text_content() or ""
    expect(progress).not_to_have_text(seen)
    port = int(stage.address.rpartition(":")[2])
    stage.kill()
    try:
        for each in (screen, other):
            expect(each.page.get_by_text("The service does not answer.")).to_be_visible()
        screen.shown("away")
        seen = progress.text_content() or ""
    finally:
        stage.serve(port)
    for each in (screen, other):
        expect(each.page.get_by_text("The service does not answer.")).to_have_count(0)
    expect(progress).not_to_have_text(seen)
    stage.client.cancel(trains.id)
    expect(other.page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    other.close()
    job = stage.submit(name="after the outage", elasticity={"workers": [9, 9]})
    expect(page.get_by_role("row").filter(has_text="after the outage")).to_be_visible()
    stage.client.cancel(job.id)
    screen.close()


def test_the_page_of_a_job_that_trains_hears_what_is_new_and_asks_for_nothing_whole(
    stage: Stage, screen: Screen
) -> None:
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.url.removeprefix(stage.address)))
    job = stage.submit(name="watched", elasticity={"workers": [1, 2]}, **LONG)
    page = screen.go(f"/jobs/{job.id}")
    progress = page.get_by_text(PROGRESS)
    for _ in range(3):
        seen = progress.text_content() or ""
        expect(progress).not_to_have_text(seen)
    stage.client.cancel(job.id)
    expect(page.get_by_text("cancelled", exact=True)).to_be_visible()
    trained = asked[: asked.index(f"/v1/jobs/{job.id}")] if f"/v1/jobs/{job.id}" in asked else asked
    assert len([path for path in trained if "/metrics?" in path]) > 2, "curves grow by what is new"
    assert asked.count(f"/v1/jobs/{job.id}") <= 1, "at most once, when the stream has ended"


def test_where_no_stream_gets_through_it_asks(stage: Stage, screen: Screen, ended: Job) -> None:
    screen.page.route("**/v1/**", without_streams)
    page = screen.go("/jobs")
    expect(page.get_by_role("row").filter(has_text="short")).to_be_visible()
    job = stage.submit(name="unheard", elasticity={"workers": [9, 9]})
    expect(page.get_by_role("row").filter(has_text="unheard")).to_be_visible()
    screen.go("/cluster")
    expect(page.get_by_role("row").filter(has_text="unheard")).to_be_visible()
    stage.client.cancel(job.id)
    expect(page.get_by_role("row").filter(has_text="unheard")).to_have_count(0)
    screen.go(f"/jobs/{ended.id}/events")
    expect(page.get_by_text("succeeded: ")).to_be_visible()


def without_streams(route: Route) -> None:
    if route.request.resource_type == "eventsource":
        route.abort()
    else:
        route.continue_()


IDLE = {"/jobs": "waiting", "/jobs/{id}": "Needs 9 workers", "/jobs/{id}/events": "submitted", "/cluster": "waiting"}
"""Pages, and what can be read there."""


def test_idle_pages_cost_next_to_nothing(stage: Stage, browser: Browser, waiting: Job) -> None:
    screens = {place: Screen(browser, stage.address) for place in IDLE}
    for place, screen in screens.items():
        page = screen.go(place.format(id=waiting.id))
        expect(page.get_by_text(IDLE[place]).first).to_be_visible()
    page.wait_for_timeout(5000)
    before = {place: screen.received for place, screen in screens.items()}
    assert min(before.values()) > 0
    page.wait_for_timeout(1000 * IDLE_S)
    a_minute = {place: (screen.received - before[place]) * 60 // IDLE_S for place, screen in screens.items()}
    for screen in screens.values():
        screen.close()
        assert screen.complaints == []
    assert max(a_minute.values()) < IDLE_BYTES_A_MINUTE, a_minute
    print(a_minute)
