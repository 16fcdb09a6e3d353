"""How a job stands, told to one listener of its stream: the whole view first, then what is new in it."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi.sse import format_sse_event

from api_schemas.errors import NotFound, Unavailable

EVERY_S = 2.0
"""Between two messages, at least: after a rest the next one comes at once, while a job trains there is always news."""
KIND = "view"
"""Of the message, so that who listens for events alone does not hear it."""


class Standing:
    """What one listener knows of a job's view."""

    def __init__(
        self, read: Callable[[], Awaitable[tuple[int, bytes]]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`read` gives the revision and the view as JSON; it may raise NotFound and Unavailable."""
        self._read = read
        self._clock = clock
        self._revision: int | None = None
        self._view: dict[str, Any] = {}
        self._told_at = float("-inf")

    def due_s(self, revision: int | None) -> float | None:
        """In how many seconds the next message is due, of a job that is at this revision; None: nothing is new."""
        if self._revision is not None and revision == self._revision:
            return None
        return max(0.0, self._told_at + EVERY_S - self._clock())

    async def news(self) -> bytes:
        """The fields that are new since the last message, each whole; empty where none are, or none can be read."""
        try:
            revision, text = await self._read()
        except (NotFound, Unavailable):
            return b""
        view: dict[str, Any] = json.loads(text)
        new = {name: value for name, value in view.items() if name not in self._view or self._view[name] != value}
        self._revision, self._view, self._told_at = revision, view, self._clock()
        return format_sse_event(event=KIND, data_str=json.dumps(new, separators=(",", ":"))) if new else b""
