"""The workers of a job as their controller sees them: each is looked at by a task of its own, all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from typing import Protocol

from workers import stalls
from workers.membership import Plan
from workers.spool import KEEP_S
from workers.status import Phase, Status

LOOK_S = 0.25
"""How long a look waits for news: how often progress is seen."""
NEVER = -1
"""The version of a worker that nobody has seen yet."""
WARMING_SILENCE = 6.0
"""Stall times that one which warms up may be silent, and others one: imports may keep Python's lock for long."""
LATE_S = 1.0
"""A look that is given up so much later than it should be says nothing about the worker."""
DURABLE_S = 0.02
"""How often it is looked whether what one that has left told is durable."""
TELL_S = 1.0
"""How long telling everybody may take: whoever is silent must not hold up the others."""

logger = logging.getLogger(__name__)


class WorkerGone(Exception):
    """The worker does not live any more."""


class Crew(Protocol):
    """The workers, wherever they live. All but `adopt`, `start` and `kill` raise WorkerGone."""

    async def adopt(self) -> dict[str, bool]:
        """The workers that an earlier life of this controller started, the oldest first, and whether each lives yet."""

    async def start(self, worker: str) -> None:
        """Have a worker started; returns before it lives."""

    async def poll(self, worker: str, *, version: int, heard: int, seen: int, wait_s: float) -> Status:
        """As `Member.poll`; waits until the worker lives."""

    async def announce(self, worker: str, plan: Plan) -> None:
        """As `Member.announce`."""

    async def sever(self, worker: str, generation: int) -> None:
        """As `Member.sever`."""

    async def retire(self, worker: str, generation: int) -> None:
        """As `Member.retire`."""

    async def kill(self, worker: str) -> None:
        """End the worker, whatever it does; one that is gone is no error."""


@dataclass(frozen=True)
class _Order:
    """What workers are told. To hear it twice is as good as once."""

    tell: Callable[[str], Awaitable[None]]
    is_unheard: Callable[[Status], bool]  # as far as its status tells: whether it is to be told again


