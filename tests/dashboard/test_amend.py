"""What may change while a job lives, changed in a browser; jobs are played."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, expect

from service.db import Database
from tests.dashboard.browser import Screen, needs_axe, needs_chromium
from tests.service.world import Controller, finished, spec, started

pytestmark = needs_chromium


@pytest.fixture
def controller(address: str, database: Database) -> Controller:
    """Of a job that trains on two of four workers."""
    job = httpx.post(f"{address}/v1/jobs", json=spec(labels={"team": "vision"})).raise_for_status().json()["id"]
    controller = Controller.launch(database, job)
    controller.report(started())
    return controller


def opened(screen: Screen, controller: Controller) -> Locator:
    """The dialog in which the job is changed."""
    page = screen.go(f"/jobs/{controller.job}")
    page.get_by_role("button", name="Change").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("labels")).to_have_value("team=vision")
    return dialog


def spec_of(screen: Screen, controller: Controller) -> Any:
    return httpx.get(f"{screen.address}/v1/jobs/{controller.job}").raise_for_status().json()["spec"]


def test_limits_priority_and_labels_of_a_job_that_trains(screen: Screen, controller: Controller) -> None:
    dialog = opened(screen, controller)
    button = dialog.get_by_role("button", name="Change")
    expect(button).to_be_disabled()
    dialog.get_by_label("workers, 2 of 2").fill("8")
    dialog.get_by_label("kappa, 2 of 2").fill("6")
    dialog.get_by_label("priority").fill("7")
    dialog.get_by_label("labels").fill("team=sound\nstage=two")
    screen.shown("change")
    button.click()
    expect(dialog).to_have_count(0)
    expect(screen.page.get_by_text("1 to 8")).to_be_visible()
    new = spec_of(screen, controller)
    assert (new["elasticity"]["workers"], new["elasticity"]["kappa"]) == ([1, 8], [0.001, 6.0])
    assert (new["priority"], new["labels"]) == (7, {"team": "sound", "stage": "two"})


def test_an_emptied_field_is_its_default(screen: Screen, controller: Controller) -> None:
    httpx.patch(f"{screen.address}/v1/jobs/{controller.job}", json={"priority": 7}).raise_for_status()
    dialog = opened(screen, controller)
    dialog.get_by_label("priority").fill("")
    dialog.get_by_label("labels").fill("")
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_have_count(0)
    new = spec_of(screen, controller)
    assert (new["priority"], new["labels"]) == (0, {})


def test_what_others_change_meanwhile_stays(screen: Screen, controller: Controller) -> None:
    dialog = opened(screen, controller)
    other = {"priority": 5, "elasticity": {"workers": [1, 6]}}
    httpx.patch(f"{screen.address}/v1/jobs/{controller.job}", json=other).raise_for_status()
    expect(screen.page.get_by_text("1 to 6")).to_be_visible()
    button = dialog.get_by_role("button", name="Change")
    expect(button).to_be_disabled()
    dialog.get_by_label("labels").fill("team=sound")
    button.click()
    expect(dialog).to_have_count(0)
    new = spec_of(screen, controller)
    assert (new["priority"], new["elasticity"]["workers"], new["labels"]) == (5, [1, 6], {"team": "sound"})


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [
        ("workers, 2 of 2", "0", "at least 1"),
        ("workers, 1 of 2", "5", "minimum (5) must not exceed the maximum (4)"),
        ("priority", "5000", "at most 1000"),
        ("labels", "team=a b", "begin and end with"),
        ("labels", "stage=two\nvision", "“vision” has no =. Write name=value, a line each."),
        ("labels", "=vision", "“=vision” has no name. Write name=value, a line each."),
        ("labels", "team=a\nteam=b", "“team” is there twice."),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    screen: Screen, controller: Controller, label: str, text: str, said: str
) -> None:
    dialog = opened(screen, controller)
    dialog.get_by_label(label).fill(text)
    dialog.get_by_role("button", name="Change").click()
    field = dialog.locator(".field", has=screen.page.locator(":focus"))
    expect(field).to_contain_text(label.partition(",")[0])
    expect(field.locator(".error")).to_contain_text(said)
    expect(dialog.locator(".error")).to_have_count(1)
    expect(dialog.locator(":focus")).to_have_attribute("aria-invalid", "true")
    expect(dialog.get_by_label(label)).to_have_value(text)
    screen.shown(f"change-wrong-{label[:6]}")


def test_a_size_beyond_the_limits_leads_to_where_they_are_changed(screen: Screen, controller: Controller) -> None:
    page = screen.go(f"/jobs/{controller.job}")
    page.get_by_role("button", name="Resize").click()
    page.get_by_label("Workers (1 to 4)").fill("7")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("This job may have 1 to 4 workers.")).to_be_visible()
    expect(dialog.get_by_role("button", name="Resize")).to_be_disabled()
    screen.shown("resize-beyond")
    dialog.get_by_role("button", name="Change these limits").click()
    expect(dialog.get_by_role("heading")).to_have_text("Change digits")
    dialog.get_by_label("workers, 2 of 2").fill("7")
    dialog.get_by_role("button", name="Change").click()
    page.get_by_role("button", name="Resize").click()
    page.get_by_label("Workers (1 to 7)").fill("7")
    expect(page.get_by_role("row", name="workers 2 7")).to_be_visible()
    screen.shown("resize-wide")


def test_of_a_job_that_has_ended_the_labels_are_changed(screen: Screen, controller: Controller) -> None:
    controller.report(finished("succeeded"))
    dialog = opened(screen, controller)
    expect(dialog.get_by_label("priority")).to_have_count(0)
    dialog.get_by_label("labels").fill("kept=yes")
    dialog.get_by_role("button", name="Change").click()
    expect(dialog).to_have_count(0)
    assert spec_of(screen, controller)["labels"] == {"kept": "yes"}


@needs_axe
def test_everybody_can_change_it(screen: Screen, controller: Controller) -> None:
    opened(screen, controller)
    assert screen.barriers() == []
    assert not screen.overflows()
