"""The events of a job for a reader: in pages, or as they happen."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
from anyio.to_thread import run_sync
from fastapi.sse import ServerSentEvent
from sqlmodel import col, select

from api_schemas.errors import FieldError, NotFound, Unavailable
from api_schemas.events import EventPage, parse_event
from service import events
from service.db import Database
from service.jobs import found
from service.tables import EventRow, Job
from service.validation import invalid

CHUNK = 200
OUTAGE_POLL_S = 1.0


def page(database: Database, job_id: str, after: int, limit: int) -> EventPage:
    """A page of events, oldest first. Raises NotFound."""
    rows, _ = _look(database, job_id, after, limit + 1)
    listed = rows[:limit]
    last = str(listed[-1].id) if listed else None
    return EventPage(
        items=[parse_event(row.payload) for row in listed], next=last if len(rows) > limit else None, last=last
    )


async def stream(database: Database, job_id: str, after: int, poll_s: float) -> AsyncIterator[ServerSentEvent]:
    """Every event after the cursor, then those that happen; ends once the job has ended and all is said.

    The id of each message is the cursor that leads to the next one. A job that is deleted ends the stream; a database
    that does not answer is waited for.
    """
    while True:
        try:
            rows, ended = await run_sync(_look, database, job_id, after, CHUNK)
        except NotFound:
            return
        except Unavailable:
            await anyio.sleep(OUTAGE_POLL_S)
            continue
        for row in rows:
            after = row.id or after
            yield ServerSentEvent(raw_data=parse_event(row.payload).model_dump_json(), id=str(after))
        if ended and len(rows) < CHUNK:
            return
        if not rows:
            await anyio.sleep(poll_s)


def cursor(text: str | None, name: str) -> int:
    """The number of a cursor as it was handed out; None: from the beginning. Raises InvalidRequest."""
    if text is None or (text.isascii() and text.isdigit() and len(text) < 19):
        return int(text or 0)
    raise invalid([FieldError(pointer=name, message="Must be a cursor as it came from this service.")])


def _look(database: Database, job_id: str, after: int, limit: int) -> tuple[list[EventRow], bool]:
    """The phase is read first: what an ended job has to say is then all among the events."""
    with database.reading() as session:
        phase = found(session.exec(select(col(Job.phase)).where(Job.id == job_id)).first(), job_id)
        return list(events.since(session, job_id, after, limit)), phase.is_terminal