class Roll:
    """Who lives, and how each is. One that has not answered yet counts as warming."""

    def __init__(
        self,
        crew: Crew,
        *,
        cursors: Callable[[str], tuple[int, int]],
        on_status: Callable[[str, Status], None],
        on_loss: Callable[[str, str], None],
        is_kept: Callable[[str, Status], bool],
        stall_s: float | None = None,
    ) -> None:
        """`cursors(worker)`: the last record and the last point of it that are durable. `on_loss(worker, reason)`: it
        is still on the roll then, as it was seen last. `is_kept(worker, status)`: whether what it told is durable,
        so that it may go. `stall_s`: the stall time, if the job names one.
        """
        self.workers: dict[str, Status] = {}
        self.news = asyncio.Event()
        self._crew = crew
        self._cursors = cursors
        self._on_status = on_status
        self._on_loss = on_loss
        self._is_kept = is_kept
        self._stall_s = stall_s
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._called: set[str] = set()  # to some generation
        self._messengers: set[asyncio.Task[None]] = set()  # the loop itself keeps none of its tasks

    async def adopt(self) -> dict[str, Status | None]:
        """Take over those who were started; returns when each that lives has answered, or is given up: all of them,
        and how each was. Some may have left, and be on the roll no longer.
        """
        workers = await self._crew.adopt()
        self._called.update(workers)
        looks = {worker: self._watch(worker, lives=lives) for worker, lives in workers.items()}
        return {worker: await looks[worker] if lives else None for worker, lives in workers.items()}

    async def start(self, worker: str) -> None:
        """One more worker."""
        await self._crew.start(worker)
        self._watch(worker, lives=False)

    async def dismiss(self, worker: str) -> None:
        """End a worker; it counts as gone at once, and not as lost."""
        self.workers.pop(worker, None)
        watch = self._watches.pop(worker, None)
        if watch is not None:
            watch.cancel()
        await self._crew.kill(worker)

    async def give_up(self, worker: str, reason: str) -> None:
        """End a worker that answers, and is of no use: it counts as lost."""
        if worker not in self.workers:  # it was lost, or has left, meanwhile
            return
        self._watches.pop(worker).cancel()
        await self._lose(worker, reason)

    async def dismiss_all(self) -> None:
        """End everybody."""
        await asyncio.gather(*(self.dismiss(worker) for worker in list(self.workers)))

    async def see_off(self) -> None:
        """Returns once everybody who has left is gone."""
        for outcome in await asyncio.gather(*self._watches.values(), return_exceptions=True):
            if isinstance(outcome, Exception):
                logger.error("a worker that left could not be ended", exc_info=outcome, extra={"action": "end_failed"})

    async def announce(self, plan: Plan) -> None:
        """Tell its members of a generation, and those who leave with it: who was called to an earlier one."""
        self._called.update(plan.members)

        def is_unheard(status: Status) -> bool:
            return max(status.generation, status.pending, status.broken) < plan.generation

        await self._tell(_Order(lambda worker: self._crew.announce(worker, plan), is_unheard), self._called)

    async def sever(self, generation: int) -> None:
        """Free everybody from a generation that is broken."""

        def is_unheard(status: Status) -> bool:
            return status.broken < generation

        await self._tell(_Order(lambda worker: self._crew.sever(worker, generation), is_unheard))

    async def retire(self, generation: int) -> None:
        """Have all come to an end, with a checkpoint of this generation, in which they train."""

        def is_unheard(status: Status) -> bool:
            return status.phase is Phase.TRAINING and status.generation == generation

        await self._tell(_Order(lambda worker: self._crew.retire(worker, generation), is_unheard))

    async def _tell(self, order: _Order, whom: Collection[str] | None = None) -> None:
        """All who are warm, or of them these; returns when all have answered, or after TELL_S."""
        warm = [worker for worker, status in self.workers.items() if status.phase is not Phase.WARMING]
        tasks = [self._send(self._tell_one(worker, order)) for worker in warm if whom is None or worker in whom]
        if tasks:
            await asyncio.wait(tasks, timeout=TELL_S)

    def _send(self, errand: Coroutine[None, None, None]) -> asyncio.Task[None]:
        messenger = asyncio.create_task(errand)
        self._messengers.add(messenger)
        messenger.add_done_callback(self._messengers.discard)
        return messenger

    async def _tell_one(self, worker: str, order: _Order) -> None:
        """One that is gone by now is noticed by its watch, and so is one that does not answer. A connection may have
        broken alone: whoever stays on the roll is told again. Whoever cannot do as it is told is given up.
        """
        try:
            await order.tell(worker)
        except WorkerGone:
            self._send(self._tell_again(worker, order))
        except Exception as error:
            logger.exception("%s could not be told", worker, extra={"action": "tell_failed"})
            await self.give_up(worker, _answered(error))

    async def _tell_again(self, worker: str, order: _Order) -> None:
        """After a look at it, if it lives and has not heard."""
        await asyncio.sleep(LOOK_S)
        if worker in self.workers and order.is_unheard(self.workers[worker]):
            await self._tell_one(worker, order)

    def _watch(self, worker: str, *, lives: bool) -> asyncio.Future[Status | None]:
        """Look at a worker from now on; returns what is seen first, which is None where it is gone."""
        self.workers[worker] = Status(phase=Phase.WARMING, version=NEVER)
        looked: asyncio.Future[Status | None] = asyncio.get_running_loop().create_future()
        self._watches[worker] = asyncio.create_task(self._look(worker, looked, lives=lives))
        return looked

    async def _look(self, worker: str, looked: asyncio.Future[Status | None], *, lives: bool) -> None:
        """Until the worker is gone. Before it `lives` it may wait for resources as long as it takes."""
        version, clock = NEVER, asyncio.get_running_loop().time
        try:
            while self.workers[worker].phase is not Phase.LEFT:
                heard, seen = self._cursors(worker)
                # Not wait_for: in Python 3.11 that loses a cancellation which comes at the same moment as the answer.
                until = clock() + LOOK_S + self._allowed_s(worker) if lives else None
                try:
                    async with asyncio.timeout_at(until):
                        status = await self._crew.poll(worker, version=version, heard=heard, seen=seen, wait_s=LOOK_S)
                except TimeoutError:
                    if until is None or clock() - until < LATE_S:
                        raise
                    continue  # it was this process that stood still, and what answered was not heard
                lives = True
                news = status.version != version
                version, self.workers[worker] = status.version, status
                self._on_status(worker, status)
                if not looked.done():
                    looked.set_result(status)
                if news:
                    self.news.set()
        except WorkerGone as gone:
            await self._lose(worker, str(gone))
        except TimeoutError:
            await self._lose(worker, f"It has not answered for {self._allowed_s(worker):.3g} s.")
        except Exception as error:
            logger.exception("a look at %s failed", worker, extra={"action": "look_failed"})
            await self._lose(worker, _answered(error))
        else:
            await self._part(worker)
        finally:
            if not looked.done():
                looked.set_result(None)

    def _allowed_s(self, worker: str) -> float:
        """How long the worker may be silent."""
        status = self.workers[worker]
        warms = status.phase is Phase.WARMING and status.version != NEVER
        return stalls.stall_s(self.workers, self._stall_s) * (WARMING_SILENCE if warms else 1.0)

    async def _part(self, worker: str) -> None:
        """It has left, and counts as gone. What it told last, another life of this controller hears from nobody else
        before that is durable.
        """
        status, clock = self.workers.pop(worker), asyncio.get_running_loop().time
        until = clock() + KEEP_S
        while not self._is_kept(worker, status) and clock() < until:
            await asyncio.sleep(DURABLE_S)
        try:
            await self._crew.kill(worker)
        finally:
            self._watches.pop(worker, None)

    async def _lose(self, worker: str, reason: str) -> None:
        self._on_loss(worker, reason)
        self._watches.pop(worker, None)
        self.workers.pop(worker, None)
        self.news.set()
        await self._crew.kill(worker)


def _answered(error: Exception) -> str:
    return f"It answered with {type(error).__name__}: {error}"
