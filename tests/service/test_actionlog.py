"""Log lines have a message, an action key, and what they are about."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from service.actionlog import ActionFormatter


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
    record = logging.makeLogRecord(
        {"name": "a.library", "levelname": "INFO", "msg": "%d workers", "args": (2,), "created": 1767225600.0} | extra
    )
    assert ActionFormatter().format(record) == line
