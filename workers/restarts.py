"""The engine of those who standardise on Ray Train: at every change of size the workers end, and others begin.

    the service's command           ->  desk  ─┐
    workers: enter, hear, lose      ───────────┴->  a round: begin a run, have it leave, judge how it ended

A run is a training by groups of workers that somebody else (`Runs`) starts, watches, and starts anew where some die;
each such group is a generation. For another size the group is asked to leave a checkpoint and go, and the next run goes
on from there, so a change that was asked for loses no step. After a death a group begins at the last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from api_schemas.exchange import Allocation, Command, Launch, Report
from workers.chronicle import RESUMED, Chronicle
from workers.departures import left, sentence
from workers.desk import Desk
from workers.losses import WENT_WITH_NODE, Losses
from workers.membership import Plan
from workers.spool import Spool
from workers.status import Phase, Status


class RunFailed(Exception):
    """A run came to an end that nobody asked for."""


class Runs(Protocol):
    """The groups of workers, wherever they live."""

    async def train(self, fewest: int, most: int) -> None:
        """Train, on at most so many workers, until they have left or the budget is used up. Raises RunFailed."""

    async def kill(self) -> None:
        """End the run and its workers at once; none is no error."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a worker hears when it has told how it is."""

    heard: int  # its last record that is durable
    seen: int  # samples of the last point that is durable
    leave_at: int | None  # leave a checkpoint and go, at the first step that ends there or later
    stale: bool = False  # its group was given up


