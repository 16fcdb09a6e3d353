"""A page of the list of jobs as it changes: what GET /jobs answers once, as a stream of what is new in it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta

import anyio
from anyio.to_thread import run_sync
from fastapi.sse import ServerSentEvent

from api_schemas.errors import Unavailable
from api_schemas.views import JobChanges
from service.channels import OUTAGE_POLL_S
from service.db import Database
from service.jobs import JobQuery, Listing

OVERLAP = timedelta(seconds=10)
"""A change is dated before it is committed, so a resumed stream looks this far behind its cursor."""

Told = Mapping[str, int]
"""Revisions by id, in the page's order."""


class Looks:
    """At pages of the list: who asks for the same one while it is being read shares what is found.

    Belongs to one event loop.
    """

    def __init__(self, look: Callable[[JobQuery], Listing]) -> None:
        """`look` blocks; it may raise Unavailable and InvalidRequest."""
        self._look = look
        self._under_way: dict[str, asyncio.Task[Listing]] = {}

    async def at(self, query: JobQuery) -> Listing:
        """The page. Raises what `look` does."""
        key = query.model_dump_json()
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(run_sync(self._look, query))
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)  # one who leaves must not take it from the others

    def _end(self, key: str, task: asyncio.Task[Listing]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # is taken note of even if all who asked have left


async def stream(
    database: Database, looks: Looks, query: JobQuery, after: int, poll_s: float
) -> AsyncIterator[ServerSentEvent]:
    """First the page, or where a stream was broken off what changed since; then every change of it. Never ends;
    a database that does not answer is waited for. All streams look at the same moments, and so share their looks.

    `after` is the id of the last message that was heard: milliseconds since 1970; 0: none was.
    """
    told: Told | None = None
    while True:
        asked_at = database.now()
        try:
            page = await looks.at(query)
        except Unavailable:
            await anyio.sleep(OUTAGE_POLL_S)
            continue
        cursor = int(asked_at.timestamp() * 1000)
        news = changes(told, page) if told is not None else beginning(page, min(after, cursor))
        told = {each.id: each.revision for each in page.listed}
        if news is not None:
            yield ServerSentEvent(raw_data=news, id=str(cursor))
        await anyio.sleep(poll_s - time.monotonic() % poll_s)


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
