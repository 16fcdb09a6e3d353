"""A page of the list of jobs as it changes: what GET /jobs answers once, as a stream of what is new in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from fastapi.sse import ServerSentEvent

from api_schemas.views import JobChanges
from service.db import Database
from service.jobs import Listing
from service.looks import repeated

OVERLAP = timedelta(seconds=10)
"""A change is dated before it is committed, so a resumed stream looks this far behind its cursor."""

Told = Mapping[str, int]
"""Revisions by id, in the page's order."""


async def stream(
    database: Database, look: Callable[[], Awaitable[Listing]], after: int, poll_s: float
) -> AsyncIterator[ServerSentEvent]:
    """First the page, or where a stream was broken off what changed since; then every change of it. Never ends.

    `after` is the id of the last message that was heard: milliseconds since 1970; 0: none was.
    """

    async def dated() -> tuple[int, Listing]:
        asked_at = database.now()
        return int(asked_at.timestamp() * 1000), await look()

    told: Told | None = None
    async for cursor, page in repeated(dated, poll_s):
        news = changes(told, page) if told is not None else beginning(page, min(after, cursor))
        told = {each.id: each.revision for each in page.listed}
        if news is not None:
            yield ServerSentEvent(raw_data=news, id=str(cursor))


def beginning(page: Listing, after: int) -> str:
    """The page's order, and of its rows those that may have changed since the cursor."""
    since = datetime.fromtimestamp(after / 1000, UTC) - OVERLAP if after else None
    items = [row for each, row in zip(page.listed, page.rows, strict=True) if since is None or each.updated_at > since]
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
