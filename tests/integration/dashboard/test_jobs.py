"""The list of jobs in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from api_schemas.views import Phase
from tests.dashboard.browser import Screen, needs_chromium
from tests.integration.stage import LONG, Stage

pytestmark = [needs_chromium, pytest.mark.timeout(400)]


@pytest.mark.usefixtures("ended")
def test_the_list_is_live_and_filtered(stage: Stage, screen: Screen) -> None:
    page = screen.go("/jobs")
    row = page.get_by_role("row").filter(has_text="short")
    expect(row).to_contain_text("succeeded")
    expect(row).to_contain_text("100 %")
    job = stage.submit(name="late", **LONG)
    late = page.get_by_role("row").filter(has_text="late")
    expect(late).to_contain_text("running")
    page.get_by_label("Label").select_option("team=vision")
    expect(late).to_have_count(0)
    expect(row).to_be_visible()
    page.get_by_label("Label").select_option("any label")
    expect(late).to_be_visible()
    page.get_by_label("Recipe").select_option("byol")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    page.get_by_label("Recipe").select_option("any recipe")
    page.get_by_label("Name begins with").fill("sho")
    expect(late).to_have_count(0)
    expect(row).to_be_visible()
    page.get_by_label("Status").select_option("active")
    expect(page.get_by_text("No job is like that.")).to_be_visible()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
