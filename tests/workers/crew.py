"""A crew without Ray and torch: workers in memory that do what `workers.member` does, when the script says so.

They get warm, enter what was announced and leave with it by themselves, as real ones; they train by `step`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from workers.membership import Plan
from workers.roll import WorkerGone
from workers.status import Doing, Failure, Phase, Status

STEP = 8
"""Samples of a step."""
IN_GROUP = (Phase.JOINING, Phase.TRAINING)


@dataclass
class Actor:
    """One worker."""

    name: str
    phase: Phase = Phase.WARMING
    node: str = ""
    plan: Plan | None = None
    next: Plan | None = None
    broken: int = 0
    samples: int = -1
    size: int = 1  # of the last generation that it trained in
    step_s: float = 0.0
    doing: Doing = field(default_factory=Doing)
    version: int = 0
    written: int = 0
    records: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    points: list[tuple[int, dict[str, float | None]]] = field(default_factory=list)
    failure: Failure | None = None
    end: str | None = None  # why it is dead
    hangs: bool = False  # answers nothing any more
    deaf: bool = False  # does not notice that a peer is gone, until it is cut off
    raises: Exception | None = None  # at the next look
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def generation(self) -> int:
        return self.plan.generation if self.plan else 0

    def become(self, phase: Phase) -> None:
        self.phase, self.doing = phase, Doing()
        self.nudge()

    def record(self, kind: str, **payload: Any) -> None:
        self.written += 1
        self.records.append((self.written, {"type": kind, **payload}))
        self.nudge()

    def nudge(self) -> None:
        self.version += 1
        self.news.set()

    def fall_out(self) -> None:
        """Of a generation that is broken."""
        self.broken = max(self.broken, self.generation)
        self.become(Phase.READY)


class Ensemble:
    """The crew, and the script's hand in it. `cold`: those who start stay warming until `warm`."""

    def __init__(self) -> None:
        self.actors: dict[str, Actor] = {}
        self.cold = False
        self.node = "here"  # where those who start live
        self.queued: set[str] = set()  # those who wait for resources, and answer nothing before they have them
        self.over = False
        self.refuses: Exception | None = None  # what `start` raises
        self.checkpoint = 0  # samples that a generation without any state begins with
        self.started: list[str] = []
        self.killed: list[str] = []
        self.before_kill: Callable[[], None] = lambda: None
        self.plans: list[Plan] = []
        self.severed: list[int] = []

    # -- as a Crew -----------------------------------------------------------------------------------------------------

    async def adopt(self) -> dict[str, bool]:
        return {name: name not in self.queued for name in self.actors}

    async def start(self, worker: str) -> None:
        if self.refuses:
            raise self.refuses
        assert worker not in self.started, f"{worker} was there before"
        self.started.append(worker)
        self.actors[worker] = Actor(worker, phase=Phase.WARMING if self.cold else Phase.READY, node=self.node)

    async def poll(self, worker: str, *, version: int, heard: int, seen: int, wait_s: float) -> Status:
        actor = await self._answering(worker)
        if actor.version <= version:
            actor.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await actor.news.wait()
        actor = await self._answering(worker)
        if actor.raises:
            raise actor.raises
        actor.records = [record for record in actor.records if record[0] > heard]
        actor.points = [point for point in actor.points if point[0] > seen]
        return Status(
            phase=actor.phase,
            node=actor.node,
            generation=actor.generation,
            members=actor.plan.members if actor.plan else (),
            pending=actor.next.generation if actor.next else 0,
            broken=actor.broken,
            samples=actor.samples,
            committed=actor.samples,
            step_s=actor.step_s,
            doing=actor.doing,
            version=actor.version,
            records=tuple(actor.records),
            points=tuple(actor.points),
            failure=actor.failure,
        )

    async def announce(self, worker: str, plan: Plan) -> None:
        if plan not in self.plans:
            self.plans.append(plan)
        actor = await self._answering(worker)
        if plan.generation <= max(actor.broken, actor.generation):
            return
        actor.next = plan
        if actor.phase is Phase.JOINING:
            actor.fall_out()
        self._play()

    async def sever(self, worker: str, generation: int) -> None:
        if generation not in self.severed:
            self.severed.append(generation)
        actor = await self._answering(worker)
        actor.broken = max(actor.broken, generation)
        if actor.next and actor.next.generation <= generation:
            actor.next = None
        if actor.phase in IN_GROUP and actor.generation <= generation:
            actor.become(Phase.READY)
        actor.nudge()
        self._play()

    async def retire(self, worker: str, generation: int) -> None:
        actor = await self._answering(worker)
        if actor.generation and (actor.phase not in IN_GROUP or actor.generation != generation):
            return
        group = next((group for group in self._groups(Phase.TRAINING) if actor in group), [actor])
        self.checkpoint = max(self.checkpoint, group[0].samples)
        if actor.phase is Phase.TRAINING:
            group[0].record("checkpoint_saved", samples=group[0].samples, name=str(group[0].samples), bytes=1)
        for member in group:
            member.become(Phase.LEFT)

    async def kill(self, worker: str) -> None:
        self.before_kill()
        await asyncio.sleep(0)  # as it takes a moment in the real world
        if worker in self.actors:
            self.killed.append(worker)
            self._end(self.actors.pop(worker), "It was killed.")

    async def _answering(self, worker: str) -> Actor:
        actor = self.actors.get(worker)
        if actor is None:
            raise WorkerGone("It was dismissed.")
        if actor.hangs:
            await asyncio.Event().wait()
        if actor.end:
            raise WorkerGone(actor.end)
        return actor

    # -- the script ----------------------------------------------------------------------------------------------------

    @property
    def trains(self) -> tuple[str, ...]:
        """Who trains, in the order of age."""
        return tuple(actor.name for actor in self._in(Phase.TRAINING))

    @property
    def samples(self) -> int:
        return max((actor.samples for actor in self.actors.values()), default=-1)

    def warm(self, *names: str) -> None:
        for name in names:
            self.actors[name].become(Phase.READY)

    def step(self, *, point: bool = False) -> None:
        """Whoever trains takes one, and goes to what was announced meanwhile."""
        for group in self._groups(Phase.TRAINING):
            for actor in group:
                actor.samples += STEP
                if point:
                    actor.points.append((actor.samples, {"loss": 1.0}))
            if any(actor.next and actor.samples >= actor.next.not_before for actor in group):
                for actor in group:
                    actor.become(Phase.READY)
        self._play()

    def finish(self, *, exported: bool = True) -> None:
        """The budget is used up, for every generation from now on."""
        self.over = True
        for group in self._groups(Phase.TRAINING):
            self._conclude(group, exported=exported)

    def die(self, *names: str, end: str = "The process ended.") -> None:
        """All at one moment."""
        for name in names:
            self.actors[name].end = end
        for name in names:
            self._end(self.actors[name], end)

    def fail(self, name: str, code: str = "recipe_raised", message: str = "The recipe raised.") -> None:
        actor = self.actors[name]
        actor.failure = Failure(code=code, message=message, traceback="Traceback: here", log_tail=["last", "words"])
        self._break(actor)
        actor.become(Phase.FAILED)

    def hang(self, name: str) -> None:
        self.actors[name].hangs = True

    # -- inside --------------------------------------------------------------------------------------------------------

    def _in(self, *phases: Phase) -> list[Actor]:
        return [actor for actor in self.actors.values() if actor.phase in phases and not actor.end]

    def _groups(self, phase: Phase) -> Iterable[list[Actor]]:
        """Those who are in one generation together, where all its members are, and none hangs; the lead first."""
        plans = {actor.plan for actor in self._in(phase) if actor.plan}
        for plan in sorted(plans, key=lambda plan: plan.generation):
            group = [self.actors[name] for name in plan.members if name in self.actors]
            if len(group) == len(plan.members) and all(_takes_part(actor, plan, phase) for actor in group):
                yield group

    def _play(self) -> None:
        """What follows from an announcement without anybody's help."""
        for actor in self._in(Phase.READY, Phase.DONE):
            if actor.next and not actor.hangs:
                if actor.name in actor.next.members:
                    actor.plan, actor.phase = actor.next, Phase.JOINING
                else:
                    actor.phase = Phase.LEFT
                actor.next = None
                actor.nudge()
        for group in self._groups(Phase.JOINING):
            self._enter(group)

    def _enter(self, group: list[Actor]) -> None:
        plan, samples = group[0].plan, max(actor.samples for actor in group)
        assert plan is not None
        restored = samples < 0
        samples = self.checkpoint if restored else samples
        before, after = max(actor.size for actor in group), len(group)
        for actor in group:
            actor.samples, actor.size = samples, after
            actor.become(Phase.TRAINING)
        group[0].record("entered", restored=restored, **change(plan, samples, before, after))
        if self.over:
            self._conclude(group, exported=True)

    def _conclude(self, group: list[Actor], *, exported: bool) -> None:
        if exported:
            group[0].record("exported", artifacts={"model.safetensors": "/model.safetensors"})
        for actor in group:
            actor.become(Phase.DONE)

    def _end(self, actor: Actor, end: str) -> None:
        actor.end = end
        self._break(actor)
        actor.nudge()

    def _break(self, actor: Actor) -> None:
        """Its group notices that it is gone, but for the deaf."""
        if actor.phase in IN_GROUP:
            for other in self._in(*IN_GROUP):
                if other is not actor and other.plan == actor.plan and not other.deaf and not other.hangs:
                    other.fall_out()
        self._play()


def _takes_part(actor: Actor, plan: Plan, phase: Phase) -> bool:
    return actor.plan == plan and actor.phase is phase and not actor.hangs and not actor.end


def change(plan: Plan, samples: int, before: int, after: int) -> dict[str, Any]:
    """The record of a generation that was entered, whether restored or not apart."""
    return {
        "generation": plan.generation,
        "cause": plan.cause,
        "reason": plan.reason,
        "decide_s": plan.decide_s,
        "pause_s": 0.1,
        "samples": samples,
        "workers": (before, after),
        "kappa": (float(before), float(after)),
        "batch": (STEP * before, STEP * after),
        "before": {"lr": 0.1 * before},
        "after": {"lr": 0.1 * after},
        "state_factors": {},
        "warnings": [],
        "horizon": {"epoch_size": 100, "total_samples": 500, "bn_momentum": None},
    }


async def until(condition: Callable[[], object], *, patience_s: float = 10.0) -> None:
    """Let everybody go on until it holds; at the end AssertionError."""
    try:
        async with asyncio.timeout(patience_s):
            while not condition():
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError("it never came to that") from None
