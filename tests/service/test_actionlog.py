"""Log lines have a message, an action key, and what they are about."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from service.actionlog import ActionFormatter, JsonFormatter
from tests.service.world import World, problem, spec

Requests = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    ("extra", "line"),
    [
        ({"action": "order_changed", "job": "a"}, "2026-01-01T00:00:00Z INFO order_changed: 2 workers (job=a)"),
        ({"action": "stopped"}, "2026-01-01T00:00:00Z INFO stopped: 2 workers"),
        ({}, "2026-01-01T00:00:00Z INFO a.library: 2 workers"),
        ({"_private": 1}, "2026-01-01T00:00:00Z INFO a.library: 2 workers"),
    ],
)
def test_a_line(extra: dict[str, Any], line: str) -> None:
    assert ActionFormatter().format(a_record(extra)) == line


def a_record(extra: dict[str, Any]) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "a.library", "levelname": "INFO", "msg": "%d workers", "args": (2,), "created": 1767225600.0} | extra
    )


def test_a_line_for_programs() -> None:
    line = JsonFormatter().format(a_record({"action": "order_changed", "job": "a", "at_s": 0.5}))
    about = {"action": "order_changed", "message": "2 workers", "job": "a", "at_s": 0.5}
    assert json.loads(line) == {"at": "2026-01-01T00:00:00Z", "level": "INFO"} | about


def test_a_traceback_is_a_field_of_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError as error:
        line = JsonFormatter().format(a_record({"exc_info": (ValueError, error, error.__traceback__)}))
    assert "\n" not in line
    assert json.loads(line)["traceback"].endswith("ValueError: two\nlines")


@pytest.fixture
def requests(caplog: pytest.LogCaptureFixture) -> Requests:
    """The lines of requests so far, at the level that the processes log at."""
    caplog.set_level(logging.INFO, logger="service")
    return lambda: [line for line in map(vars, caplog.records) if line.get("action") == "request"]


def test_a_request_that_changes_something_is_logged_with_its_job(world: World, requests: Requests) -> None:
    job = world.submit()
    response = world.http.post(f"/v1/jobs/{job}/cancel")
    world.get(f"/v1/jobs/{job}")
    submitted, cancelled = requests()
    assert cancelled["message"] == f"POST /v1/jobs/{job}/cancel: 200"
    assert (cancelled["action"], cancelled["job"]) == ("request", job)
    assert cancelled["request_id"] == response.headers["x-request-id"]
    assert (submitted["message"], submitted["job"]) == ("POST /v1/jobs: 201", job)


def test_a_job_that_is_sent_again_is_logged_with_its_id(world: World, requests: Requests) -> None:
    first, again = (world.http.post("/v1/jobs", json=spec(), headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert [line["job"] for line in requests()] == [first.json()["id"]] * 2


@pytest.mark.parametrize(
    ("path", "job"), [("/v1/jobs/gone", "gone"), ("/v1/jobs/gone/ledger", "gone"), ("/v1/jobs?limit=0", None)]
)
def test_a_look_that_is_refused_is_found_by_the_id_of_its_problem(
    world: World, requests: Requests, path: str, job: str | None
) -> None:
    response = world.http.get(path)
    (line,) = requests()
    assert (line["levelname"], line["request_id"]) == ("INFO", response.json()["request_id"])
    assert line["message"] == f"GET {response.url.path}: {response.status_code}"
    assert line.get("job") == job


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_that_fails_is_a_warning(world: World, requests: Requests, method: str) -> None:
    with world.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job RENAME TO gone"))
    body = problem(world.http.request(method, "/v1/jobs", json=spec()), 500, "internal_error")
    (line,) = requests()
    assert (line["levelname"], line["request_id"]) == ("WARNING", body["request_id"])


def test_a_look_that_succeeds_is_not_logged(world: World, requests: Requests) -> None:
    address = f"/v1/jobs/{world.submit()}"
    tag = world.http.get(address).headers["etag"]
    assert world.http.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert world.http.get("/v1/jobs").status_code == 200
    assert [line["message"] for line in requests()] == ["POST /v1/jobs: 201"]


def test_no_address_makes_two_lines_of_one(world: World, requests: Requests) -> None:
    forged = "x%0A2026-01-01T00:00:00Z%20INFO%20request:%20POST"
    world.http.get(f"/{forged}")
    world.http.get(f"/v1/jobs/{forged[:12]}/ledger")
    assert [line["message"] for line in requests()] == [
        f"GET /{forged}: 404",
        f"GET /v1/jobs/{forged[:12]}/ledger: 404",
    ]
    assert requests()[1]["job"] == forged[:12]
