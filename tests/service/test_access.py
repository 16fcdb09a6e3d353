"""With tokens: what is open, what each scope may do, how the others are refused, and how soon a revoked one is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event

from api_schemas.tokens import NewToken, Scope, TokenRequest
from service import tokens
from service.access import COOKIE, FRESH, REMEMBERED, Access, needed
from service.app import create_app
from service.db import Database
from service.settings import Settings
from tests.postgres import PostgresServer
from tests.service.world import ADDRESS, Clock, Controller, InProcess, World, finished, problem, spec, started
from tests.serving import served

LOOKED_AT = ("/", "/assets/{name}", "/docs", "/openapi.json", "/healthz", "/readyz")
OPEN = {("DELETE", "/v1/session"), *((method, path) for path in LOOKED_AT for method in ("GET", "HEAD"))}
STRANGER = "ema_0_" + 64 * "0"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"auth": "token"})


def token(database: Database, scope: Scope, expires: str | None = None) -> NewToken:
    asked = TokenRequest.model_validate({"name": f"a {scope}", "scope": scope, "expires": expires})
    return tokens.create(database, asked)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def reader(database: Database) -> NewToken:
    return token(database, Scope.READ)


@pytest.fixture
def submitter(database: Database) -> NewToken:
    return token(database, Scope.SUBMIT)


def routes(app: Any) -> Iterator[tuple[str, str]]:
    """Every method and path that the application has, whether openapi.json shows it or not."""
    for route in app.routes:
        if hasattr(route, "original_router"):  # how FastAPI keeps what was included
            yield from routes(route.original_router)
        else:
            yield from ((method, route.path) for method in route.methods)


# -- what is open, and what each scope may do --------------------------------------------------------------------------


def test_every_route_is_closed_but_these(world: World) -> None:
    app = create_app(world.settings, world.database)
    found = set(routes(app))
    assert len(found) > 30
    assert ("GET", "/v1/jobs/{job_id}/artifacts/{path:path}") in found
    for method, path in found - OPEN:
        address = path.replace("{path:path}", "x").replace("{", "").replace("}", "")
        response = world.http.request(method, address)
        assert response.status_code == 401, (method, path)
        if method != "HEAD":  # which has no body
            problem(response, 401, "unauthorized")
    for method, path in OPEN - {("GET", "/assets/{name}"), ("HEAD", "/assets/{name}"), ("HEAD", "/openapi.json")}:
        assert world.http.request(method, path).is_success, (method, path)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS", "TRACE"])
def test_so_is_what_does_not_exist(world: World, method: str) -> None:
    for path in ("/nothing", "/metrics", "/v1", "//v1/jobs", "/V1/jobs", "/v1/tokens/", "/healthz/x"):
        problem(world.http.request(method, path), 401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v1/jobs", Scope.READ),
        ("GET", "/v1/jobs/x/events", Scope.READ),
        ("GET", "/v1/recipes/byol", Scope.READ),
        ("GET", "/metrics", Scope.READ),
        ("POST", "/v1/scaling/preview", Scope.READ),
        ("POST", "/v1/session", Scope.READ),
        ("POST", "/v1/jobs", Scope.SUBMIT),
        ("PATCH", "/v1/jobs/x", Scope.SUBMIT),
        ("DELETE", "/v1/jobs/x", Scope.SUBMIT),
        ("POST", "/v1/jobs/x/cancel", Scope.SUBMIT),
        ("POST", "/v1/jobs/x/whatever-comes", Scope.SUBMIT),
        ("GET", "/v1/recipes/package.module:Class", Scope.SUBMIT),
        ("GET", "/v1/tokens", Scope.ADMIN),
        ("POST", "/v1/tokens", Scope.ADMIN),
        ("DELETE", "/v1/tokens/x", Scope.ADMIN),
    ],
)
def test_what_each_address_needs(method: str, path: str, scope: Scope) -> None:
    assert needed(method, path) is scope


@given(st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]), st.text())
def test_no_address_is_open_by_accident(method: str, rest: str) -> None:
    for path in (f"/v1/{rest}", f"/{rest}x", f"/healthz/{rest}", f"/docs{rest}x"):
        if path.startswith("/assets/") or (method, path) == ("DELETE", "/v1/session"):
            continue
        assert needed(method, path) is not None
    assert needed(method, f"/v1/tokens/{rest}") is Scope.ADMIN


def test_who_may_only_look_changes_nothing(world: World, reader: NewToken, submitter: NewToken) -> None:
    body = problem(world.http.post("/v1/jobs", json=spec(), headers=bearer(reader.secret)), 403, "forbidden")
    assert body["detail"] == "This needs a token of scope submit; yours has scope read."
    assert world.http.get("/v1/jobs", headers=bearer(reader.secret)).json()["items"] == []
    assert world.http.post("/v1/jobs", json=spec(), headers=bearer(submitter.secret)).status_code == 201


def test_only_an_admin_makes_tokens(world: World, submitter: NewToken) -> None:
    asked = {"name": "more", "scope": "admin"}
    problem(world.http.post("/v1/tokens", json=asked, headers=bearer(submitter.secret)), 403, "forbidden")
    problem(world.http.get("/v1/tokens", headers=bearer(submitter.secret)), 403, "forbidden")
    admin = token(world.database, Scope.ADMIN)
    assert world.http.post("/v1/tokens", json=asked, headers=bearer(admin.secret)).status_code == 201


# -- how others are refused --------------------------------------------------------------------------------------------


def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(
    world: World, reader: NewToken, submitter: NewToken
) -> None:
    expired = token(world.database, Scope.ADMIN, "1m")
    tokens.revoke(world.database, submitter.id)
    world.clock.move(60)
    wrong = [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {reader.secret}"},
        {"Authorization": reader.secret},
        bearer(STRANGER),
        bearer(reader.secret[:-1] + ("0" if reader.secret[-1] != "0" else "1")),
        bearer("x" * 5000),
        bearer(expired.secret),
        bearer(submitter.secret),
        {"Cookie": f"{COOKIE}={STRANGER}"},
        {"Cookie": "nonsense"},
    ]
    answers = []
    for headers in wrong:
        response = world.http.get("/v1/jobs/x", headers=headers)
        body = problem(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"
        del body["request_id"]
        answers.append(body)
    assert answers == [answers[0]] * len(wrong)


def test_a_stranger_does_not_learn_what_is_there(world: World) -> None:
    """A job that there is, one that there is not, a method that no address has, and a body that is too large."""
    job = Controller.launch(world.database, a_job(world)).job
    large = b" " * (world.settings.max_body_bytes + 1)
    for method, path in (
        ("GET", f"/v1/jobs/{job}"),
        ("GET", "/v1/jobs/none"),
        ("PUT", "/v1/jobs"),
        ("POST", "/v1/jobs"),
    ):
        problem(world.http.request(method, path, content=large), 401, "unauthorized")


def a_job(world: World) -> str:
    secret = token(world.database, Scope.SUBMIT).secret
    return str(world.http.post("/v1/jobs", json=spec(), headers=bearer(secret)).json()["id"])


def test_no_log_line_holds_a_secret(world: World, reader: NewToken, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="service")
    with world.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE job RENAME TO gone")
    problem(world.http.get("/v1/jobs", headers=bearer(reader.secret)), 500, "internal_error")
    assert [record for record in caplog.records if record.levelname == "ERROR"]
    assert reader.secret.rpartition("_")[2] not in caplog.text


# -- what a look-up costs, and how long it holds -----------------------------------------------------------------------


@pytest.fixture
def statements(database: Database) -> Iterator[list[str]]:
    said: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        said.append(statement)

    event.listen(database.engine, "before_cursor_execute", hear)
    yield said
    event.remove(database.engine, "before_cursor_execute", hear)


def test_a_token_is_looked_up_once_in_a_while(world: World, reader: NewToken, statements: list[str]) -> None:
    def look_ups() -> int:
        statements.clear()
        for _ in range(10):
            assert world.http.get("/v1/cluster", headers=bearer(reader.secret)).status_code == 200
        return len([statement for statement in statements if "FROM token" in statement])

    assert [look_ups(), look_ups()] == [1, 0]
    world.clock.move(FRESH.total_seconds())
    assert look_ups() == 1


def test_a_revoked_token_is_refused_in_time(world: World, reader: NewToken) -> None:
    look = {"url": "/v1/jobs", "headers": bearer(reader.secret)}
    assert world.http.get(**look).status_code == 200
    tokens.revoke(world.database, reader.id)
    world.clock.move(FRESH.total_seconds())
    problem(world.http.get(**look), 401, "unauthorized")


def test_an_expired_token_is_refused_at_once(world: World) -> None:
    brief = token(world.database, Scope.READ, "1m")
    world.clock.move(59)
    assert world.http.get("/v1/jobs", headers=bearer(brief.secret)).status_code == 200
    world.clock.move(1)
    problem(world.http.get("/v1/jobs", headers=bearer(brief.secret)), 401, "unauthorized")


def test_a_clock_that_is_set_back_keeps_no_revoked_token(world: World, reader: NewToken) -> None:
    assert world.http.get("/v1/jobs", headers=bearer(reader.secret)).status_code == 200
    tokens.revoke(world.database, reader.id)
    world.clock.move(-3600)
    problem(world.http.get("/v1/jobs", headers=bearer(reader.secret)), 401, "unauthorized")


def test_strangers_fill_no_memory(database: Database, portal: BlockingPortal, reader: NewToken) -> None:
    access = Access(database)
    for number in range(20):
        assert not portal.call(access.holds, f"ema_{number}_{64 * '0'}")
    assert portal.call(access.holds, reader.secret)
    assert access.remembered == 1 <= REMEMBERED


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_while_the_database_is_away_nobody_new_gets_in_and_nobody_is_cut_off(
    world: World, postgres: PostgresServer, portal: BlockingPortal, reader: NewToken
) -> None:
    access = Access(world.database)
    assert portal.call(access.holds, reader.secret)
    world.clock.move(FRESH.total_seconds())
    with postgres.stopped():
        problem(world.http.get("/v1/jobs", headers=bearer(reader.secret)), 503, "unavailable")
        problem(world.http.get("/v1/jobs"), 401, "unauthorized")
        assert world.http.get("/healthz").status_code == 200
        assert portal.call(access.holds, reader.secret)
    tokens.revoke(world.database, reader.id)
    assert not portal.call(access.holds, reader.secret)
    problem(world.http.get("/v1/jobs", headers=bearer(reader.secret)), 401, "unauthorized")


def connected(app: FastAPI, portal: BlockingPortal, address: str = ADDRESS) -> httpx.Client:
    return httpx.Client(transport=InProcess(app, portal), base_url=address)


# -- answers that have no end ------------------------------------------------------------------------------------------


@pytest.fixture
def live(world: World) -> Iterator[httpx.Client]:
    app = create_app(world.settings, world.database)
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as http:
        yield http


@pytest.mark.parametrize("end", ["revoked", "expired"])
def test_a_stream_ends_with_its_token(world: World, live: httpx.Client, clock: Clock, end: str) -> None:
    controller = Controller.launch(world.database, a_job(world))
    watcher = token(world.database, Scope.READ, "1h")
    headers = bearer(watcher.secret) | {"Accept": "text/event-stream"}
    with live.stream("GET", f"/v1/jobs/{controller.job}/events", headers=headers) as response:
        lines = response.iter_lines()
        heard = [next(lines), next(lines)]
        assert "submitted" in "".join(heard)
        if end == "revoked":
            tokens.revoke(world.database, watcher.id)
            clock.move(FRESH.total_seconds())
        else:
            clock.move(3600)
        controller.report(started())
        with pytest.raises(httpx.RemoteProtocolError):
            heard.extend(lines)
    assert '"type":"started"' not in "".join(heard)
    problem(live.get("/v1/jobs", headers=headers), 401, "unauthorized")


def test_a_stream_whose_token_holds_goes_on_to_its_end(world: World, live: httpx.Client, clock: Clock) -> None:
    controller = Controller.launch(world.database, a_job(world))
    headers = bearer(token(world.database, Scope.READ, "1h").secret) | {"Accept": "text/event-stream"}
    with live.stream("GET", f"/v1/jobs/{controller.job}/events", headers=headers) as response:
        clock.move(10 * FRESH.total_seconds())
        controller.report(started(), finished("succeeded"))
        assert "succeeded" in "".join(response.iter_lines())


# -- the dashboard's session -------------------------------------------------------------------------------------------


def sign_in(http: httpx.Client, secret: str, origin: str = ADDRESS) -> httpx.Response:
    return http.post("/v1/session", headers=bearer(secret) | {"Origin": origin})


def test_a_browser_that_signed_in_needs_no_header(world: World, submitter: NewToken) -> None:
    response = sign_in(world.http, submitter.secret)
    assert response.json()["auth"] == "token"
    assert response.json()["token"]["name"] == "a submit"
    assert submitter.secret not in response.text
    assert world.http.get("/v1/session").json() == response.json()
    assert world.http.post("/v1/jobs", json=spec(), headers={"Origin": ADDRESS}).status_code == 201
    assert world.http.delete("/v1/session").status_code == 204
    problem(world.http.get("/v1/session"), 401, "unauthorized")


def test_no_script_and_no_other_page_has_the_cookie(world: World, reader: NewToken) -> None:
    cookie = sign_in(world.http, reader.secret).headers["set-cookie"].lower()
    assert {"httponly", "samesite=strict", "path=/", "max-age=43200"} <= set(cookie.split("; "))
    assert "secure" not in cookie


def test_the_password_of_a_proxy_on_the_way_does_not_hide_the_cookie(world: World, reader: NewToken) -> None:
    sign_in(world.http, reader.secret)
    assert world.http.get("/v1/jobs", headers={"Authorization": "Basic cHJveHk6c2VjcmV0"}).status_code == 200


def test_by_https_it_stays_there(
    settings: Settings, database: Database, portal: BlockingPortal, reader: NewToken
) -> None:
    app = create_app(settings.model_copy(update={"allowed_hosts": ("train.example",)}), database)
    with connected(app, portal, "http://train.example") as http:
        assert "secure" in sign_in(http, reader.secret, "https://train.example").headers["set-cookie"].lower()


def test_a_wrong_token_signs_nobody_in(world: World) -> None:
    response = sign_in(world.http, STRANGER)
    problem(response, 401, "unauthorized")
    assert "set-cookie" not in response.headers


def test_a_cookie_changes_nothing_unless_the_browser_says_for_which_page(world: World, submitter: NewToken) -> None:
    sign_in(world.http, submitter.secret)
    problem(world.http.post("/v1/jobs", json=spec()), 401, "unauthorized")
    evil = {"Origin": "http://127.0.0.1:9000"}
    problem(world.http.post("/v1/jobs", json=spec(), headers=evil), 403, "forbidden")
    assert world.get("/v1/jobs")["items"] == []


def test_signing_out_needs_nothing_but_is_for_the_own_page(world: World, reader: NewToken) -> None:
    problem(world.http.delete("/v1/session", headers={"Origin": "http://evil.example"}), 403, "forbidden")
    tokens.revoke(world.database, reader.id)
    assert world.http.delete("/v1/session").status_code == 204


def test_without_tokens_there_is_nothing_to_sign_in_to(world: World, portal: BlockingPortal) -> None:
    app = create_app(world.settings.model_copy(update={"auth": "none"}), world.database)
    with connected(app, portal) as http:
        assert http.get("/v1/session").json() == {"auth": "none", "token": None}
        response = http.post("/v1/session", headers=bearer(STRANGER))
        assert (response.json(), "set-cookie" in response.headers) == ({"auth": "none", "token": None}, False)
        assert http.get("/v1/jobs", headers=bearer(STRANGER)).status_code == 200


# -- the names by which the service is reached -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "allowed", "name", "status"),
    [
        ("127.0.0.1", (), "train.example", 403),
        ("127.0.0.1", ("train.example",), "train.example", 200),
        ("127.0.0.1", ("train.example",), "TRAIN.example:8000", 200),
        ("127.0.0.1", ("train.example",), "localhost", 200),
        ("127.0.0.1", ("train.example",), "evil.example", 403),
        ("0.0.0.0", (), "train.example", 200),
        ("0.0.0.0", (), "10.0.0.7:8000", 200),
        ("0.0.0.0", ("train.example",), "train.example", 200),
        ("0.0.0.0", ("train.example",), "localhost", 200),
        ("0.0.0.0", ("train.example",), "evil.example", 403),
    ],
)
def test_which_names_are_answered(
    world: World, portal: BlockingPortal, host: str, allowed: tuple[str, ...], name: str, status: int
) -> None:
    settings = world.settings.model_copy(update={"host": host, "allowed_hosts": allowed})
    with connected(create_app(settings, world.database), portal) as http:
        assert http.get("/healthz", headers={"Host": name}).status_code == status
