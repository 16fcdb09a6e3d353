"""The dashboard in a browser while the service's database is away: it says so, and goes on by itself afterwards."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from service.app import create_app
from service.db import Database, connect
from service.settings import Settings
from tests.dashboard.browser import Screen, chromium, needs_chromium
from tests.postgres import postgres_server
from tests.service.world import spec
from tests.serving import served

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(400),
]


def test_a_page_that_is_opened_without_the_database_fills_itself_once_it_is_back(
    postgres_binaries: Path, tmp_path: Path
) -> None:
    with postgres_server(postgres_binaries) as server, server.database() as url, chromium() as browser:
        settings = Settings(data_folder=tmp_path, database_url=url, event_poll_s=0.05)
        engine = connect(url)
        with served(create_app(settings, Database(engine, lambda: datetime.now(UTC)))) as address:
            job = httpx.post(f"{address}/v1/jobs", json=spec(name="early")).raise_for_status().json()["id"]
            listed, looked_at = Screen(browser, address), Screen(browser, address)
            with server.stopped():
                for screen, place in ((listed, "/jobs"), (looked_at, f"/jobs/{job}")):
                    expect(screen.go(place).get_by_text("The service does not answer.")).to_be_visible()
            for screen in (listed, looked_at):
                expect(screen.page.get_by_text("early")).to_be_visible()
                expect(screen.page.get_by_text("The service does not answer.")).to_have_count(0)
            httpx.post(f"{address}/v1/jobs", json=spec(name="late")).raise_for_status()
            expect(listed.page.get_by_text("late")).to_be_visible()
            httpx.post(f"{address}/v1/jobs/{job}/cancel").raise_for_status()
            expect(looked_at.page.get_by_role("heading", level=1)).to_contain_text("cancel")
            for screen in (listed, looked_at):
                screen.close()
                assert screen.complaints == []
        engine.dispose()
