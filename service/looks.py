"""Looks at the database that many who listen share: all look at the same moments, and one look serves them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.to_thread import run_sync

from api_schemas.errors import Unavailable
from service.channels import OUTAGE_POLL_S

EVERY = 5
"""Polls of an event stream: a list is more to read than the events of a job."""

Found = TypeVar("Found")


class Looks(Generic[Found]):
    """Who asks for the same thing while it is being read shares what is found.

    Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[Found]] = {}

    async def at(self, key: str, look: Callable[[], Found]) -> Found:
        """What `look`, which blocks, finds; who gives the same `key` gets the same. Raises what it does."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(run_sync(look))
            task.add_done_callback(lambda done: self._end(key, done))
        return await asyncio.shield(task)  # one who leaves must not take it from the others

    def _end(self, key: str, task: asyncio.Task[Found]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # is taken note of even if all who asked have left


async def repeated(look: Callable[[], Awaitable[Found]], poll_s: float) -> AsyncIterator[Found]:
    """What is found, again and again; never ends. A database that does not answer is waited for."""
    while True:
        try:
            found = await look()
        except Unavailable:
            await anyio.sleep(OUTAGE_POLL_S)
            continue
        yield found
        await anyio.sleep(poll_s - time.monotonic() % poll_s)
