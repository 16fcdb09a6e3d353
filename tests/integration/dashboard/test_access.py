"""Whether everybody can use the dashboard: by keyboard, in both themes, at both widths."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from api_schemas.views import Phase
from tests.dashboard.browser import Screen, needs_axe, needs_chromium
from tests.integration.stage import Job, Stage

pytestmark = [needs_chromium, pytest.mark.timeout(400)]


def test_by_keyboard_alone(stage: Stage, screen: Screen) -> None:
    job = stage.submit(name="by hand", elasticity={"workers": [9, 9]})
    page = screen.go("/jobs")
    heading = page.get_by_role("heading", level=1)
    press(page, page.get_by_role("link", name="by hand"))
    expect(heading).to_contain_text("by hand")
    press(page, page.get_by_role("button", name="Cancel job"))
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Cancel job")).to_be_focused()
    page.keyboard.press("Enter")
    press(page, page.get_by_role("button", name="Cancel the job"))
    expect(heading).to_contain_text("cancelled")
    job.ends(Phase.CANCELLED)


def test_a_question_that_was_just_closed_can_be_asked_again(screen: Screen, waiting: Job) -> None:
    """A dialog is closed before the page hears of it, and somebody may press its button in between."""
    page = screen.go(f"/jobs/{waiting.id}")
    button = page.get_by_role("button", name="Cancel job")
    button.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    button.evaluate("button => { document.querySelector('dialog').close(); button.click() }")
    page.wait_for_timeout(500)
    expect(page.get_by_role("dialog")).to_be_visible()


def press(page: Page, wanted: Locator) -> None:
    """Go there by Tab, and press Enter."""
    expect(wanted).to_be_visible()
    for _ in range(60):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            page.keyboard.press("Enter")
            return
    raise AssertionError("Tab never comes there")


def test_the_theme_is_chosen_and_kept(screen: Screen) -> None:
    page, html = screen.page, screen.page.locator("html")
    page.emulate_media(color_scheme="light")
    screen.go("/jobs")
    light = ground(page)
    page.get_by_role("button", name="Use the dark theme").click()
    expect(html).to_have_attribute("data-theme", "dark")
    assert ground(page) != light
    page.reload()
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()
    assert ground(page) != light
    page.get_by_role("button", name="Use the light theme").click()
    assert ground(page) == light
    page.emulate_media(color_scheme="dark")  # nothing is chosen any more: it is as the system says
    expect(page.get_by_role("button", name="Use the light theme")).to_be_visible()


def ground(page: Page) -> str:
    """The colour of the page."""
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


SCREENS = {
    "jobs": "/jobs",
    "new": "/new",
    "cluster-idle": "/cluster",
    "curves": "/jobs/{id}",
    "resizes": "/jobs/{id}/resizes",
    "events": "/jobs/{id}/events",
    "logs": "/jobs/{id}/logs",
    "files": "/jobs/{id}/files",
    "spec": "/jobs/{id}/spec",
}


@needs_axe
@pytest.mark.parametrize("name", SCREENS)
def test_everybody_can_use_it(screen: Screen, ended: Job, name: str) -> None:
    page = screen.go(SCREENS[name].format(id=ended.id))
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    page.wait_for_timeout(1000)
    screen.shown(name)
    assert not screen.overflows()
    assert screen.barriers() == []


@needs_axe
@pytest.mark.parametrize("name", ["Resize", "Pause", "Cancel job"])
def test_everybody_can_answer_a_question(screen: Screen, waiting: Job, name: str) -> None:
    page = screen.go(f"/jobs/{waiting.id}")
    page.get_by_role("button", name=name, exact=True).click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert screen.barriers() == []
