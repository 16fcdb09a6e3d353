"""The events of a job for a reader: in pages, or as they happen."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from anyio.to_thread import run_sync
from fastapi.sse import KEEPALIVE_COMMENT
from sqlalchemy import Row
from sqlmodel import col, select

from api_schemas.errors import FieldError, NotFound, Unavailable
from api_schemas.events import EventPage, parse_event
from service import events
from service.channels import CHUNK, OUTAGE_POLL_S, Channels, Said, messages_of
from service.db import Database
from service.ids import NO_CURSOR
from service.jobs import found
from service.standing import Standing
from service.tables import Job
from service.validation import invalid

KEEPALIVE_S = 15.0
"""Without a message, until a comment says that the connection lives."""


def page(
    database: Database,
    job_id: str,
    after: int | None,
    limit: int,
    *,
    newest_first: bool = False,
    types: Sequence[str] = (),
) -> EventPage:
    """A page of events, from the oldest on or from the newest back. Raises NotFound."""
    with database.reading() as session:
        found(session.exec(select(Job.id).where(Job.id == job_id)).first(), job_id)
        rows = events.listed(session, job_id, after, limit + 1, newest_first=newest_first, types=types)
    items = rows[:limit]
    return EventPage(
        items=[parse_event(row.payload) for row in items],
        next=str(items[-1].id) if len(rows) > limit else None,
        last=str(max(row.id for row in items)) if items else None,
    )


async def stream(
    channels: Channels, database: Database, job_id: str, after: int, standing: Standing | None = None
) -> AsyncGenerator[bytes, None]:
    """Every event after the cursor, then those that happen, as server-sent events; ends once the job has ended and all
    is said. With a `standing` also what is new in the job's view, as often as that says.

    The id of each message is the cursor that leads to the next one; a view has none. A job that is deleted ends the
    stream; a database that does not answer is waited for. Who is behind what the channel keeps reads the database until
    he is not.
    """
    with channels.joined(job_id) as channel:
        while True:
            news = channel.news()
            said, after, over = channel.since(after) or await _read(database, job_id, after)
            due_s = standing.due_s(channel.revision) if standing else None
            if standing and (over or due_s == 0):
                said, due_s = said + await standing.news(), None
            if said:
                yield said
            if over:
                return
            if not said and not await _within(min(KEEPALIVE_S, due_s or KEEPALIVE_S), news) and due_s is None:
                yield KEEPALIVE_COMMENT


async def _read(database: Database, job_id: str, after: int) -> Said:
    """As `Channel.since`, from the database."""
    try:
        rows, ended = await run_sync(_look, database, job_id, after, CHUNK)
    except NotFound:
        return b"", after, True
    except Unavailable:
        await asyncio.sleep(OUTAGE_POLL_S)
        return b"", after, False
    messages = messages_of(rows)
    if messages is None:
        return b"", after, True
    last = messages[-1].id if messages else after
    return b"".join(each.text for each in messages), last, ended and len(rows) < CHUNK


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether it came in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):  # `wait_for` makes a task each time
            await event.wait()
    return event.is_set()


def cursor(text: str | None, name: str) -> int:
    """The number of a cursor as it was handed out; None: from the beginning. Raises InvalidRequest."""
    if text is None or (text.isascii() and text.isdigit() and len(text) < 19):
        return int(text or 0)
    raise invalid([FieldError(pointer=name, message=NO_CURSOR)])


def _look(database: Database, job_id: str, after: int, limit: int) -> tuple[Sequence[Row[Any]], bool]:
    """The phase is read first: what an ended job has to say is then all among the events."""
    with database.reading() as session:
        phase = found(session.exec(select(col(Job.phase)).where(Job.id == job_id)).first(), job_id)
        return events.since(session, job_id, after, limit), phase.is_terminal
