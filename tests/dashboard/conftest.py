"""One browser for the tests of a module, and in it a page of the service at the module's `address`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.dashboard.browser import Screen, chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def screen(browser: Browser, address: str) -> Iterator[Screen]:
    """It may complain of nothing."""
    screen = Screen(browser, address)
    yield screen
    screen.close()
    assert screen.complaints == []
