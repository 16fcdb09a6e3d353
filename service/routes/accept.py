"""Routes that share an address with another one and are chosen by what the client accepts."""

from __future__ import annotations

from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.routing import Match
from starlette.types import Scope


class EventStreamRoute(APIRoute):
    """Takes requests for `text/event-stream` alone; must come before the route for the others."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for a request that wants something else."""
        if "text/event-stream" not in Headers(scope=scope).get("accept", ""):
            return Match.NONE, {}
        return super().matches(scope)
