"""The page of a job with a long history, in a browser; the job is played."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.db import Database
from tests.dashboard.browser import WIDTHS, Screen, needs_chromium
from tests.service.world import Controller, finished, metrics, resized, spec, started

pytestmark = needs_chromium

SHOWN = 100
EVALUATIONS = 250


@pytest.fixture
def asked(screen: Screen) -> list[str]:
    """What the page has asked for about the events."""
    found: list[str] = []
    screen.page.on("request", lambda request: found.append(request.url.partition("/events?")[2]))
    return found


@pytest.fixture
def controller(screen: Screen, database: Database) -> Controller:
    """Of a job that changed its size at sample 64, and was evaluated ever since."""
    job = httpx.post(f"{screen.address}/v1/jobs", json=spec()).raise_for_status().json()["id"]
    controller = Controller.launch(database, job)
    controller.report(started(), metrics((0, {"loss": 2.0}), (100_000, {"loss": 1.0})), resized(64, (2, 3)))
    controller.report(*(evaluated(number) for number in range(EVALUATIONS)))
    return controller


def evaluated(number: int) -> dict[str, Any]:
    return {"type": "evaluated", "samples": 100 + number, "target": {"loss": 0.5}, "ema": None}


def show(page: Page, *numbers: int) -> None:
    """Once the page shows these evaluations, and nothing else."""
    after = [re.compile(f"evaluation after {100 + number} samples") for number in numbers]
    expect(page.locator(".events li")).to_contain_text(after)


def test_a_long_history_begins_with_its_newest_events_and_leads_back(
    screen: Screen, asked: list[str], controller: Controller
) -> None:
    page = screen.go(f"/jobs/{controller.job}/events")
    show(page, *range(EVALUATIONS - 1, EVALUATIONS - 1 - SHOWN, -1))
    older = page.get_by_role("button", name="Older")
    older.click()
    show(page, *range(EVALUATIONS - 1, EVALUATIONS - 1 - 2 * SHOWN, -1))
    older.click()
    expect(page.locator(".events li").last).to_contain_text("submitted")
    expect(older).to_have_count(0)
    pages = [query for query in asked if "limit=" in query]
    assert len(pages) == 3
    (stream,) = [query for query in asked if "view=true" in query]
    assert "after=0" not in stream, "what the first page told is not told again"


def test_what_happens_is_added_to_it(screen: Screen, controller: Controller) -> None:
    page = screen.go(f"/jobs/{controller.job}/events")
    expect(page.locator(".events li")).to_have_count(SHOWN)
    controller.report(evaluated(EVALUATIONS))
    show(page, *range(EVALUATIONS, EVALUATIONS - SHOWN, -1))
    controller.report(finished("succeeded"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("succeeded")
    expect(page.locator(".events li").first).to_contain_text("succeeded: ")


def test_a_change_of_the_job_is_told(screen: Screen, controller: Controller) -> None:
    page = screen.go(f"/jobs/{controller.job}/events")
    expect(page.locator(".events li")).to_have_count(SHOWN)
    change = {"priority": 7, "elasticity": {"workers": [1, 8]}, "labels": {"team": "vision"}}
    httpx.patch(f"{screen.address}/v1/jobs/{controller.job}", json=change).raise_for_status()
    told = "elasticity.workers 1 to 4 → 1 to 8; priority 0 → 7; labels none → team=vision"
    expect(page.locator(".events li").first).to_contain_text(told)


def test_its_curves_are_marked_where_an_older_event_changed_the_size(
    screen: Screen, asked: list[str], controller: Controller
) -> None:
    page = screen.go(f"/jobs/{controller.job}")
    with page.expect_response(re.compile("type=resized")) as answer:
        expect(page.get_by_role("img", name=re.compile("^Loss over"))).to_be_visible()
    assert [event["samples"] for event in answer.value.json()["items"]] == [64]
    page.get_by_role("link", name="Events").click()
    page.get_by_role("link", name="Curves").click()
    expect(page.get_by_role("img", name=re.compile("^Loss over"))).to_be_visible()
    assert len([query for query in asked if "type=resized" in query]) == 1


def test_all_parts_of_a_job_are_in_sight_on_a_phone(screen: Screen, controller: Controller) -> None:
    page = screen.go(f"/jobs/{controller.job}/spec")
    page.set_viewport_size({"width": WIDTHS["phone"], "height": 900})
    parts = page.get_by_role("navigation", name="Parts of the job")
    expect(parts).to_be_visible()
    assert parts.evaluate("element => element.scrollWidth <= element.clientWidth")
