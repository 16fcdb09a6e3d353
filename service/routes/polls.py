"""The one request that comes again and again: GET /v1/jobs/{id}, without the framework's way to a handler.

FastAPI's route for it stays, for openapi.json and for whatever is not just that: parameters, ids that cannot be. Both
answer by `answer`. On the way through middleware, routing, dependencies and validation a poll cost five times as much.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api_schemas.errors import EmascaleError
from service import etags
from service.context import Context
from service.problems import respond
from service.routes.conditional import unchanged, whole

LONGEST_ID = 32
_PLAIN = re.compile(rf"/v1/jobs/([0-9A-Za-z_-]{{1,{LONGEST_ID}}})", re.ASCII)


@dataclass(frozen=True)
class _Route:
    """As FastAPI's routes are known in the scope: `Meters` counts by it."""

    path: str


class Polls:
    """ASGI middleware that answers plain polls by itself."""

    route = _Route("/v1/jobs/{job_id}")

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self.app = app
        self.context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on what is not just that."""
        plain = scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]
        match = _PLAIN.fullmatch(scope["path"]) if plain else None
        if match is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = self.route, {"job_id": match[1]}
        headers = Headers(scope=scope)
        tag, encoding = headers.get("if-none-match"), headers.get("accept-encoding", "")
        try:
            response = await answer(self.context, match[1], tag, encoding)
        except EmascaleError as error:
            response = respond(error, scope["state"]["request_id"])
        await response(scope, receive, send)


async def answer(context: Context, job_id: str, if_none_match: str | None, accept_encoding: str) -> Response:
    """The job, whole, or 304. Raises NotFound, Unavailable."""
    revision = await context.revisions.of(job_id)
    if known := unchanged(etags.of_job(revision), if_none_match):
        return known
    revision, text = await _text(context, job_id, revision)
    return whole(text, etags.of_job(revision), accept_encoding)


async def view(context: Context, job_id: str) -> tuple[int, bytes]:
    """The job's revision, and its view as JSON. Raises NotFound, Unavailable."""
    return await _text(context, job_id, await context.revisions.of(job_id))


async def _text(context: Context, job_id: str, revision: int) -> tuple[int, bytes]:
    """The view of that revision, or of a later one."""
    text = context.views.get(job_id, revision)
    if text is None:
        revision, text = await context.texts.of(job_id)
        context.views.put(job_id, revision, text)
    return revision, text
