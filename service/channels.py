"""Live streams of jobs: one look at the database for all who listen, and each message encoded once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

from anyio.to_thread import run_sync
from fastapi.sse import format_sse_event
from pydantic import ValidationError
from sqlalchemy import Row, bindparam
from sqlmodel import Session, col, func, select

from api_schemas.errors import Unavailable
from api_schemas.events import parse_event
from api_schemas.views import Phase
from service import events
from service.db import Database
from service.tables import EventRow, Job

logger = logging.getLogger(__name__)

CHUNK = 200
"""Events read at once, of each job that somebody listens to."""
_STATES = select(Job.id, Job.revision, Job.phase).where(col(Job.id).in_(bindparam("job_ids", expanding=True)))
BACKLOG = 1000
"""Messages that a channel keeps; who is further behind reads the database for himself."""
OUTAGE_POLL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Message:
    """An event as it is sent; `id` is the cursor that leads to the next one."""

    id: int
    text: bytes


Said = tuple[bytes, int, bool]
"""What to send; the cursor after it; whether nothing more will come."""


@dataclass(frozen=True, kw_only=True)
class News:
    """What a look found in one job."""

    revision: int | None  # None: there is more, to be read by the next look
    last: int  # cursor up to which all is known
    messages: list[Message]
    ended: bool  # and all is said


class Channel:
    """What those who listen to one job are told."""

    def __init__(self) -> None:
        self.over = False
        self.listeners = 0
        self.revision: int | None = None
        self.last: int | None = None  # None: nobody has looked yet
        self._begin = 0
        self._messages: deque[Message] = deque()
        self._news = asyncio.Event()

    def since(self, after: int) -> Said | None:
        """What is known beyond the cursor; None: that goes too far back."""
        if self.last is None or after < self._begin:
            return None
        found = []
        for message in reversed(self._messages):
            if message.id <= after:
                break
            found.append(message.text)
        return b"".join(reversed(found)), max(after, self.last), self.over

    def news(self) -> asyncio.Event:
        """Is set when there is something new; to be taken before looking for it."""
        return self._news

    def tell(self, news: News | None) -> None:
        """Pass on what a look found; None: the job is gone."""
        if news is None:
            self.over = True
        else:
            self._begin = news.last if self.last is None else self._begin
            self.revision, self.last, self.over = news.revision, news.last, news.ended
            self._messages.extend(news.messages)
            while len(self._messages) > BACKLOG:
                self._begin = self._messages.popleft().id
        self._news.set()
        self._news = asyncio.Event()


class Channels:
    """The channels that somebody listens to. Belongs to one event loop."""

    def __init__(self, database: Database, poll_s: float) -> None:
        self._database = database
        self._poll_s = poll_s
        self._open: dict[str, Channel] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextmanager
    def joined(self, job_id: str) -> Iterator[Channel]:
        """The job's channel, for as long as the block lasts."""
        channel = self._open.setdefault(job_id, Channel())
        channel.listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            yield channel
        finally:
            channel.listeners -= 1
            if not channel.listeners:
                del self._open[job_id]
            if not self._open and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        """Again and again; an outage of the database is waited for."""
        while True:
            asked = [(job_id, channel.revision, channel.last) for job_id, channel in self._open.items()]
            try:
                found = await run_sync(look, self._database, asked)
            except Exception as error:  # whoever listens would wait for ever
                if not isinstance(error, Unavailable):
                    logger.exception("live streams have to wait", extra={"action": "streams_stuck"})
                await asyncio.sleep(OUTAGE_POLL_S)
                continue
            for job_id, news in found.items():
                if channel := self._open.get(job_id):
                    channel.tell(news)
                    await asyncio.sleep(0)  # requests get their turn before the listeners to the next one
            await asyncio.sleep(self._poll_s)


Asked = tuple[str, int | None, int | None]
"""A job, with the revision and the cursor up to which it is known."""


def look(database: Database, asked: Sequence[Asked]) -> dict[str, News | None]:
    """What is new in those of these jobs that have changed, in one view of the database; None: it is gone.

    So is, for who listens, one whose events cannot be read, as those of a later version of this service.
    """
    with database.reading() as session:
        states = session.connection().execute(_STATES, {"job_ids": [job_id for job_id, _, _ in asked]})
        known = {job_id: State(revision, Phase(phase)) for job_id, revision, phase in states}
        found: dict[str, News | None] = {job_id: None for job_id, _, _ in asked if job_id not in known}
        changed = [(job_id, last) for job_id, seen, last in asked if job_id in known and known[job_id].revision != seen]
        for job_id in [job_id for job_id, last in changed if last is None]:
            found[job_id] = _beginning(session, job_id, known[job_id])
        cursors = {job_id: last for job_id, last in changed if last is not None}
        return found | _news(session, cursors, known)


class State(NamedTuple):
    """How a job is in the view of one look."""

    revision: int
    phase: Phase


def _beginning(session: Session, job_id: str, state: State) -> News:
    """The first look finds out where the channel begins."""
    newest = select(func.max(EventRow.id)).where(col(EventRow.job_id) == job_id)
    last = session.exec(newest).one() or 0
    return News(revision=state.revision, last=last, messages=[], ended=state.phase.is_terminal)


def _news(session: Session, cursors: Mapping[str, int], known: Mapping[str, State]) -> dict[str, News | None]:
    if not cursors:
        return {}
    rows = events.news(session, cursors, CHUNK * len(cursors))
    of_job = {job_id: list(group) for job_id, group in groupby(rows, key=lambda row: str(row.job_id))}
    cut_off = len(rows) == CHUNK * len(cursors)  # in the last job, and those that would come after it are not there
    whole = set(of_job) - {rows[-1].job_id} if cut_off else cursors.keys()
    return {
        job_id: _told(of_job.get(job_id, ()), last, known[job_id], whole=job_id in whole)
        for job_id, last in cursors.items()
    }


def _told(rows: Sequence[Row[Any]], last: int, state: State, *, whole: bool) -> News | None:
    messages = messages_of(rows)
    if messages is None:
        return None
    return News(
        revision=state.revision if whole else None,
        last=messages[-1].id if messages else last,
        messages=messages,
        ended=whole and state.phase.is_terminal,
    )


def messages_of(rows: Sequence[Row[Any]]) -> list[Message] | None:
    """These events of one job; None: they cannot be read."""
    try:
        return [message(row) for row in rows]
    except ValidationError:
        logger.exception("events cannot be read", extra={"action": "events_unreadable", "job": rows[0].job_id})
        return None


def message(row: Row[Any]) -> Message:
    """The event as it is sent."""
    text = format_sse_event(data_str=parse_event(row.payload).model_dump_json(), id=str(row.id))
    return Message(id=row.id, text=text)
