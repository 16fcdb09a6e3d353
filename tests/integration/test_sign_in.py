"""Signing in to the real service, with a token that was made on its command line."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from api_schemas.tokens import Scope
from tests.dashboard.browser import Screen, chromium, needs_chromium
from tests.integration.stage import staged

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(400),
]

PROGRESS = re.compile(r"^[\d\s]+ of [\d\s]+ samples$")


def test_in_with_a_token_of_the_command_line_through_a_job_and_out(tmp_path: Path) -> None:
    with staged(tmp_path, slots=1, auth="token") as stage, chromium() as browser:
        assert httpx.get(f"{stage.address}/v1/jobs").status_code == 401
        secret = stage.token("ada", Scope.SUBMIT)
        screen = Screen(browser, stage.address)
        page = screen.go("/new")
        sign_in(page, "ema_0_" + 64 * "0")
        expect(page.get_by_text("This token is not valid: it may be mistyped, expired or revoked.")).to_be_visible()

        sign_in(page, secret)
        expect(question(page)).to_have_count(0)
        page.get_by_label("name", exact=True).fill("observed")
        page.get_by_label("budget").fill("2000 epochs")
        page.get_by_role("button", name="Submit").click()
        progress = page.get_by_text(PROGRESS)
        seen = progress.text_content() or ""
        expect(progress).not_to_have_text(seen)
        expect(page.get_by_role("heading", level=1)).to_contain_text("observed running")

        page.get_by_role("button", name="Sign out").click()
        expect(question(page)).to_be_visible()
        expect(page.get_by_text("observed")).to_have_count(0)
        expect(progress).to_have_count(0)
        assert page.context.cookies() == []
        assert screen.complaints == []
        screen.close()


def question(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Sign in")


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Token").fill(secret)
    question(page).get_by_role("button", name="Sign in").click()
