"""What is typed into the dashboard, and what becomes of it; jobs are played."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from service.db import Database
from tests.dashboard.browser import WIDTHS, Screen, needs_chromium
from tests.service.world import Controller, spec, started

pytestmark = needs_chromium


def submit(address: str, **changes: Any) -> str:
    job: str = httpx.post(f"{address}/v1/jobs", json=spec(**changes)).raise_for_status().json()["id"]
    return job


def submitted(page: Page, address: str) -> dict[str, Any]:
    """The spec of the job that the form makes."""
    expect(page.get_by_role("region", name="Sizes")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("queued")
    view = httpx.get(f"{address}/v1/jobs/{page.url.rpartition('/')[2]}").raise_for_status().json()
    found: dict[str, Any] = view["spec"]
    return found


def test_a_choice_among_numbers_is_a_number(screen: Screen, address: str) -> None:
    page = screen.go("/new")
    page.get_by_text("More: scaling").click()
    gpu = page.get_by_label("gpu", exact=True)
    gpu.select_option("1")
    gpu.select_option("0")
    gpu.select_option("1")
    assert submitted(page, address)["resources"]["gpu"] == 1


def test_none_can_be_said_where_an_empty_field_is_the_default(screen: Screen, address: str) -> None:
    page = screen.go("/new")
    page.get_by_label("task").select_option("pseudo_label")
    field = page.locator(".field", has_text="start accuracy")
    expect(field.get_by_role("textbox")).to_have_attribute("placeholder", "0.9")
    field.get_by_label("none").check()
    expect(field.get_by_role("textbox")).to_have_count(0)
    screen.shown("none")
    assert submitted(page, address)["recipe"]["config"]["start_accuracy"] is None
    page.get_by_role("link", name="Use as template").click()
    expect(field.get_by_label("none")).to_be_checked()
    field.get_by_label("none").uncheck()
    assert "start_accuracy" not in submitted(page, address)["recipe"]["config"]


def test_a_recipe_that_needs_the_ema_says_so_at_the_field(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_label("task").select_option("byol")
    ema = page.get_by_role("group", name="ema", exact=True)
    ema.get_by_role("checkbox", name="ema", exact=True).uncheck()
    expect(ema).to_contain_text("learns from a teacher, the EMA")


def test_submitting_what_is_wrong_leads_to_the_first_field_that_is(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_text("More: scaling").click()
    page.get_by_label("priority").fill("5000")
    page.get_by_label("hidden", exact=True).fill("many")
    page.get_by_text("More: scaling").click()
    for name in ("hidden", "priority"):
        expect(page.get_by_label(name, exact=True)).to_have_attribute("aria-invalid", "true")
    screen.shown("wrong")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_label("hidden", exact=True)).to_be_focused()
    page.get_by_label("hidden", exact=True).fill("32")
    expect(page.get_by_label("hidden", exact=True)).to_have_attribute("aria-invalid", "false")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_label("priority")).to_be_focused()


def test_submitting_yaml_that_is_wrong_leads_to_what_is_said_of_it(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_role("button", name="As YAML").click()
    page.get_by_label("Job as YAML").fill("name: [")
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("complementary", name="Preview")).to_be_focused()
    expect(page.get_by_role("complementary", name="Preview")).to_contain_text("not valid YAML")


def test_a_label_without_a_value_is_told_how_labels_look_and_kept(screen: Screen, address: str) -> None:
    page = screen.go("/new")
    page.get_by_text("More: scaling").click()
    labels = page.get_by_label("labels")
    labels.fill("vision\nstage=two")
    said = "“vision” has no =. Write name=value, a line each."
    expect(page.locator(".field", has=labels).locator(".error")).to_have_text(said)
    expect(page.get_by_role("alert")).to_contain_text(f"labels {said}")
    expect(labels).to_have_value("vision\nstage=two")
    screen.shown("labels")
    labels.fill("team=vision\nstage=two")
    expect(page.get_by_role("alert")).to_have_count(0)
    assert submitted(page, address)["labels"] == {"team": "vision", "stage": "two"}


def test_a_label_without_a_value_is_kept_in_yaml(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_text("More: scaling").click()
    page.get_by_label("labels").fill("vision\nvision=2\nvision=3")
    page.get_by_role("button", name="As YAML").click()
    written = re.compile(r'^labels: "vision\\nvision=2\\nvision=3"$', re.M)
    expect(page.get_by_label("Job as YAML")).to_have_value(written)


def test_a_header_that_is_wrong_is_named_as_itself(screen: Screen) -> None:
    page = screen.go("/new")
    long = {"idempotency-key": 300 * "k"}
    page.route("**/v1/jobs", lambda route: route.continue_(headers=route.request.headers | long))
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("alert").get_by_role("button")).to_have_text("Idempotency-Key")


def test_a_name_with_a_slash_is_shown_as_it_was_written(screen: Screen) -> None:
    page = screen.go("/new")
    page.get_by_role("button", name="As YAML").click()
    page.get_by_label("Job as YAML").fill("{name: digits, a/b~c: 1}")
    expect(page.get_by_role("alert").get_by_role("button", name="a/b~c")).to_be_visible()


def test_a_field_that_may_be_empty_does_not_speak_of_null(screen: Screen) -> None:
    page = screen.go("/new")
    expect(page.get_by_text("Train on so many images; empty: on all.")).to_be_visible()
    assert [text for text in page.locator(".help").all_text_contents() if "null" in text] == []


def test_sizes_fit_beside_the_form(screen: Screen) -> None:
    """Of the optimizer with most values, each with as many digits as there may be."""
    page = screen.page
    page.set_viewport_size({"width": 1280, "height": 900})
    screen.go("/new")
    values = {
        "lr": "0.000123456",
        "eps": "1.23456e-7",
        "weight decay": "0.0123456",
        "momentum": "0.98765",
        "base": "60",
    }
    for label, value in values.items():
        page.get_by_label(label, exact=True).first.fill(value)
    page.get_by_label("betas, 1 of 2").fill("0.91234")
    page.get_by_label("betas, 2 of 2").fill("0.98765")
    table = page.get_by_role("region", name="Sizes")
    expect(table.get_by_role("row", name=re.compile("^4 256 4.267 "))).to_be_visible()
    expect(table.get_by_role("cell", name="4.267")).to_have_attribute("title", re.compile(r"^4\.26666"))
    assert table.evaluate("region => region.scrollWidth - region.clientWidth") == 0


def test_sizes_wider_than_the_screen_scroll_beside_their_workers(screen: Screen) -> None:
    page = screen.page
    page.set_viewport_size({"width": WIDTHS["phone"], "height": 900})
    screen.go("/new")
    table = page.get_by_role("region", name="Sizes")
    table.scroll_into_view_if_needed()
    table.evaluate("region => { region.scrollLeft = 1000 }")
    expect(table.get_by_role("columnheader", name="weight decay")).to_be_in_viewport()
    expect(table.get_by_role("columnheader", name="Workers")).to_be_in_viewport()


def test_the_field_of_a_filter_follows_the_address(screen: Screen, address: str) -> None:
    submit(address, name="early")
    page = screen.go("/jobs")
    name = page.get_by_label("Name begins with")
    name.fill("late")
    page.get_by_role("link", name="Show all of them").click()
    expect(page.get_by_role("row").filter(has_text="early")).to_be_visible()
    expect(name).to_have_value("")
    name.fill("ear")
    expect(page).to_have_url(re.compile("name=ear"))
    page.get_by_role("link", name="Jobs").first.click()
    expect(name).to_have_value("")
    expect(page).not_to_have_url(re.compile("name="))


@pytest.fixture
def training(address: str, database: Database) -> str:
    """A job that trains on two of four workers."""
    controller = Controller.launch(database, submit(address))
    controller.report(started())
    return controller.job


def test_nothing_is_resized_before_its_preview_was_seen(screen: Screen, training: str) -> None:
    page = screen.go(f"/jobs/{training}")
    held: list[Route] = []
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/resize") else None)
    page.get_by_role("button", name="Resize").click()
    button = page.get_by_role("dialog").get_by_role("button", name="Resize")
    expect(button).to_be_enabled()
    page.route("**/resize?dry_run=true", lambda route: held.append(route))
    workers = page.get_by_label("Workers (1 to 4)")
    workers.fill("3")
    workers.press("Enter")
    expect(button).to_be_disabled()
    page.wait_for_timeout(400)  # what was typed has settled
    workers.press("Enter")
    assert asked == []
    for route in held:
        route.continue_()
    page.unroute("**/resize?dry_run=true")
    expect(page.get_by_role("row", name="workers 2 3")).to_be_visible()
    workers.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert len(asked) == 1


def test_what_was_refused_once_is_forgotten_when_something_else_is_typed(screen: Screen, training: str) -> None:
    page = screen.go(f"/jobs/{training}")
    refusal = {"title": "Conflict", "status": 409, "code": "conflict", "detail": "Not now."}
    page.get_by_role("button", name="Resize").click()
    page.route(
        "**/resize",
        lambda route: route.fulfill(status=409, content_type="application/problem+json", body=json.dumps(refusal)),
    )
    button = page.get_by_role("dialog").get_by_role("button", name="Resize")
    workers = page.get_by_label("Workers (1 to 4)")
    workers.fill("3")
    expect(page.get_by_role("row", name="workers 2 3")).to_be_visible()
    button.click()
    expect(page.get_by_text("Not now.")).to_be_visible()
    workers.fill("4")
    expect(page.get_by_role("row", name="workers 2 4")).to_be_visible()
    expect(page.get_by_text("Not now.")).to_have_count(0)
    page.unroute("**/resize")
    button.click()
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_browser_that_keeps_nothing_shows_the_page_all_the_same(screen: Screen) -> None:
    blocked = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked'); }})"
    screen.page.add_init_script(blocked)
    page = screen.go("/jobs")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    page.get_by_role("button", name="Use the dark theme").click()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()


def test_empty_screens_say_what_to_do(screen: Screen) -> None:
    page = screen.go("/jobs")
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    screen.shown("empty")
    page.get_by_role("link", name="Make the first one").click()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
