"""One browser for the tests of a module, and in it a page of the service at `address`, whose jobs are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from api_schemas.views import RecipeInfo
from service.app import create_app
from service.db import Database
from service.roster import Roster
from service.settings import Settings
from tests.dashboard.browser import Screen, chromium
from tests.databases import fresh_database
from tests.serving import served
from workers.recipes import catalogue


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """One that knows the recipes, as the reconciler tells them."""
    with fresh_database(Settings(data_folder=tmp_path).database_url) as database:
        Roster(database).write_recipes(RecipeInfo(**row) for row in catalogue())
        yield database


@pytest.fixture
def address(tmp_path: Path, database: Database) -> Iterator[str]:
    with served(create_app(Settings(data_folder=tmp_path, event_poll_s=0.05), database)) as address:
        yield address


@pytest.fixture
def screen(browser: Browser, address: str) -> Iterator[Screen]:
    """It may complain of nothing."""
    screen = Screen(browser, address)
    yield screen
    screen.close()
    assert screen.complaints == []
