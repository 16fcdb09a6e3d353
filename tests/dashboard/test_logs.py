"""The log of a job in a browser, as it is followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.app import create_app
from service.settings import Settings
from service.storage import Folder, Stored
from tests.dashboard.browser import Screen, chromium, needs_chromium
from tests.databases import fresh_database
from tests.service.world import spec
from tests.serving import served

pytestmark = needs_chromium


class Job:
    """One whose worker left a log, and a page that follows it."""

    def __init__(self, folder: Path, screen: Screen) -> None:
        self._folder = folder
        self._segments = 0
        self.screen = screen

    @property
    def page(self) -> Page:
        return self.screen.page

    def say(self, text: str) -> None:
        self._segments += 1
        file = self._folder / f"logs/w0/{self._segments:06d}.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"2026-01-01T12:00:{self._segments:02d}Z {text}\n")

    def shows(self, *texts: str) -> None:
        lines = [f"[w0] 2026-01-01T12:00:{second:02d}Z {text}" for second, text in enumerate(texts, 1)]
        expect(self.page.get_by_role("region", name="Log")).to_have_text("\n".join(lines))


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    settings = Settings(data_folder=tmp_path, log_poll_s=0.1)
    with (
        fresh_database(settings.database_url) as database,
        served(create_app(settings, database)) as address,
        chromium() as browser,
    ):
        number = httpx.post(f"{address}/v1/jobs", json=spec()).raise_for_status().json()["id"]
        job = Job(Path(settings.storage_url, number), Screen(browser, address))
        job.say("one")
        job.screen.go(f"/jobs/{number}/logs")
        yield job
        assert job.screen.complaints == []
        job.screen.close()


def test_a_log_that_broke_off_is_taken_up_again(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.shows("one")
    list_files, breaks = Folder.files, [True]

    def files(self: Folder, below: str) -> list[Stored]:
        if breaks:
            breaks.clear()
            raise RuntimeError("The connection breaks.")
        return list_files(self, below)

    monkeypatch.setattr(Folder, "files", files)
    expect(job.page.get_by_text("The log broke off")).to_be_visible()
    job.shows("one")
    job.say("two")
    job.shows("one", "two")
    expect(job.page.get_by_text("The log broke off")).to_have_count(0)


def test_nobody_follows_a_log_on_a_hidden_page(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.shows("one")
    looks: list[str] = []
    list_files = Folder.files

    def files(self: Folder, below: str) -> list[Stored]:
        looks.append(below)
        return list_files(self, below)

    monkeypatch.setattr(Folder, "files", files)
    see(job.page, "hidden")
    while looks:
        looks.clear()
        job.page.wait_for_timeout(1000)  # ten looks
    job.say("two")
    job.shows("one")
    see(job.page, "visible")
    job.shows("one", "two")


def see(page: Page, state: str) -> None:
    """As if the tab were put behind another one, or to the front."""
    page.evaluate(
        """(state) => {
            Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        state,
    )
