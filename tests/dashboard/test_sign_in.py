"""The dashboard in a browser, before a service that asks for tokens; jobs are played."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import APIResponse, Locator, Page, Route, expect

from api_schemas.tokens import NewToken, Scope, TokenRequest
from service import tokens
from service.access import FRESH
from service.app import create_app
from service.db import Database
from service.settings import Settings
from tests.dashboard.browser import Screen, needs_axe, needs_chromium
from tests.databases import fresh_database
from tests.service.world import Controller, finished, spec, started
from tests.serving import served

pytestmark = [
    needs_chromium,
    pytest.mark.timeout(400),
]


class Clock:
    """The time, and what it was moved on by."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_folder=tmp_path, auth="token", event_poll_s=0.05)


@pytest.fixture
def database(settings: Settings, clock: Clock) -> Iterator[Database]:
    with fresh_database(settings.database_url, clock) as database:
        yield database


@pytest.fixture
def address(settings: Settings, database: Database) -> Iterator[str]:
    with served(create_app(settings, database)) as address:
        yield address


@pytest.fixture
def token(database: Database) -> NewToken:
    return made(database, "ada")


def made(database: Database, name: str, scope: Scope = Scope.SUBMIT) -> NewToken:
    return tokens.create(database, TokenRequest(name=name, scope=scope))


def submit(address: str, token: NewToken, name: str) -> str:
    headers = {"Authorization": f"Bearer {token.secret}"}
    return str(httpx.post(f"{address}/v1/jobs", json=spec(name=name), headers=headers).raise_for_status().json()["id"])


def question(page: Page) -> Locator:
    return page.get_by_role("dialog", name="Sign in")


def sign_in(page: Page, secret: str) -> None:
    page.get_by_label("Token").fill(secret)
    question(page).get_by_role("button", name="Sign in").click()


def test_in_by_a_token_and_out_again(screen: Screen, address: str, token: NewToken) -> None:
    submit(address, token, "early")
    page = screen.go("/jobs")
    sign_in(page, token.secret[:-1])
    expect(page.get_by_text("This token is not valid")).to_be_visible()
    expect(page.get_by_text("early")).to_have_count(0)
    screen.shown("sign-in")

    sign_in(page, f" {token.secret}\n")
    expect(question(page)).to_have_count(0)
    expect(page.get_by_role("row").filter(has_text="early")).to_be_visible()
    submit(address, token, "late")
    expect(page.get_by_role("row").filter(has_text="late")).to_be_visible()

    page.reload()
    expect(page.get_by_role("row").filter(has_text="late")).to_be_visible()
    button = page.get_by_role("button", name="Sign out")
    expect(button).to_have_attribute("title", "Signed in as ada (submit)")
    screen.shown("signed-in")
    assert not screen.overflows()
    button.click()
    expect(question(page)).to_be_visible()
    expect(page.get_by_text("late")).to_have_count(0)
    assert page.context.cookies() == []


def test_no_script_can_read_the_token_and_no_address_holds_it(screen: Screen, token: NewToken) -> None:
    asked: list[str] = []
    screen.page.on("request", lambda request: asked.append(request.url))
    page = screen.go("/jobs")
    sign_in(page, token.secret)
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()

    readable = page.evaluate("document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert token.secret not in readable + page.content() + page.url
    assert len(asked) > 5
    assert not [url for url in asked if token.secret in url]
    (cookie,) = page.context.cookies()
    assert (cookie["value"], cookie["httpOnly"], cookie["sameSite"]) == (token.secret, True, "Strict")


def test_streams_and_downloads_go_along(
    screen: Screen, address: str, database: Database, settings: Settings, token: NewToken
) -> None:
    job = submit(address, token, "ready")
    weights = Path(settings.storage_url, job, "artifacts", "ema.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    page = screen.go(f"/jobs/{job}/events")
    sign_in(page, token.secret)
    expect(page.get_by_text("submitted").first).to_be_visible()
    Controller.launch(database, job).report(started(), finished("succeeded"))
    expect(page.get_by_text("training on 2 workers")).to_be_visible()

    page.get_by_role("link", name="Files").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="ema.safetensors").click()
    assert Path(download.value.path()).read_bytes() == b"weights"


def test_a_token_that_is_revoked_ends_the_session_and_loses_nothing_that_was_typed(
    screen: Screen, database: Database, clock: Clock, token: NewToken
) -> None:
    page = screen.go("/new")
    sign_in(page, token.secret)
    name = page.get_by_label("name", exact=True).first  # the job's; another one is the recipe's
    name.fill("half a job")
    tokens.revoke(database, token.id)
    clock.ahead += FRESH
    page.get_by_label("budget").fill("3 epochs")  # which the service is asked about at once
    expect(question(page)).to_be_visible()

    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    expect(question(page)).to_be_visible()
    sign_in(page, made(database, "grace").secret)
    expect(question(page)).to_have_count(0)
    expect(name).to_have_value("half a job")
    page.get_by_label("budget").fill("2 epochs")
    expect(page.get_by_role("region", name="Sizes")).to_be_visible()
    page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("half a job")


def test_what_was_refused_before_somebody_signed_in_is_asked_for_again(screen: Screen, token: NewToken) -> None:
    refused: list[tuple[Route, APIResponse]] = []

    def hold_the_first(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append((route, route.fetch()))

    screen.page.route("**/v1/recipes", hold_the_first)
    page = screen.go("/new")
    sign_in(page, token.secret)
    expect(question(page)).to_have_count(0)
    route, answer = refused[0]
    assert answer.status == 401
    route.fulfill(response=answer)
    expect(page.get_by_label("name", exact=True).first).to_be_visible(timeout=10_000)
    expect(question(page)).to_have_count(0)


def test_a_stream_of_a_revoked_token_brings_the_question(
    screen: Screen, address: str, database: Database, clock: Clock, token: NewToken
) -> None:
    other = made(database, "grace")
    page = screen.go("/jobs")
    sign_in(page, token.secret)
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    tokens.revoke(database, token.id)
    clock.ahead += FRESH
    submit(address, other, "unseen")
    expect(question(page)).to_be_visible()
    expect(page.get_by_text("unseen")).to_have_count(0)
    sign_in(page, other.secret)
    expect(page.get_by_role("row").filter(has_text="unseen")).to_be_visible()
    submit(address, other, "heard")
    expect(page.get_by_role("row").filter(has_text="heard")).to_be_visible()


def test_who_may_only_look_is_offered_nothing_else(
    screen: Screen, address: str, database: Database, token: NewToken
) -> None:
    reader = made(database, "grace", Scope.READ)
    page = screen.go("/jobs")
    sign_in(page, reader.secret)
    expect(page.get_by_text("There are no jobs yet.")).to_be_visible()
    expect(page.get_by_role("link", name="New job")).to_have_count(0)
    expect(page.get_by_role("link", name="Make the first one")).to_have_count(0)
    job = submit(address, token, "looked at")
    page.get_by_role("link", name="looked at").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("looked at")
    for name in ("Resize", "Pause", "Cancel job", "Use as template"):
        expect(page.get_by_text(name, exact=True)).to_have_count(0)
    screen.shown("reader")
    screen.go(f"/new?from={job}")
    expect(page.get_by_text("Your token is for looking")).to_be_visible()


@needs_axe
def test_everybody_can_sign_in(screen: Screen) -> None:
    page = screen.go("/jobs")
    expect(page.get_by_label("Token")).to_be_focused()
    assert not screen.overflows()
    assert screen.barriers() == []
