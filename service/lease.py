"""The lease: of several services on one database, one at a time does the reconciler's work.

A row names the holder and counts its renewals. Nobody compares clocks of two machines: whoever wants the lease watches
the row, and may take it once it has not changed for `term` seconds by the watcher's own clock. The holder counts from
before its last renewal, so it knows that its term is over before anybody else may think so, and stops.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import update
from sqlmodel import col

from api_schemas.errors import Unavailable
from service.db import Database, upsert
from service.tables import LeaseRow

NAME = "reconciler"
NOBODY = ""
Done = TypeVar("Done")
logger = logging.getLogger(__name__)


class LeaseLost(Exception):
    """The lease could not be renewed in time, or is another's by now."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """How long the lease lasts, in seconds."""

    term: float = 6.0  # unchanged for so long, it may be taken
    margin: float = 1.0  # the holder stops so long before that
    renew: float = 1.5  # between two renewals
    look: float = 0.5  # between two looks of one who waits


@dataclass(frozen=True)
class Stand:
    """Who holds the lease, and how often it was renewed: never twice the same."""

    holder: str
    renewals: int


@dataclass(frozen=True)
class Sight:
    """A stand, and since when it has been that, by the clock of who looked."""

    stand: Stand
    since: float


def look(before: Sight | None, stand: Stand, now: float) -> Sight:
    """What is known after one more look."""
    return before if before and before.stand == stand else Sight(stand, now)


def is_free(sight: Sight, candidate: str, now: float, term: float) -> bool:
    """Whether the candidate may take the lease: its own, given back, or left alone for a whole term."""
    return sight.stand.holder in (NOBODY, candidate) or now - sight.since >= term


def new_holder() -> str:
    """A name that no process has had; a person sees in it which one it is."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class Lease:
    """The lease, as one process sees it. `holder` is a name that no other living process has."""

    def __init__(self, database: Database, holder: str, clock: Callable[[], float], term: Term | None = None) -> None:
        """`clock` goes on steadily and is that of the event loop."""
        self.term = term or Term()
        self._database = database
        self._holder = holder
        self._clock = clock
        self._held: Stand | None = None
        self._until = 0.0
        self._thread = ThreadPoolExecutor(1, "lease")  # its own: work that hangs must not keep a renewal waiting

    async def acquire(self) -> None:
        """Wait for it, also for a database that does not answer."""
        sight: Sight | None = None
        told = False
        while self._held is None:
            try:
                sight = look(sight, await self._do(self._read), self._clock())
                if is_free(sight, self._holder, self._clock(), self.term.term) and await self._claim(sight.stand):
                    return
            except Unavailable as error:
                if not told:
                    logger.warning("no lease yet: %s", error, extra={"action": "lease_unknown"})
                told = True
            await asyncio.sleep(self.term.look)

    async def keep(self) -> None:
        """Renew it; never returns. Raises LeaseLost, a margin before another may take it."""
        while self._held is not None:
            await asyncio.sleep(self.term.renew)
            try:
                async with asyncio.timeout_at(self._until):
                    await self._renew(self._held)
            except TimeoutError:
                self._held = None
        raise LeaseLost("The lease could not be renewed.")

    async def give_back(self) -> None:
        """So that nobody need wait for its end. Where the database does not answer they wait."""
        held, self._held = self._held, None
        if held is None:
            return
        try:
            await self._do(self._replace, held, Stand(NOBODY, held.renewals + 1))
        except Unavailable:
            return

    async def _renew(self, held: Stand) -> None:
        """Try until it is done; the caller knows when it is too late. Raises LeaseLost."""
        while True:
            try:
                if not await self._claim(held):
                    self._held = None
                    raise LeaseLost("Another has taken the lease.")
                return
            except Unavailable:
                await asyncio.sleep(self.term.look)

    async def _claim(self, seen: Stand) -> bool:
        """Take it, or renew it, if nobody has since it was seen."""
        began = self._clock()
        mine = Stand(self._holder, seen.renewals + 1)
        if not await self._do(self._replace, seen, mine):
            return False
        self._held, self._until = mine, began + self.term.term - self.term.margin
        return True

    async def _do(self, call: Callable[..., Done], *arguments: Any) -> Done:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _read(self) -> Stand:
        with self._database.reading() as session:
            row = session.get(LeaseRow, NAME)
        return Stand(row.holder, row.renewals) if row else self._first()

    def _first(self) -> Stand:
        nobodys = Stand(NOBODY, 0)
        with self._database.writing() as session:
            upsert(session, LeaseRow, [{"name": NAME, "holder": nobodys.holder, "renewals": nobodys.renewals}])
        return nobodys

    def _replace(self, seen: Stand, new: Stand) -> bool:
        """Whether the row was still as it was seen."""
        same = col(LeaseRow.name) == NAME, col(LeaseRow.holder) == seen.holder, col(LeaseRow.renewals) == seen.renewals
        change = update(LeaseRow).where(*same).values(holder=new.holder, renewals=new.renewals)
        with self._database.writing() as session:
            done: Any = session.execute(change)
            return bool(done.rowcount)


async def reign(lease: Lease, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work while the lease is held, and again whenever it is; until cancelled, or until the work fails.

    A database that does not answer ends a reign, not this: the work must be such that it can be begun anew.
    """
    while True:
        await lease.acquire()
        logger.info("this process reconciles", extra={"action": "lease_taken"})
        try:
            await _while_held(lease, work)
        except (LeaseLost, Unavailable) as over:
            logger.warning("this process reconciles no more: %s", over, extra={"action": "lease_over"})
        await asyncio.sleep(lease.term.look)


async def _while_held(lease: Lease, work: Callable[[], Awaitable[None]]) -> None:
    duties = [asyncio.ensure_future(lease.keep()), asyncio.ensure_future(work())]
    try:
        done, _ = await asyncio.wait(duties, return_when=asyncio.FIRST_COMPLETED)
        for duty in done:
            duty.result()
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        await lease.give_back()
