"""The one request that comes again and again: GET /v1/jobs/{id}, without the framework's way through its parameters.

FastAPI's route for it stays, for openapi.json and for whatever is not just that: parameters, ids that cannot be. Both
answer by `answer`. On the way through dependencies and validation a poll cost four times as much.
"""

from __future__ import annotations

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

from service import jobs
from service.context import Context
from service.routes.conditional import unchanged, whole
from service.views import etag

LONGEST_ID = 32


class Poll(Route):
    """Takes plain requests alone; must come before the route for the others."""

    def __init__(self) -> None:
        super().__init__("/v1/jobs/{job_id}", _poll, methods=["GET"], include_in_schema=False)
        self.methods = {"GET"}  # and no HEAD, as FastAPI's routes

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """No match for another method, or with parameters."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["query_string"]:
            return Match.NONE, {}
        match, child = super().matches(scope)
        if match is Match.FULL and len(child["path_params"]["job_id"]) > LONGEST_ID:
            return Match.NONE, {}
        return match, {**child, "route": self}  # as FastAPI's routes do: `Meters` counts by it


async def answer(context: Context, job_id: str, if_none_match: str | None, accept_encoding: str) -> Response:
    """The job, whole, or 304. Raises NotFound, Unavailable."""
    revision = await context.revisions.of(job_id)
    if known := unchanged(etag(revision), if_none_match):
        return known
    text = context.views.get(job_id, revision)
    if text is None:
        job = await run_sync(jobs.get, context.database, job_id)
        revision, text = job.revision, job.model_dump_json().encode()
        context.views.put(job_id, revision, text)
    return whole(text, etag(revision), accept_encoding)


async def _poll(request: Request) -> Response:
    headers = request.headers
    return await answer(
        request.app.state.context,
        request.path_params["job_id"],
        headers.get("if-none-match"),
        headers.get("accept-encoding", ""),
    )
