"""Live streams: routes that share an address with another one and are chosen by what the client accepts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope, Send


class EventStreamRoute(APIRoute):
    """Takes requests for `text/event-stream` alone; must come before the route for the others."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for a request that wants something else."""
        if "text/event-stream" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)


class EventStream(StreamingResponse):
    """Server-sent events as they come. However the answer ends, what makes them is closed with it."""

    def __init__(self, messages: AsyncGenerator[bytes, None]) -> None:
        super().__init__(messages, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})
        self._messages = messages

    async def stream_response(self, send: Send) -> None:
        """Send all of it."""
        async with aclosing(self._messages):
            await super().stream_response(send)
