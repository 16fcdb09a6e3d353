"""The talk with one job's controller: ask, commit what it says, acknowledge with the next question.

Nothing is acknowledged before it is committed, and nothing committed twice, so a talk may break off
anywhere and be taken up again by another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from api_schemas.exchange import Allocation, Command, Departure, Launch, Report
from service.cluster import Cluster, ClusterError, ControllerGone, ControllerSilent, LaunchFailed
from service.events import Stale, Taken

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long the reconciler waits for what, in seconds."""

    tick: float = 0.1  # between two looks at the database
    nodes: float = 1.0  # between two looks at the cluster
    poll: float = 0.25  # an exchange without news
    rest: float = 0.1  # at least, between two exchanges
    answer: float = 5.0  # beyond `poll`, until an exchange counts as unanswered
    absence: float = 1.5  # without a controller of that name, or with one that fails, until it counts as lost
    silence: float = 60.0  # without an answer, until the controller counts as lost
    launch: float = 120.0  # until a launch counts as failed
    cancel: float = 60.0  # for a controller to end its job, until its actors are killed
    backoff: float = 0.5  # before the first relaunch; doubles
    sweep: float = 10.0  # between two looks for controllers that nobody talks to
    condense: float = 5.0  # between two looks for curves that have grown
    catalogue: float = 60.0  # for the nodes to list their recipes, and before they are asked again


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the job's controller is to do."""

    intent: Literal["train", "pause", "cancel"]
    allocation: Allocation
    departures: tuple[Departure, ...] = ()


class Ending(StrEnum):
    """How a talk ended."""

    DONE = "done"  # the controller has nothing more to say
    LOST = "lost"  # it does not answer, and counts as gone
    FENCED = "fenced"  # the job has another incarnation by now, or is deleted


class Conversation:
    """The talk with one incarnation of one job."""

    def __init__(
        self,
        job: str,
        incarnation: int,
        taken: Taken,
        order: Order,
        cluster: Cluster,
        take: Callable[[Report], Taken],
        pace: Pace,
    ) -> None:
        """`take` commits a report and returns what is committed now; it blocks, and raises Stale."""
        self.job = job
        self.incarnation = incarnation
        self.trouble = ""  # why it was lost
        self._taken = taken
        self._order = order
        self._cluster = cluster
        self._take = take
        self._pace = pace
        self._changed = asyncio.Event()
        self._cancel_by: float | None = None

    def tell(self, order: Order) -> None:
        """What is to be done from now on. A change is sent at once, an exchange that waits is abandoned."""
        if order != self._order:
            self._order = order
            self._changed.set()

    async def run(self, launch: Launch | None = None) -> Ending:
        """Talk until there is nothing more to say; `launch`: start the controller first."""
        if launch is not None and not await self._launch(launch):
            return Ending.LOST
        try:
            while report := await self._ask():
                self._taken = await asyncio.to_thread(self._take, report) if report.events else self._taken
                if report.done and self._is_acked(report):
                    await self._farewell()
                    return Ending.DONE
        except Stale as stale:
            logger.info("no more talk: %s", stale, extra={"action": "controller_fenced", "job": self.job})
            return Ending.FENCED
        return Ending.LOST

    async def _launch(self, launch: Launch) -> bool:
        try:
            async with asyncio.timeout(self._pace.launch):
                await self._cluster.launch(launch)
        except (LaunchFailed, TimeoutError) as error:
            self.trouble = str(error) or f"The controller did not start within {self._pace.launch:g} s."
            return False
        return True

    async def _ask(self) -> Report | None:
        """The next report; None: the controller is lost."""
        asked = asyncio.get_running_loop().time()
        gone: float | None = None  # since when there is none
        while not self._is_over(asked, gone):
            began = asyncio.get_running_loop().time()
            try:
                report = await self._exchange()
                gone = None
            except ControllerGone as error:
                report, self.trouble = None, str(error)
                gone = gone or began
            except (ControllerSilent, TimeoutError) as error:
                report, self.trouble, gone = None, str(error), None
            await self._rest(began)
            if report is not None:
                return report
        return None

    def _is_over(self, asked: float, gone: float | None) -> bool:
        """Whether it was waited long enough, since the question and since nobody is there to answer it."""
        now = asyncio.get_running_loop().time()
        if self._order.intent == "cancel" and self._cancel_by is None:
            self._cancel_by = now + self._pace.cancel
        late = self._cancel_by is not None and now > self._cancel_by
        return late or now - asked > self._pace.silence or (gone is not None and now - gone > self._pace.absence)

    async def _exchange(self) -> Report | None:
        """One question and its answer; None: the order changed before it came. Raises ControllerGone, TimeoutError."""
        self._changed.clear()
        answer = asyncio.ensure_future(self._cluster.exchange(self._command(self._pace.poll)))
        changed = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait(
                {answer, changed}, timeout=self._pace.poll + self._pace.answer, return_when=asyncio.FIRST_COMPLETED
            )
            if answer.done():
                return answer.result()
            if changed.done():
                return None
            raise TimeoutError(f"The controller has not answered for {self._pace.answer:g} s.")
        finally:
            answer.cancel()
            changed.cancel()

    async def _rest(self, began: float) -> None:
        """Keep a distance between exchanges, unless there is something to say."""
        left = began + self._pace.rest - asyncio.get_running_loop().time()
        if left > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()

    def _is_acked(self, report: Report) -> bool:
        return all(event.sequence <= self._taken.acked for event in report.events)

    async def _farewell(self) -> None:
        """Acknowledge the last event: the controller goes, perhaps before it answers."""
        with contextlib.suppress(ClusterError, TimeoutError):
            async with asyncio.timeout(self._pace.answer):
                await self._cluster.exchange(self._command(0))

    def _command(self, wait_s: float) -> Command:
        return Command(
            job=self.job,
            incarnation=self.incarnation,
            intent=self._order.intent,
            allocation=self._order.allocation,
            departures=self._order.departures,
            acked=self._taken.acked,
            samples=self._taken.samples,
            wait_s=wait_s,
        )
