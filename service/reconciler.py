"""Brings about what the database asks for: load, decide with no session open, apply what still holds.

A process of its own, for a Ray driver dies with Ray. It keeps nothing that it could not find again:
after a restart it takes up the talks with the controllers that run, by their names.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from api_schemas.errors import Unavailable
from api_schemas.exchange import Allocation, Command, Launch
from api_schemas.views import SHORT_OF_SLOTS, Phase, QueuedJob
from service.cluster import Cluster, ClusterError, ClusterUnreachable
from service.conversation import Conversation, Ending, Order, Pace
from service.decisions import Decision, Situation, decide, rooms, shortage
from service.events import Taken
from service.folding import TRAINING, training_on
from service.lifecycle import Happening
from service.parking import Parking
from service.roster import WAITING, Roster, is_due, standing
from service.tables import Job
from service.watch import Watch

RELAUNCHES = 4
"""How often a job's controller is started again without progress in between."""
LOST = "controller_lost"
STOPPING: Mapping[Phase, Literal["pause", "cancel"]] = {Phase.PAUSING: "pause", Phase.CANCELLING: "cancel"}
"""Phases of jobs that want no workers any more, and what their controllers are told. Their slots are for others."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Losses:
    """Controllers that a job lost in a row, without progress in between."""

    count: int
    samples: int  # the farthest that the job ever was
    again_at: float | None  # when to start the next, by the loop's clock; None: it was started


@dataclass(frozen=True, kw_only=True)
class _Talk:
    conversation: Conversation
    task: asyncio.Task[Ending]
    order: Order


class Reconciler:
    """One at a time for a database: `service.lease`."""

    def __init__(
        self,
        roster: Roster,
        cluster: Cluster,
        *,
        policy: str = "priority",
        pace: Pace | None = None,
        parking: Parking | None = None,
    ) -> None:
        self._roster = roster
        self._cluster = cluster
        self._policy = policy
        self._pace = pace or Pace()
        self._watch = Watch(roster, cluster, self._pace)
        self._decision: Decision | None = None
        self._talks: dict[str, _Talk] = {}
        self._losses: dict[str, _Losses] = {}
        self._parking = parking or Parking()

    async def run(self) -> None:
        """Until it is cancelled. Raises ClusterUnreachable, Unavailable where the database does not answer."""
        await self._watch.look()
        try:
            async with asyncio.TaskGroup() as duties:
                duties.create_task(self._watch.keep_catalogue())
                duties.create_task(self._watch.keep_picture(self._queue))
                duties.create_task(self._sweep())
                duties.create_task(self._condense())
                duties.create_task(self._reconcile())
        except* (ClusterUnreachable, Unavailable) as lost:
            raise lost.exceptions[0] from None
        finally:
            for talk in self._talks.values():
                talk.task.cancel()

    async def _reconcile(self) -> None:
        while True:
            jobs = await asyncio.to_thread(self._roster.live)
            situation = self._situation(jobs)
            self._decision = await asyncio.to_thread(decide, situation, self._decision, self._policy)
            for job in jobs:
                await self._apply(job, self._decision)
            self._forget({job.id for job in jobs})
            if self._parking.asked and not self._talks and all(job.phase is Phase.QUEUED for job in jobs):
                self._parking.done()
            await asyncio.sleep(self._pace.tick)

    def _situation(self, jobs: Sequence[Job]) -> Situation:
        wanting = [standing(job) for job in jobs if job.phase not in STOPPING]
        return Situation(at=self._roster.now(), jobs={job.id: job for job in wanting}, rooms=rooms(self._watch.nodes))

    async def _apply(self, job: Job, decision: Decision) -> None:
        """One thing at a time for a job; what it makes necessary is seen in the next round."""
        talk = self._talks.get(job.id)
        if talk and talk.task.done():
            del self._talks[job.id]
            if talk.task.result() is Ending.LOST:
                await self._after_loss(job, talk.conversation.trouble)
        elif is_due(job):
            await asyncio.to_thread(self._roster.promote, job)
        elif job.phase is Phase.QUEUED:
            if talk is None and not self._parking.asked:  # a talk: the incarnation before says goodbye
                await self._admit(job, decision)
        elif talk:
            self._tell(talk, job, self._order(job, decision))
            await self._explain(job, decision)
        else:
            await self._take_up(job, decision)

    async def _admit(self, job: Job, decision: Decision) -> None:
        grant = decision.grants[job.id]
        if grant.workers:
            await self._launch(job, decision)
        else:
            await asyncio.to_thread(self._roster.explain, job, WAITING, grant.reason)

    async def _take_up(self, job: Job, decision: Decision) -> None:
        """Nobody talks to the job: after a restart its controller is there; after a loss it needs another."""
        losses = self._losses.get(job.id)
        if job.phase in STOPPING or losses is None or losses.again_at is None:
            self._begin_talk(job, job.incarnation, Taken(job.acked, job.samples), self._order(job, decision))
        elif self._parking.asked:
            message = "Its controller was lost; another one will start from the last checkpoint."
            await asyncio.to_thread(self._roster.move, job, Happening.PARKED, LOST, message)
        elif not decision.grants[job.id].workers:
            reason = decision.grants[job.id].reason
            await asyncio.to_thread(self._roster.move, job, Happening.PARKED, WAITING, reason)
        elif asyncio.get_running_loop().time() >= losses.again_at:
            await self._launch(job, decision)

    async def _launch(self, job: Job, decision: Decision) -> None:
        launch = await asyncio.to_thread(self._roster.launch, job)
        if launch is None:
            return
        if losses := self._losses.get(job.id):
            self._losses[job.id] = replace(losses, again_at=None)
        what = {"action": "controller_launched", "job": job.id, "incarnation": launch.incarnation}
        logger.info("launching a controller for %s", job.id, extra=what)
        self._begin_talk(job, launch.incarnation, Taken(0, job.samples), self._order(job, decision), launch)

    def _begin_talk(self, job: Job, incarnation: int, taken: Taken, order: Order, launch: Launch | None = None) -> None:
        take = self._roster.take
        conversation = Conversation(job.id, incarnation, taken, order, self._cluster, take, self._pace)
        task = asyncio.create_task(self._converse(conversation, launch))
        self._talks[job.id] = _Talk(conversation=conversation, task=task, order=order)

    async def _converse(self, conversation: Conversation, launch: Launch | None) -> Ending:
        """An error of ours is no reason to start a controller again: the talk is taken up anew."""
        try:
            return await conversation.run(launch)
        except Exception as error:
            what = {"action": "conversation_broke", "job": conversation.job}
            told = "the talk with the controller of %s broke off: %s"
            logger.error(told, conversation.job, error, extra=what, exc_info=not isinstance(error, Unavailable))
            await asyncio.sleep(self._pace.backoff)
            return Ending.FENCED

    def _order(self, job: Job, decision: Decision) -> Order:
        intent = STOPPING.get(job.phase) or ("pause" if self._parking.asked else None)
        if intent is None:
            return Order(intent="train", allocation=decision.allocations[job.id], departures=self._watch.departures())
        if talk := self._talks.get(job.id):
            return replace(talk.order, intent=intent)
        return Order(intent=intent, allocation=_nothing(job))

    def _tell(self, talk: _Talk, job: Job, order: Order) -> None:
        if order != talk.order:
            self._talks[job.id] = replace(talk, order=order)
            talk.conversation.tell(order)
            what = {"action": "order_changed", "job": job.id, "workers": order.allocation.workers}
            logger.info("%s: %s", job.id, order.allocation.reason, extra={**what, "intent": order.intent})

    async def _explain(self, job: Job, decision: Decision) -> None:
        """Say what the job lacks room for, and no more once it has it; all else its controller says."""
        grant = decision.grants.get(job.id)
        if grant is None:
            return
        if job.phase in (Phase.STARTING, Phase.RECOVERING) and not grant.workers:
            await asyncio.to_thread(self._roster.explain, job, WAITING, grant.reason)
        elif job.phase is Phase.RUNNING:
            why = shortage(decision.situation.jobs[job.id], grant)
            if why is not None and (job.code, job.message) != (SHORT_OF_SLOTS, why):
                await asyncio.to_thread(self._roster.explain, job, SHORT_OF_SLOTS, why)
            elif why is None and job.code == SHORT_OF_SLOTS:
                await asyncio.to_thread(self._roster.explain, job, TRAINING, training_on(job.workers))

    async def _after_loss(self, job: Job, trouble: str) -> None:
        """Its controller is gone for good: start another, unless that has become pointless."""
        logger.warning("%s lost its controller: %s", job.id, trouble, extra={"action": LOST, "job": job.id})
        if job.phase is Phase.CANCELLING:
            await self._end(job, Happening.CANCELLED, "cancelled", "Cancelled; its controller was gone.", None)
            return
        if job.phase is Phase.PAUSING:
            message = "Paused; its controller was gone, so it will go on from the last checkpoint."
            await self._end(job, Happening.PAUSED, LOST, message, None)
            return
        before = self._losses.get(job.id)
        count = before.count + 1 if before and job.samples <= before.samples else 1
        if count > RELAUNCHES:
            message = f"Its controller was lost {count} times in a row without progress{_last_words(trouble)}."
            await self._end(job, Happening.FAILED, LOST, message, trouble)
            return
        again_at = asyncio.get_running_loop().time() + self._pace.backoff * 2 ** (count - 1)
        samples = max(job.samples, before.samples if before else 0)
        self._losses[job.id] = _Losses(count=count, samples=samples, again_at=again_at)
        message = "Its controller was lost; another one starts from the last checkpoint."
        await asyncio.to_thread(self._roster.move, job, Happening.CONTROLLER_LOST, LOST, message)

    async def _end(self, job: Job, how: Happening, code: str, message: str, traceback: str | None) -> None:
        await self._kill(job.id)
        await asyncio.to_thread(self._roster.move, job, how, code, message, traceback)

    async def _kill(self, job: str) -> None:
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._cluster.kill(job)
        except (ClusterError, TimeoutError) as error:
            what = {"action": "kill_failed", "job": job}
            logger.warning("the actors of %s could not be killed: %s", job, error, extra=what)

    def _forget(self, live: set[str]) -> None:
        """Jobs that have ended; a talk that still says goodbye is left to it."""
        for job in [job for job, talk in self._talks.items() if job not in live and talk.task.done()]:
            del self._talks[job]
        for job in self._losses.keys() - live:
            del self._losses[job]

    def _queue(self) -> list[QueuedJob]:
        if self._decision is None:
            return []
        return [
            QueuedJob(id=job.id, name=job.name, priority=job.priority, message=self._decision.grants[job.id].reason)
            for job in self._decision.waiting()
        ]

    async def _sweep(self) -> None:
        """Controllers of jobs at rest, whose last acknowledgement got lost: tell them, then kill them."""
        told: set[str] = set()
        while True:
            await asyncio.sleep(self._pace.sweep)
            strays = await self._strays()
            for job in strays:
                if job in told:
                    await self._kill(job)
                else:
                    await self._dismiss(job)
            told = strays

    async def _condense(self) -> None:
        """Behind the intake, so that nobody waits for it."""
        while True:
            await asyncio.sleep(self._pace.condense)
            await asyncio.to_thread(self._roster.condense)

    async def _strays(self) -> set[str]:
        try:
            async with asyncio.timeout(self._pace.answer):
                running = await self._cluster.controllers()
        except (ClusterError, TimeoutError):
            return set()  # whether the cluster is lost, the watch finds out
        live = {job.id for job in await asyncio.to_thread(self._roster.live)}
        return running - live - self._talks.keys()

    async def _dismiss(self, job: str) -> None:
        rests = await asyncio.to_thread(self._roster.at_rest, job)
        if rests is None:
            return
        intent: Literal["pause", "cancel"] = "pause" if rests.phase is Phase.PAUSED else "cancel"
        goodbye = Command(
            job=job,
            incarnation=rests.incarnation,
            intent=intent,
            allocation=_nothing(rests),
            acked=rests.acked,
            samples=rests.samples,
        )
        try:
            async with asyncio.timeout(self._pace.answer):
                await self._cluster.exchange(goodbye)
        except (ClusterError, TimeoutError):
            return  # killed in the next round


def _nothing(job: Job) -> Allocation:
    """For a controller that is to stop."""
    return Allocation(workers=0, kappa=job.spec["elasticity"]["kappa"], cause="api", requested_at=job.updated_at)


def _last_words(trouble: str) -> str:
    """What a traceback ends with, as the end of a sentence."""
    lines = trouble.strip().splitlines()
    return f": {lines[-1].strip().rstrip('.')}" if lines else ""
