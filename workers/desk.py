"""Where the service's commands come in and a job's history goes out, whichever engine brings it to its size."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from api_schemas.exchange import Allocation, Command, Departure, Launch, Report
from workers.chronicle import Chronicle
from workers.spool import KEEP_S, Event, Spool
from workers.status import Failure, Phase, Status
from workers.storage import StorageError

ROUND_S = 0.25
"""Between two rounds without news: how often progress is told."""
TRIM_S = 1.0
"""How long an answer waits, at most, for storage to drop what the service has."""
REPORT_LIMIT = 500
"""Events of one report."""

logger = logging.getLogger(__name__)


class Desk:
    """The side of a controller that faces the service: its commands, and the chronicle on its way to the spool."""

    def __init__(
        self,
        launch: Launch,
        spool: Spool,
        chronicle: Chronicle,
        *,
        news: asyncio.Event,
        workers: Callable[[], Iterable[Status]],
        end: Callable[[], Awaitable[None]],
        now: Callable[[], datetime],
    ) -> None:
        """`news` starts the next round, and is set by each command. `end` returns once nobody trains any more."""
        self.allocation = allocation_of(chronicle.wished)  # another life goes on with the last wish
        self.departures: tuple[Departure, ...] = ()
        self._launch = launch
        self._spool = spool
        self._chronicle = chronicle
        self._news = news
        self._workers = workers
        self._end = end
        self._now = now
        self.pauses = False  # the job is to stop, with a checkpoint
        self.ends = False  # it has come to its end, and that is about to be said
        self._closed = False  # its workers are gone too
        self._cancelled = False
        self._told_at = now()  # when the allocation came
        self._writing: asyncio.Task[None] | None = None
        self._broken: Exception | None = None  # why a write could not be, storage apart
        self._trimming: asyncio.Task[None] | None = None
        self._written = asyncio.Condition()

    async def exchange(self, command: Command) -> Report:
        """Take a command; report what happened beyond what the service has, or wait for it."""
        self._cancelled = self._cancelled or command.intent == "cancel"
        self.pauses = self.pauses or command.intent == "pause"
        if command.intent == "train" and command.allocation != self.allocation:
            self.allocation, self._told_at = command.allocation, self._now()
            self._chronicle.wished = self.allocation.model_dump(mode="json")
        self.departures = command.departures
        self._chronicle.catch_up(command.acked, command.samples)
        if self._spool.in_doubt:
            self._write_on()
        self._news.set()
        if self._trimming is None or self._trimming.done():
            self._trimming = asyncio.create_task(self._trim(command.acked))
        await asyncio.wait({self._trimming}, timeout=TRIM_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(command.wait_s), self._written:
                await self._written.wait_for(lambda: self._closed or self._spool.after(command.acked, 1))
        return self._report(command.acked)

    def is_over(self, acked: int) -> bool:
        """Whether the service has all that there is to know, and nobody is left."""
        return self._closed and not self._chronicle.pending and acked >= self._spool.last

    async def close(self) -> None:
        """After `run`: the job's workers are gone, and so may the controller be."""
        self._closed = True
        async with self._written:
            self._written.notify_all()

    async def run(self, begin: Callable[[], Awaitable[None]], play: Callable[[], Awaitable[None]]) -> None:
        """`begin`, then `play` round after round until the job is finished or cancelled.

        What goes wrong there fails the job, and says so.
        """
        try:
            await begin()
            while not self._chronicle.finished:
                self._news.clear()
                if self._broken is not None:
                    raise self._broken
                if self._cancelled:
                    await self.finish("cancelled", "cancelled", "Cancelled on request.")
                else:
                    await play()
                if self._chronicle.pending:
                    self._write_on()
                await self._rest()
        except Exception as error:
            logger.exception("the controller failed", extra={"action": "controller_failed", "job": self._launch.job})
            message = f"The controller failed: {type(error).__name__}: {error}"
            await self.finish("failed", "controller_failed", message, traceback=traceback.format_exc())
        while self._chronicle.pending:
            await asyncio.wait({self._write_on()})

    async def finish(self, outcome: str, code: str, message: str, **details: Any) -> None:
        """Say how the job ended, once nobody trains any more, and what they told is durable, if storage answers."""
        self.ends = True
        try:
            await self._flush()
        finally:
            await self._end()
        self._chronicle.say("finished", outcome=outcome, code=code, message=message, **details)

    async def pause(self) -> None:
        """The job stops here, to go on in another incarnation; one that has exported its weights has ended."""
        chronicle = self._chronicle
        if chronicle.exported:
            await self.finish("succeeded", "finished", "The budget is used up.")
        elif chronicle.is_saved:
            await self.finish("paused", "paused", f"Paused at sample {chronicle.saved}, with a checkpoint of it.")
        elif chronicle.started:
            message = "Paused; its workers were lost meanwhile, so it will go on from the last checkpoint."
            await self.finish("paused", "workers_lost", message)
        else:
            await self.finish("paused", "paused", "Paused before it trained.")

    async def fail(self, failure: Failure) -> None:
        """The job ended as this worker did."""
        details = {"traceback": failure.traceback, "log_tail": failure.log_tail}
        await self.finish("failed", failure.code, failure.message, **details)

    def decide_s(self, allocation: Allocation) -> float:
        """Seconds from the request of the present allocation until it came here."""
        return max(0.0, (self._told_at - allocation.requested_at).total_seconds())

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._chronicle.finished else ROUND_S):
                await self._news.wait()

    async def _flush(self) -> None:
        """Until what was said so far is durable, or storage has refused it, or has not answered for `KEEP_S`."""
        said = self._chronicle.told()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEEP_S):
                while self._chronicle.pending and self._spool.last < said:
                    await asyncio.wait({self._write_on()})

    def _write_on(self) -> asyncio.Task[None]:
        """Write beside the rounds what was said: storage that hangs holds up the history, and nothing else."""
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(*self._chronicle.collect()))
        return self._writing

    async def _write(self, events: Sequence[Event], notes: dict[str, Any]) -> None:
        """Make them durable, and hand them out. Storage that fails is tried again; the job goes on."""
        try:
            if events:
                await asyncio.to_thread(self._spool.append, events, notes)
        except StorageError as error:
            logger.warning("events are not durable: %s", error, extra={"action": "spool_failed"})
        except Exception as error:
            logger.exception("events could not be written", extra={"action": "spool_broke"})
            self._broken = error
        async with self._written:
            self._written.notify_all()
        self._news.set()

    async def _trim(self, acked: int) -> None:
        """Forget what the service has."""
        try:
            await asyncio.to_thread(self._spool.trim, acked)
        except Exception as error:
            logger.warning("acknowledged events stay: %s", error, extra={"action": "spool_trim_failed"})

    def _report(self, acked: int) -> Report:
        events = self._spool.after(acked, REPORT_LIMIT)
        said = not self._chronicle.pending and (not events or events[-1]["sequence"] == self._spool.last)
        phases = [status.phase for status in self._workers()]
        return Report.model_validate(
            {
                "job": self._launch.job,
                "incarnation": self._launch.incarnation,
                "generation": self._chronicle.generation,
                "workers": phases.count(Phase.TRAINING),
                "joining": phases.count(Phase.WARMING),
                "samples": self._chronicle.committed,
                "done": self._closed and said,
                "events": events,
            }
        )


def allocation_of(note: dict[str, Any] | None) -> Allocation | None:
    """What the chronicle keeps of it."""
    return None if note is None else Allocation.model_validate(note)
