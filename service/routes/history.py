"""What happened to a job: events, curves, resizes, ledger, logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from api_schemas.errors import Problem, Unavailable
from api_schemas.events import EventPage, EventType
from api_schemas.views import Curves, Ledger, LogLines, Page, Resize
from service import curves, feed, jobs, ledger, logs, resizes
from service.context import Context, ContextDep, DatabaseDep
from service.curves import CurveQuery
from service.ids import AFTER
from service.openapi import sends
from service.routes.accept import EventStream, EventStreamRoute
from service.routes.conditional import TEXT, AcceptEncoding, whole
from service.routes.jobs import JobId
from service.routes.parameters import NONE, RESUMES
from service.routes.polls import view
from service.standing import Standing
from service.storage import Folder

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["history"], responses={"default": {"model": Problem}})
streams = APIRouter(prefix=router.prefix, tags=["history"], route_class=EventStreamRoute, include_in_schema=False)


CSV: dict[int | str, Any] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}
PLAIN = "text/plain; charset=utf-8"
LIVE_EVENTS = sends("Event", "What happened already comes first, or what came after `Last-Event-ID`.")
LOG: dict[int | str, dict[str, Any]] = {
    200: {"content": TEXT[200]["content"] | sends("LogLines", "The first says where it begins.")[200]["content"]}
}


class PageQuery(BaseModel):
    """Which page."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Most items of the page.")
    after: str | None = Field(None, description=AFTER)


class EventQuery(PageQuery):
    """Which events, and from which end."""

    newest_first: bool = Field(False, description="Page back, from what happened last.")
    type: list[EventType] = Field(
        [], max_length=len(get_args(EventType)), description="Events of this type, as often as needed; none: all."
    )


class StreamQuery(BaseModel):
    """Where a stream begins, and what it tells; it has no pages."""

    model_config = ConfigDict(extra="forbid")

    after: str | None = None
    view: bool = False


class LogQuery(BaseModel):
    """Which lines."""

    model_config = ConfigDict(extra="forbid")

    rank: str | None = Field(None, max_length=64, description="One worker: `3` or `w3`; none: all of them.")
    tail: int | None = Field(None, ge=0, le=100_000, description="The last lines only.")
    follow: bool = Field(False, description="Stay for what comes, until the job has ended.")


LastEventId = Annotated[str | None, Header()]


async def _cursor(
    context: ContextDep, job_id: JobId, query: Annotated[StreamQuery, Query()], last_event_id: LastEventId = None
) -> int:
    """Where the stream begins; a job that does not exist is found out before the stream has begun."""
    await context.revisions.of(job_id)
    if last_event_id is not None:
        return feed.cursor(last_event_id, "Last-Event-ID")
    return feed.cursor(query.after, "?after")


@streams.get("/events")
async def stream(
    job_id: JobId, context: ContextDep, query: Annotated[StreamQuery, Query()], after: Annotated[int, Depends(_cursor)]
) -> Response:
    """Events as they happen."""
    standing = Standing(partial(view, context, job_id)) if query.view else None
    return EventStream(feed.stream(context.channels, context.database, job_id, after, standing))


@router.get("/events", responses=LIVE_EVENTS, openapi_extra=RESUMES)
def events(job_id: JobId, query: Annotated[EventQuery, Query()], database: DatabaseDep) -> EventPage:
    """Events, oldest first. With `Accept: text/event-stream` a live stream.

    With `newest_first` pages lead back, and `last` of the first one to what happens later.

    A stream that is asked for with `?view=true` also says how the job stands, in messages of the type `view` and
    without an id: first the whole view, then those of its fields that are new.
    """
    after = None if query.after is None else feed.cursor(query.after, "?after")
    return feed.page(database, job_id, after, query.limit, newest_first=query.newest_first, types=query.type)


@router.get("/metrics", response_model=Curves, responses=CSV)
def metrics(
    job_id: JobId,
    query: Annotated[CurveQuery, Query()],
    database: DatabaseDep,
    accept: Annotated[str, Header(alias="Accept", description="`text/csv` for lines of name,samples,value.")] = "",
    accept_encoding: AcceptEncoding = "",
) -> Response:
    """Training curves over samples seen. With `Accept: text/csv` as CSV."""
    if "text/csv" in accept:
        return StreamingResponse(curves.csv(database, job_id, query), media_type="text/csv; charset=utf-8")
    return whole(curves.read(database, job_id, query).model_dump_json().encode(), None, accept_encoding)


@router.get("/resizes")
def resizes_(job_id: JobId, query: Annotated[PageQuery, Query()], database: DatabaseDep) -> Page[Resize]:
    """What each change of size did, oldest first."""
    return resizes.page(database, job_id, feed.cursor(query.after, "?after"), query.limit)


@router.get("/ledger", dependencies=NONE)
def ledger_(job_id: JobId, database: DatabaseDep) -> Ledger:
    """Which samples were trained on, by which generation."""
    return ledger.read(database, job_id)


def _log(
    job_id: JobId,
    query: Annotated[LogQuery, Query()],
    context: ContextDep,
    last_event_id: LastEventId = None,
) -> AsyncIterator[logs.News]:
    """What is followed; that it cannot be is found out before the stream has begun."""
    after = None if last_event_id is None else logs.heard_at(last_event_id, "Last-Event-ID")
    return _followed(context, job_id, query, after)


@streams.get("/logs", response_class=EventSourceResponse)
async def log_stream(news: Annotated[AsyncIterator[logs.News], Depends(_log)]) -> AsyncIterator[ServerSentEvent]:
    """Log lines as they come; the id of each message is the place to go on from."""
    async for each in news:
        yield ServerSentEvent(raw_data=LogLines(lines=each.lines).model_dump_json(), id=logs.place(each.heard))


@router.get("/logs", response_class=Response, responses=LOG, openapi_extra=RESUMES)
def logs_(job_id: JobId, query: Annotated[LogQuery, Query()], context: ContextDep) -> Response:
    """Log lines of the workers, kept after the nodes are gone.

    A text that is followed is silent while there are no lines, and begins anew where it broke off: with
    `Accept: text/event-stream` a live stream that keeps its connection alive, and goes on.
    """
    if query.follow:
        news = _followed(context, job_id, query)
        return StreamingResponse((each.text async for each in news if each.lines), media_type=PLAIN)
    folder = Folder(jobs.storage(context.database, job_id))
    return StreamingResponse(logs.in_chunks(logs.read(folder, query.rank, query.tail)), media_type=PLAIN)


def _followed(
    context: Context, job_id: str, query: LogQuery, after: logs.Heard | None = None
) -> AsyncIterator[logs.News]:
    folder = Folder(jobs.storage(context.database, job_id))

    def ended() -> bool:
        try:
            return jobs.has_ended(context.database, job_id)
        except Unavailable:
            return False  # the lines are in the storage, and go on coming

    return logs.follow(folder, query.rank, query.tail, ended, context.settings.log_poll_s, after)
