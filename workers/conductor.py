"""What a controller does: brings the workers of one job to the size that is wished for, and tells what happened.

    looks at all workers  ->  how each is           ┐
    the service's command ->  what is wished for    ┴->  `membership.next_move` (pure)  ->  start, announce, dismiss

It never waits for one worker, and whatever changes starts the next round. The workers live beyond its reach (`Crew`):
on Ray, or as processes of a test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime

from api_schemas.exchange import Allocation, Command, Launch, Report
from api_schemas.jobs import kappa_at
from workers.chronicle import RESUMED, Chronicle
from workers.departures import left, sentence, urgent
from workers.desk import Desk, allocation_of
from workers.losses import WENT_WITH_NODE, Losses
from workers.membership import Move, Plan, Wish, has_begun, has_entered, is_broken, next_move
from workers.roll import Crew, Roll
from workers.spool import Spool
from workers.stalls import judge
from workers.status import Phase, Status

PATIENCE_S = 10.0
"""How long those who are warm wait for those who are not, before the job begins or grows without them."""


class Conductor:
    """One incarnation of a job."""

    def __init__(
        self,
        launch: Launch,
        crew: Crew,
        spool: Spool,
        chronicle: Chronicle,
        *,
        meet: Callable[[], tuple[str, int]],
        now: Callable[[], datetime],
    ) -> None:
        """`meet` is where generations meet: host and port of a store. It blocks when it is called first."""
        self._launch = launch
        self._chronicle = chronicle
        self._meet = meet
        self._now = now
        self._roll = Roll(
            crew,
            cursors=lambda worker: (chronicle.heard(worker), chronicle.seen),
            on_status=chronicle.hear,
            on_loss=self._on_loss,
            is_kept=chronicle.has_kept,
            stall_s=launch.spec.stall_timeout,
        )
        self._desk = Desk(
            launch,
            spool,
            chronicle,
            news=self._roll.news,
            workers=lambda: self._roll.workers.values(),
            end=self._roll.dismiss_all,
            now=now,
        )
        self._answered = allocation_of(chronicle.answered)  # that for which the last generation was announced
        self._plan: Plan | None = None
        self._severed = 0
        self._retired = 0  # by this life of the controller; the chronicle knows whether an earlier one said so
        self._losses = Losses(now)
        self._warm_since: float | None = None  # when the first of those who wait became warm

    async def exchange(self, command: Command) -> Report:
        """As `Desk.exchange`."""
        return await self._desk.exchange(command)

    def is_over(self, acked: int) -> bool:
        """As `Desk.is_over`."""
        return self._desk.is_over(acked)

    def is_stranded(self, node: str) -> bool:
        """Whether this node is to leave, no worker lives on one that is, and none is on the way to a generation: those
        meet at a store that this controller holds. Not while something was said that another life would not find.
        """
        if self._desk.ends or not self._chronicle.is_durable:
            return False
        departures, workers, plan = self._desk.departures, self._roll.workers, self._plan
        if node not in {each.node for each in departures} or left(departures, workers.values()):
            return False
        return plan is None or plan.not_before > 0 or has_entered(plan, workers)

    async def run(self) -> None:
        """Until the job has come to an end, and its workers are gone."""
        await self._desk.run(self._begin, self._round)
        await self._roll.see_off()
        await self._desk.close()

    # -- rounds --------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        adopted = await self._roll.adopt()
        if self._chronicle.finished:
            await self._roll.dismiss_all()
        self._find_out(adopted)

    def _find_out(self, adopted: dict[str, Status | None]) -> None:
        """After another life of this controller: the generation that its workers are in is the last one."""
        chronicle, statuses = self._chronicle, [status for status in adopted.values() if status]
        chronicle.named = max(chronicle.named, *(1 + _number(worker) for worker in adopted), 0)
        numbers = [number for status in statuses for number in (status.generation, status.pending, status.broken)]
        chronicle.announced = max(chronicle.announced, *numbers, 0)
        newest = max(self._roll.workers.values(), key=lambda status: status.generation, default=None)
        if newest and newest.generation:
            limits = self._answered.kappa if self._answered else self._launch.spec.elasticity.kappa
            self._plan = Plan(generation=newest.generation, members=newest.members, kappa=limits)

    async def _round(self) -> None:
        """One look at everything, and what follows from it."""
        workers = self._roll.workers
        failed = next((name for name, status in workers.items() if status.phase is Phase.FAILED), None)
        if failed is not None:
            await self._on_failure(failed, workers[failed])
        elif self._succeeded(workers):
            await self._desk.finish("succeeded", "finished", "The budget is used up.")
        elif self._desk.pauses and not self._holders():
            if not self._chronicle.pending:  # what they told last comes first: meanwhile somebody may begin to train
                await self._desk.pause()
        elif self._losses.too_many and not any(status.samples >= 0 for status in workers.values()):
            message = f"Workers were lost again and again before a sample was trained on. {self._losses.reason}"
            await self._desk.finish("failed", "workers_lost", message)
        elif self._losses.in_vain:
            await self._desk.finish("failed", "stalled", self._losses.reason)
        elif (allocation := self._present()) is not None:
            await self._give_up(workers)
            await self._cut_off(workers)
            await self._make(self._move(allocation), allocation)

    def _holders(self) -> list[str]:
        """Those who have a state."""
        return [worker for worker, status in self._roll.workers.items() if status.samples >= 0]

    def _succeeded(self, workers: dict[str, Status]) -> bool:
        if self._plan is None or is_broken(self._plan, workers) or not self._chronicle.exported:
            return False
        return all(workers[member].phase is Phase.DONE for member in self._plan.members)

    async def _on_failure(self, worker: str, status: Status) -> None:
        """A worker that fails before it ever trained, also on its way in, is no reason to stop those who do."""
        assert status.failure is not None, "a worker that failed says why"
        failure = status.failure
        if self._plan is not None and (status.generation == 0 or (status.samples < 0 and self._holders())):
            self._on_loss(worker, failure.message)
            await self._roll.dismiss(worker)
            return
        await self._desk.fail(failure)

    # -- size ----------------------------------------------------------------------------------------------------------

    async def _give_up(self, workers: dict[str, Status]) -> None:
        """Whoever hangs; and a generation in which everybody waits for everybody."""
        verdict = judge(workers, asked=self._launch.spec.stall_timeout, severed=self._severed)
        for worker, reason in verdict.hang.items():
            await self._roll.give_up(worker, reason)
        if verdict.stuck:
            message = "The workers waited for each other without an end, and nobody computed; they begin anew."
            self._chronicle.say("warning", code="stalled", message=message)
            self._losses.add_stuck(verdict.stuck, message, committed=self._chronicle.committed)

    async def _cut_off(self, workers: dict[str, Status]) -> None:
        """Free everybody who is still in a generation that is broken. One that nobody has come to holds nobody."""
        broken = max([self._losses.generation, *(status.broken for status in workers.values() if status.samples >= 0)])
        plan = self._plan  # of those who retire one is gone before the other
        if plan and plan.generation > self._chronicle.retired and is_broken(plan, workers) and has_begun(plan, workers):
            broken = max(broken, plan.generation)
        if broken > self._severed:
            self._severed = broken
            await self._roll.sever(broken)

    def _present(self) -> Allocation | None:
        """What the job is to have now: nobody who is to leave waits for the sample of a resize."""
        allocation, plan = self._desk.allocation, self._plan
        if allocation is None or plan is None or not allocation.not_before:
            return allocation
        if not self._desk.pauses and not self._left(plan.members):
            return allocation
        return allocation.model_copy(update={"workers": len(plan.members), "not_before": None})

    def _left(self, members: Iterable[str]) -> set[str]:
        """The nodes that are to leave and on which one of these workers lives."""
        workers = self._roll.workers
        return left(self._desk.departures, (workers[member] for member in members if member in workers))

    def _move(self, allocation: Allocation) -> Move:
        if self._desk.pauses and self._plan is not None:
            holders = set(self._holders()) & set(self._plan.members)
            ends = Wish(workers=max(1, len(holders)), minimum=1, kappa=self._plan.kappa, ends=True)
            return replace(next_move(ends, self._plan, self._roll.workers, patient=False), start=0)
        departures = self._desk.departures
        last_s = max((status.step_s + status.save_s for status in self._roll.workers.values()), default=0.0)
        wish = Wish(
            workers=allocation.workers,
            minimum=min(self._launch.spec.elasticity.workers[0], allocation.workers),
            kappa=allocation.kappa,
            not_before=allocation.not_before or 0,
            avoid=frozenset(each.node for each in departures),
            urgent=urgent(departures, self._now(), last_s),
        )
        return next_move(wish, self._plan, self._roll.workers, patient=self._is_patient())

    def _is_patient(self) -> bool:
        """Whether those who are warm still wait for those who are not."""
        clock = asyncio.get_running_loop().time()
        members = self._plan.members if self._plan else ()
        waiting = [name for name, status in self._roll.workers.items() if status.phase is Phase.READY]
        self._warm_since = (self._warm_since or clock) if set(waiting) - set(members) else None
        return self._warm_since is None or clock - self._warm_since < PATIENCE_S

    async def _make(self, move: Move, allocation: Allocation) -> None:
        for worker in move.dismiss:
            await self._roll.dismiss(worker)
        if move.retire:
            await self._retire()
        if move.start and self._losses.since_s >= self._losses.backoff_s:
            await self._start(move.start)
        if move.members:
            await self._announce(move.members, allocation)

    async def _retire(self) -> None:
        """All who train leave a checkpoint and end: the job is paused, or nobody lives where they can stay."""
        assert self._plan is not None, "somebody trains"
        chronicle, generation = self._chronicle, self._plan.generation
        if self._retired >= generation:
            return
        self._retired = generation
        is_said, chronicle.retired = chronicle.retired >= generation, generation
        if not is_said and not self._desk.pauses:
            chronicle.parting = sentence(self._desk.departures, self._left(self._plan.members))
            message = f"{chronicle.parting} No other has room: all workers leave a checkpoint and end."
            chronicle.say("warning", code="nodes_leave", message=message)  # and is durable with it
            self._losses.add_departure(chronicle.parting)
        await self._roll.retire(generation)

    async def _start(self, count: int) -> None:
        if self._plan is not None:
            self._chronicle.say("joining", workers=count)
        first = self._chronicle.named
        self._chronicle.named += count
        for number in range(first, first + count):  # in this order, which becomes that of the ranks
            await self._roll.start(f"w{number}")

    async def _announce(self, members: tuple[str, ...], allocation: Allocation) -> None:
        lost = self._is_lost(self._plan)
        cause, reason, decide_s = self._why(allocation, members, lost=lost)
        if self._plan is not None and (lost or not allocation.not_before):
            sizes = (len(self._plan.members), len(members))
            self._chronicle.say("resizing", workers=sizes, cause=cause, reason=reason)
        self._chronicle.announced += 1
        generation = self._chronicle.announced
        host, port = await asyncio.to_thread(self._meet)
        self._plan = Plan(
            generation=generation,
            members=members,
            kappa=self._limits(allocation, members),
            host=host,
            port=port,
            not_before=0 if lost else allocation.not_before or 0,
            cause=cause,
            reason=reason,
            decide_s=decide_s,
        )
        self._answered, self._chronicle.answered = allocation, allocation.model_dump(mode="json")
        await self._roll.announce(self._plan)

    def _limits(self, allocation: Allocation, members: tuple[str, ...]) -> tuple[float, float]:
        """Of kappa. One worker too many, which takes over from one that leaves, makes no larger batch."""
        if len(members) <= allocation.workers:
            return allocation.kappa
        elasticity = self._launch.spec.elasticity.model_copy(update={"kappa": allocation.kappa})
        kappa = kappa_at(self._launch.spec.model_copy(update={"elasticity": elasticity}), allocation.workers)
        return kappa, kappa

    def _is_lost(self, plan: Plan | None) -> bool:
        """Whether the generation that trained is no more: not where only the next one came to nothing."""
        if plan is None or not is_broken(plan, self._roll.workers):
            return False
        trained = self._chronicle.generation
        ended = max(self._losses.generation, self._severed, self._chronicle.retired)
        return has_begun(plan, self._roll.workers) or ended >= trained

    def _why(self, allocation: Allocation, members: tuple[str, ...], *, lost: bool) -> tuple[str, str, float]:
        """Cause, reason, and the seconds from the request, or from the loss, to the decision."""
        if lost:
            return self._losses.cause, self._losses.reason, self._losses.since_s
        if self._plan is None and self._chronicle.resumes and not self._chronicle.started:
            return *RESUMED, self._desk.decide_s(allocation)
        if self._plan is None and self._chronicle.retired >= max(1, self._chronicle.generation):
            return "drain", self._chronicle.parting, 0.0  # in another life of this controller
        answered = allocation == self._answered
        decide_s = 0.0 if answered else self._desk.decide_s(allocation)
        before = self._plan.members if self._plan else ()
        if nodes := self._left(before if len(members) > allocation.workers else set(before) - set(members)):
            return "drain", sentence(self._desk.departures, nodes), decide_s
        if answered:
            return "joined", "Workers that had warmed up joined.", 0.0
        return allocation.cause, allocation.reason, decide_s

    def _on_loss(self, worker: str, reason: str) -> None:
        members = self._plan.members if self._plan else ()
        rank = members.index(worker) if worker in members else _number(worker)
        told, chronicle = f"Worker {worker} was lost: {reason}", self._chronicle
        chronicle.say("rank_lost", rank=rank, reason=told)
        status = self._roll.workers[worker]
        with_node, committed = reason in WENT_WITH_NODE, chronicle.committed
        self._losses.add(_number(worker), told, status, named=chronicle.named, committed=committed, with_node=with_node)


def _number(worker: str) -> int:
    return int(worker.removeprefix("w"))
