"""Runs of `workers.restarts` without Ray Train: groups that train by adding numbers, and end in every way."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.workers.crew import STEP, change
from workers.journal import Journal
from workers.membership import Plan
from workers.restarts import Reply, Restarts, RunFailed
from workers.status import Failure, Phase, Status


class Troupe:
    """What a test tells it to do happens to the group that trains, at its next step."""

    conductor: Restarts

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.groups: list[Plan] = []
        self.checkpoint = 0
        self.room: int | None = None  # for so many workers; None: for all
        self.over = False  # the budget is used up
        self.deaf = False  # nobody tells how it is
        self.killed = 0  # runs that the conductor ended
        self.samples = -1
        self.node = "here"  # where groups live that begin from now on
        self._home = self.node
        self._fate: tuple[str, Any] = ("", None)
        self._task: asyncio.Task[None] | None = None

    @property
    def trains(self) -> bool:
        """A group does, and has done a step."""
        return self.samples > self.checkpoint

    def die(self, rank: int, reason: str = "It was killed.") -> None:
        """A worker; Ray Train starts the group anew."""
        self._fate = ("die", {rank: reason})

    def resize(self) -> None:
        """Ray Train ends the group and starts another, without a word."""
        self._fate = ("die", {})

    def fail(self) -> None:
        """The recipe raises."""
        failure = Failure(code="recipe_raised", message="The recipe raised.", traceback="Here.", log_tail=["last"])
        self._fate = ("fail", failure)

    def collapse(self) -> None:
        """Ray Train itself gives up."""
        self._fate = ("collapse", None)

    # -- Runs ----------------------------------------------------------------------------------------------------------

    async def train(self, fewest: int, most: int) -> None:
        self.runs.append((fewest, most))
        self._task = asyncio.create_task(self._train(most))
        try:
            await self._task
        except asyncio.CancelledError:
            if (me := asyncio.current_task()) and me.cancelling():
                raise
            raise RunFailed("It was ended.") from None

    async def kill(self) -> None:
        if self._task is not None and not self._task.done():
            self.killed += 1
            self._task.cancel()

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _train(self, most: int) -> None:
        while await self._generation(min(most, self.room or most)) == "died":
            pass

    async def _generation(self, world: int) -> str:
        plan = await self.conductor.enter(world)
        journal, reply = Journal(), Reply(heard=0, seen=0, leave_at=None)
        self.groups.append(plan)
        self._home = self.node
        self.samples = self.checkpoint
        journal.record("entered", restored=True, **change(plan, self.samples, world, world))
        while True:
            await asyncio.sleep(0.002)
            kind, what = self._fate
            self._fate = ("", None)
            if kind == "die":
                if what:
                    await self.conductor.lose(what)
                return "died"
            if kind == "collapse":
                raise RunFailed("Ray Train gave up.")
            self.samples += STEP * world
            phase = Phase.FAILED if kind == "fail" else Phase.TRAINING
            reply = await self._tell(plan, journal, reply, phase, what if kind == "fail" else None)
            if kind == "fail":
                await asyncio.Event().wait()
            leaves = reply.leave_at is not None and self.samples >= reply.leave_at
            if leaves or self.over:
                self.checkpoint = self.samples
                journal.record("checkpoint_saved", samples=self.samples, name=str(self.samples), bytes=1)
                if self.over:
                    journal.record("exported", artifacts={"model.safetensors": "/model.safetensors"})
                while journal.records(reply.heard):
                    await asyncio.sleep(0.002)
                    reply = await self._tell(plan, journal, reply, Phase.DONE if self.over else Phase.LEFT)
                return "done"

    async def _tell(
        self, plan: Plan, journal: Journal, reply: Reply, phase: Phase, failure: Failure | None = None
    ) -> Reply:
        if self.deaf:
            return reply
        for rank, worker in enumerate(plan.members):
            status = Status(
                phase=phase,
                node=self._home,
                generation=plan.generation,
                members=plan.members,
                samples=self.samples,
                committed=self.samples,
                records=tuple(journal.records(reply.heard)) if rank == 0 else (),
                failure=failure if rank == 0 else None,
            )
            told = await self.conductor.hear(worker, status)
            reply = told if rank == 0 else reply
        return reply