class Restarts:
    """One incarnation of a job. `enter`, `hear` and `lose` are for its workers; all runs on one event loop."""

    def __init__(
        self, launch: Launch, runs: Runs, spool: Spool, chronicle: Chronicle, *, now: Callable[[], datetime]
    ) -> None:
        self._launch = launch
        self._runs = runs
        self._chronicle = chronicle
        self._news = asyncio.Event()
        self._desk = Desk(
            launch, spool, chronicle, news=self._news, workers=lambda: self._group.values(), end=self._end, now=now
        )
        self._losses = Losses(now)
        self._run: asyncio.Task[None] | None = None
        self._begun_for: Allocation | None = None  # what the present run was begun for, or the last
        self._answered: Allocation | None = None  # the allocation that a generation was made for
        self._leave_at: int | None = None  # asked of the present run
        self._lost = ""  # why the last group came to its end, where nobody asked for it
        self._parted = ""  # why it was asked to leave, where that was for the sake of a node
        self._told = False  # that the next generation is on its way
        self._plan: Plan | None = None  # the newest generation
        self._group: dict[str, Status] = {}  # its workers

    async def exchange(self, command: Command) -> Report:
        """As `Desk.exchange`."""
        return await self._desk.exchange(command)

    def is_over(self, acked: int) -> bool:
        """As `Desk.is_over`."""
        return self._desk.is_over(acked)

    async def run(self) -> None:
        """Until the job has come to an end."""
        await self._desk.run(self._begin, self._round)
        await self._desk.close()

    # -- the workers' side ---------------------------------------------------------------------------------------------

    async def enter(self, world: int) -> Plan:
        """A group of so many workers is there, and asks what generation it is."""
        assert self._begun_for is not None, "there is a run"
        cause, reason, decide_s = self._why(self._begun_for)
        chronicle = self._chronicle
        if chronicle.started and not self._told:
            before = len(self._plan.members) if self._plan else world
            chronicle.say("resizing", workers=(before, world), cause=cause, reason=reason)
        chronicle.announced += 1
        first, chronicle.named = chronicle.named, chronicle.named + world
        self._plan = Plan(
            generation=chronicle.announced,
            members=tuple(f"w{number}" for number in range(first, first + world)),
            kappa=self._begun_for.kappa,
            cause=cause,
            reason=reason,
            decide_s=decide_s,
        )
        self._answered, self._lost, self._parted, self._told = self._begun_for, "", "", False
        self._group = {worker: Status(phase=Phase.WARMING) for worker in self._plan.members}
        return self._plan

    async def hear(self, worker: str, status: Status) -> Reply:
        """A worker tells how it is, and hears what is wanted of it."""
        heard, seen = self._chronicle.heard(worker), self._chronicle.seen
        if worker not in self._group:
            return Reply(heard=heard, seen=seen, leave_at=None, stale=True)
        self._group[worker] = status
        self._chronicle.hear(worker, status)
        self._news.set()
        return Reply(heard=heard, seen=seen, leave_at=self._leave_at)

    async def lose(self, reasons: Mapping[int, str]) -> None:
        """The present group is being given up; why, by rank."""
        if self._plan is None or not self._group:
            return
        for rank, reason in sorted(reasons.items()):
            told = f"Worker {self._plan.members[rank]} was lost: {reason}"
            self._chronicle.say("rank_lost", rank=rank, reason=told)
            self._lost = self._lost or told
        self._count_loss(with_node=all(reason in WENT_WITH_NODE for reason in reasons.values()))
        self._news.set()

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Workers of an earlier life of this controller have ended with it."""
        await self._runs.kill()
        if self._chronicle.started:
            self._lost = "The job's controller was lost, and its workers with it."

    async def _round(self) -> None:
        failure = next((status.failure for status in self._group.values() if status.failure), None)
        if failure is not None:
            await self._desk.fail(failure)
        elif self._desk.pauses and not self._is_leaving():
            await self._desk.pause()
        elif self._losses.too_many:
            message = f"Workers were lost again and again before a sample was trained on. {self._losses.reason}"
            await self._desk.finish("failed", "workers_lost", message)
        elif self._run is not None and self._run.done():
            await self._judge(self._run)
        elif self._desk.pauses:
            self._leave_at = 0
        elif (allocation := self._desk.allocation) is not None:
            self._steer(allocation)

    def _is_leaving(self) -> bool:
        """Whether a run that is asked to leave still has something to save, or to tell."""
        holders = any(status.samples >= 0 for status in self._group.values())
        return self._run is not None and (holders or self._run.done())

    async def _judge(self, run: asyncio.Task[None]) -> None:
        """How a run ended, and what follows."""
        self._run = None
        error = run.exception()
        if error is not None and not isinstance(error, RunFailed):
            raise error
        if error is not None:
            self._lost = self._lost or str(error)
            self._count_loss()
        elif self._chronicle.exported:
            await self._desk.finish("succeeded", "finished", "The budget is used up.")
        self._group = {}

    def _count_loss(self, *, with_node: bool = False) -> None:
        status = max(self._group.values(), key=lambda status: status.samples, default=Status(phase=Phase.WARMING))
        named, committed = self._chronicle.named, self._chronicle.committed
        self._losses.add(named - 1, self._lost, status, named=named, committed=committed, with_node=with_node)
        self._group = {}

    def _steer(self, allocation: Allocation) -> None:
        """Bring the job to the size that it is to have."""
        if self._run is None:
            if self._losses.since_s >= self._losses.backoff_s:
                fewest = min(self._launch.spec.elasticity.workers[0], allocation.workers)
                self._run = asyncio.create_task(self._runs.train(fewest, allocation.workers))
                self._run.add_done_callback(lambda _: self._news.set())
                self._begun_for, self._leave_at = allocation, None
        elif nodes := left(self._desk.departures, self._group.values()):
            self._parted = sentence(self._desk.departures, nodes)
            self._ask_to_leave(allocation.model_copy(update={"not_before": None}))
        elif not self._fits(allocation):
            self._ask_to_leave(allocation)
        else:
            self._leave_at = None

    def _fits(self, allocation: Allocation) -> bool:
        assert self._begun_for is not None, "there is a run"
        return (allocation.workers, allocation.kappa) == (self._begun_for.workers, self._begun_for.kappa)

    def _ask_to_leave(self, allocation: Allocation) -> None:
        if self._leave_at is None and self._plan is not None and not allocation.not_before:
            self._told = True
            sizes = (len(self._plan.members), allocation.workers)
            cause, reason, _ = self._why(allocation)
            self._chronicle.say("resizing", workers=sizes, cause=cause, reason=reason)
        self._leave_at = allocation.not_before or 0

    def _why(self, allocation: Allocation) -> tuple[str, str, float]:
        """Cause, reason, and the seconds from the request, or from the loss, to the decision."""
        if self._lost:
            return "rank_lost", self._lost, self._losses.since_s
        if self._parted:
            return "drain", self._parted, 0.0
        if self._chronicle.resumes and not self._chronicle.started:
            return *RESUMED, self._desk.decide_s(allocation)
        if allocation == self._answered:
            return "joined", "Another number of workers found room.", 0.0
        return allocation.cause, allocation.reason, self._desk.decide_s(allocation)

    async def _end(self) -> None:
        await self._runs.kill()
        if self._run is not None:
            self._run.cancel()
            with contextlib.suppress(asyncio.CancelledError, RunFailed):
                await self._run
        self._group = {}
