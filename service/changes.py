"""A page of the list of jobs as it changes: what GET /jobs answers once, as a stream of what is new in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from fastapi.sse import ServerSentEvent

from api_schemas.views import JobChanges
from service import feed
from service.db import Database
from service.jobs import Listing
from service.looks import repeated

OVERLAP = timedelta(seconds=10)
"""A change is dated before it is committed, so a resumed stream looks this far behind its cursor."""

Told = Mapping[str, int]
"""Revisions by id, in the page's order."""


class Cursor(NamedTuple):
    """What one listener has heard: the page as it was at `at_ms` (since 1970), with the job `last` at its end."""

    at_ms: int
    last: str  # empty: the page was

    def __str__(self) -> str:
        """As the id of a message."""
        return f"{self.at_ms}:{self.last}"


def cursor(text: str, name: str) -> Cursor:
    """The cursor of a message. Raises InvalidRequest."""
    at, _, last = text.partition(":")
    return Cursor(feed.cursor(at, name), last)


async def stream(
    database: Database, look: Callable[[], Awaitable[Listing]], after: Cursor | None, poll_s: float
) -> AsyncIterator[ServerSentEvent]:
    """First the page, or where a stream was broken off what is new since; then every change of it. Never ends."""

    async def dated() -> tuple[int, Listing]:
        asked_at = database.now()
        return int(asked_at.timestamp() * 1000), await look()

    told: Told | None = None
    async for at_ms, page in repeated(dated, poll_s):
        news = changes(told, page) if told is not None else beginning(page, after, at_ms)
        told = {each.id: each.revision for each in page.listed}
        if news is not None:
            yield ServerSentEvent(raw_data=news, id=str(Cursor(at_ms, page.listed[-1].id if page.listed else "")))


def beginning(page: Listing, after: Cursor | None, at_ms: int) -> str:
    """The page's order, and of its rows those that may be new to who heard the cursor, if it is not from the future.

    Where jobs of a full page are deleted, others come onto its end that have not changed.
    """
    if after is None:
        return _message(page, page.rows, moved=True)
    since = datetime.fromtimestamp(min(after.at_ms, at_ms) / 1000, UTC) - OVERLAP
    pairs = zip(page.listed, page.rows, strict=True)
    items = [row for each, row in pairs if each.updated_at > since or each.id < after.last]
    return _message(page, items, moved=True)


def changes(told: Told, page: Listing) -> str | None:
    """What is new since the page was told so; None: nothing."""
    items = [row for each, row in zip(page.listed, page.rows, strict=True) if told.get(each.id) != each.revision]
    moved = [each.id for each in page.listed] != list(told)
    return _message(page, items, moved=moved) if items or moved else None


def _message(page: Listing, items: list[bytes], *, moved: bool) -> str:
    """A `JobChanges`, put together from rows that are JSON already."""
    rest = JobChanges(items=[], ids=[each.id for each in page.listed] if moved else None, next=page.next)
    return rest.model_dump_json().replace('"items":[]', f'"items":[{b",".join(items).decode()}]', 1)
