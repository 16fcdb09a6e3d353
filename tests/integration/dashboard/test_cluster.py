"""The cluster in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.dashboard.browser import Screen, needs_chromium
from tests.integration.stage import Stage

pytestmark = [needs_chromium, pytest.mark.timeout(400)]


def test_the_cluster_and_why_a_job_waits(stage: Stage, screen: Screen) -> None:
    large = stage.submit(name="large", elasticity={"workers": [9, 9]})
    page = screen.go("/cluster")
    expect(page.get_by_text("of 2 slots in use")).to_be_visible()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    waits = page.get_by_role("region", name="Queue").get_by_role("row").filter(has_text="large")
    expect(waits).to_contain_text("9")
    screen.shown("cluster")
    stage.client.cancel(large.id)
    expect(waits).to_have_count(0)
    assert asked == [], "the stream tells it"
