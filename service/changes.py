"""A page of the list of jobs as it changes: what GET /jobs answers once, as a stream of what is new in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta

import anyio
from anyio.to_thread import run_sync
from fastapi.sse import ServerSentEvent

from api_schemas.views import JobChanges, JobRow, Page
from service import jobs
from service.db import Database
from service.jobs import JobQuery

OVERLAP = timedelta(seconds=10)
"""A change is dated before it is committed, so a resumed stream looks this far behind its cursor."""

Told = Mapping[str, int]
"""Revisions by id, in the page's order."""


async def stream(database: Database, query: JobQuery, after: int, poll_s: float) -> AsyncIterator[ServerSentEvent]:
    """First the page, or where a stream was broken off what changed since; then every change of it. Never ends.

    `after` is the id of the last message that was heard: milliseconds since 1970; 0: none was.
    """
    told: Told | None = None
    while True:
        asked_at = database.now()
        page = await run_sync(jobs.listing, database, query)
        cursor = int(asked_at.timestamp() * 1000)
        news = changes(told, page) if told is not None else beginning(page, min(after, cursor))
        told = {row.id: row.revision for row in page.items}
        if news is not None:
            yield ServerSentEvent(raw_data=news.model_dump_json(), id=str(cursor))
        await anyio.sleep(poll_s)


def beginning(page: Page[JobRow], after: int) -> JobChanges:
    """The page's order, and of its rows those that may have changed since the cursor."""
    since = datetime.fromtimestamp(after / 1000, UTC) - OVERLAP if after else None
    items = [row for row in page.items if since is None or row.updated_at > since]
    return JobChanges(items=items, ids=[row.id for row in page.items], next=page.next)


def changes(told: Told, page: Page[JobRow]) -> JobChanges | None:
    """What is new since the page was told so; None: nothing."""
    items = [row for row in page.items if told.get(row.id) != row.revision]
    ids = [row.id for row in page.items]
    moved = ids != list(told)
    return JobChanges(items=items, ids=ids if moved else None, next=page.next) if items or moved else None
