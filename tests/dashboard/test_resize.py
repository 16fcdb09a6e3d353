"""Sizes that are asked for in a browser, and what is said of those that are not had; jobs are played."""

from __future__ import annotations

import re

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from service.db import Database, lock
from service.tables import Job
from tests.dashboard.browser import Screen, needs_chromium
from tests.service.world import Controller, spec, started

pytestmark = needs_chromium


@pytest.fixture
def job(address: str, database: Database) -> str:
    """A job that trains on two of four workers."""
    number: str = httpx.post(f"{address}/v1/jobs", json=spec()).raise_for_status().json()["id"]
    Controller.launch(database, number).report(started())
    return number


def ask(screen: Screen, job: str, workers: int, at_samples: int | None = None) -> None:
    body = {"workers": workers, "at_samples": at_samples}
    httpx.post(f"{screen.address}/v1/jobs/{job}/resize", json=body).raise_for_status()


def opened(page: Page) -> None:
    page.get_by_role("button", name="Resize").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_a_size_that_was_asked_for_is_taken_back(screen: Screen, job: str) -> None:
    page = screen.go(f"/jobs/{job}")
    opened(page)
    free = page.get_by_role("button", name="As many as allowed")
    expect(free).to_have_count(0)
    page.get_by_role("button", name="Close").click()
    ask(screen, job, 1)
    ask(screen, job, 3, at_samples=2000)
    expect(page.get_by_text("1 to 4, asked for 1")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^from sample 2.000$"))).to_be_visible()
    opened(page)
    expect(page.get_by_text(re.compile(r"Asked for: 1 worker, 3 workers from sample 2.000 on."))).to_be_visible()
    free.click()
    expect(page.get_by_role("row", name="workers 2 4")).to_be_visible()
    screen.shown("resize-free")
    page.get_by_role("dialog").get_by_role("button", name="Resize").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    view = httpx.get(f"{screen.address}/v1/jobs/{job}").json()
    assert (view["target_workers"], view["pending_resizes"]) == (None, [])
    page.get_by_role("link", name="Events").click()
    expect(page.get_by_text("what was asked for was taken back")).to_be_visible()


def test_what_is_typed_counts_again(screen: Screen, job: str) -> None:
    ask(screen, job, 1)
    page = screen.go(f"/jobs/{job}")
    opened(page)
    page.get_by_role("button", name="As many as allowed").click()
    expect(page.get_by_role("row", name="workers 2 4")).to_be_visible()
    page.get_by_label("Workers (1 to 4)").fill("3")
    expect(page.get_by_role("row", name="workers 2 3")).to_be_visible()


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("Workers (1 to 4)", "", "Say how many: 1 to 4."),
        ("Workers (1 to 4)", "2.5", "Must be a whole number."),
        ("Workers (1 to 4)", "-", "Must be a whole number."),
        ("From sample", "1e", "Must be a whole number."),
    ],
)
def test_what_is_no_size_has_no_preview_and_is_not_asked_for(
    screen: Screen, job: str, label: str, text: str, said: str
) -> None:
    page = screen.go(f"/jobs/{job}")
    opened(page)
    page.get_by_label("Workers (1 to 4)").fill("3")
    expect(page.get_by_role("row", name="workers 2 3")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/resize" in request.url else None)
    field = page.get_by_label(label)
    field.fill(text)
    expect(page.locator(".field", has=field).locator(".error")).to_have_text(said)
    expect(page.get_by_role("row", name="workers 2")).to_have_count(0)
    expect(page.get_by_role("dialog").get_by_role("button", name="Resize")).to_be_disabled()
    page.wait_for_timeout(400)  # what was typed has settled
    field.press("Enter")
    page.wait_for_timeout(100)
    assert asked == []
    screen.shown("resize-no-size")
    page.get_by_label("Workers (1 to 4)").fill("4")
    page.get_by_label("From sample").fill("")
    expect(page.get_by_role("row", name="workers 2 4")).to_be_visible()
    assert len(asked) == 1


def test_of_a_size_beyond_the_limits_nothing_is_asked(screen: Screen, job: str) -> None:
    page = screen.go(f"/jobs/{job}")
    opened(page)
    expect(page.get_by_role("row", name="workers 2 2")).to_be_visible()
    answers: list[int] = []
    page.on("response", lambda answer: answers.append(answer.status) if "/resize" in answer.url else None)
    page.get_by_label("Workers (1 to 4)").fill("7")
    page.wait_for_timeout(400)  # what was typed has settled
    page.get_by_label("Workers (1 to 4)").fill("3")
    expect(page.get_by_role("row", name="workers 2 3")).to_be_visible()
    assert answers == [200]


def test_that_the_cluster_has_no_room_is_said_before(screen: Screen, job: str) -> None:
    told = "The cluster has room for 2 workers of this job; the others start when nodes join."

    def warn(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"warnings": [told]})

    page = screen.go(f"/jobs/{job}")
    page.route("**/resize?dry_run=true", warn)
    opened(page)
    expect(page.get_by_role("dialog").get_by_text(told)).to_be_visible()
    screen.shown("resize-no-room")


def test_a_job_that_is_short_of_slots_says_why(screen: Screen, database: Database, job: str) -> None:
    message = "Trains on 2 of the 4 workers it may have: the cluster has no room for more."
    with database.writing() as session:
        row = lock(session, Job, job)
        assert row is not None
        row.code, row.message = "short_of_slots", message
    page = screen.go("/jobs")
    expect(page.get_by_role("row").filter(has_text="digits")).to_contain_text(message)
    screen.shown("short-list")
    screen.go(f"/jobs/{job}")
    expect(page.get_by_text(message)).to_be_visible()
    screen.shown("short-job")
