"""Log lines have a message, an action key, and what they are about."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from service.actionlog import ActionFormatter, JsonFormatter
from tests.service.world import World


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


def test_a_request_that_changes_something_is_logged_with_its_job(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="service.guard")
    job = world.submit()
    response = world.http.post(f"/v1/jobs/{job}/cancel")
    world.get(f"/v1/jobs/{job}")
    submitted, cancelled = [vars(record) for record in caplog.records]
    assert cancelled["message"] == f"POST /v1/jobs/{job}/cancel: 200"
    assert (cancelled["action"], cancelled["job"]) == ("request", job)
    assert cancelled["request_id"] == response.headers["x-request-id"]
    assert (submitted["message"], "job" in submitted) == ("POST /v1/jobs: 201", False)
