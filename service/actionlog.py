"""Log lines: a message for people, an action key that stays the same for programs, and what it is about."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

_OWN = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "action"}


class ActionFormatter(logging.Formatter):
    """`2026-01-01T12:00:00Z INFO order_changed: 2 workers requested. (job=..., workers=2)`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's own name)
        """The line without a traceback; those of other libraries have their logger's name for an action."""
        about = ", ".join(f"{name}={value}" for name, value in _added(record).items())
        action = getattr(record, "action", record.name)
        line = f"{record.asctime} {record.levelname} {action}: {record.message}"
        return f"{line} ({about})" if about else line


def _added(record: logging.LogRecord) -> dict[str, Any]:
    """What the line is about, as the caller gave it."""
    return {name: value for name, value in vars(record).items() if name not in _OWN and name[0] != "_"}


class JsonFormatter(ActionFormatter):
    """The same as one object a line: `{"at": ..., "level": ..., "action": ..., "message": ..., "job": ...}`."""

    def format(self, record: logging.LogRecord) -> str:
        """With a traceback as one of its fields."""
        line = {
            "at": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "action": getattr(record, "action", record.name),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(_added(record) | line, default=str)


FORMATTERS = {"text": ActionFormatter, "json": JsonFormatter}


def log_to_stderr(form: str = "text", level: int = logging.INFO) -> None:
    """Set up the whole process, in one of FORMATTERS; INFO of this project, WARNING of the libraries."""
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATTERS[form]())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("service").setLevel(level)
