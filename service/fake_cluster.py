"""A cluster of words: it answers as Ray and the workers would, and trains nothing. For tests.

Controllers obey at once; what else happens to them, a test makes happen: `advance`, `finish`, `lose`, `hang`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from api_schemas.events import CheckpointFailed, Committed, Finished, Resized, Started, WorkerEvent
from api_schemas.exchange import Command, Launch, Report
from api_schemas.jobs import global_batch, kappa_at
from api_schemas.views import Node, RecipeInfo
from service.cluster import ClusterUnreachable, ControllerGone, LaunchFailed

EPOCH_SIZE = 1000


class FakeController:
    """One incarnation of a job."""

    def __init__(self, launch: Launch, now: Callable[[], datetime], samples: int = 0) -> None:
        self.launch = launch
        self.commands: list[Command] = []
        self.workers = 0
        self.samples = samples
        self.generation = 0
        self.finished = False
        self.went = False  # it was told that its last event is committed
        self.hanging = False
        self.stores = True  # else no checkpoint can be written
        self._now = now
        self._said = 0
        self._spool: list[WorkerEvent] = []
        self._news = asyncio.Event()

    def advance(self, samples: int) -> None:
        """Train on so many more samples."""
        start, self.samples = self.samples, self.samples + samples
        self._say(Committed, start=start, stop=self.samples)

    def finish(self, outcome: Literal["succeeded", "failed", "cancelled", "paused"], code: str = "finished") -> None:
        """Come to an end."""
        if not self.finished:
            self.finished, self.workers = True, 0
            self._say(Finished, outcome=outcome, code=code, message=f"It {outcome}.")

    async def exchange(self, command: Command) -> Report:
        """As `Controller.exchange`."""
        self.commands.append(command)
        if command.incarnation != self.launch.incarnation:
            raise ControllerGone(f"Stale: this is incarnation {self.launch.incarnation}.")
        while self.hanging:
            await asyncio.sleep(3600)
        self._spool = [event for event in self._spool if event.sequence > command.acked]
        self.went = self.finished and not self._spool
        self._obey(command)
        if not self._spool:
            await self._wait(command.wait_s)
        return self._report()

    async def _wait(self, seconds: float) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def _obey(self, command: Command) -> None:
        if command.intent == "cancel":
            self.finish("cancelled", "cancelled")
        elif command.intent == "pause":
            self._pause()
        elif not self.finished and self.samples >= (command.allocation.not_before or 0):
            self._resize(command)

    def _pause(self) -> None:
        if self.stores:
            self.finish("paused", "paused")
        elif not self._spool:
            self._say(CheckpointFailed, samples=self.samples, message="disk full")

    def _resize(self, command: Command) -> None:
        before, after = self.workers, command.allocation.workers
        if before == after:
            return
        self.workers, self.generation = after, self.generation + 1
        sizes, spec = (before, after), self.launch.spec
        if before == 0:
            self._say(Started, **self._size(after), samples=self.samples, values={}, epoch_size=EPOCH_SIZE,
                      total_samples=10 * EPOCH_SIZE, bn_momentum=None)  # fmt: skip
            return
        self._say(
            Resized, cause=command.allocation.cause, reason=command.allocation.reason, samples=self.samples,
            workers=sizes, kappa=[kappa_at(spec, n) for n in sizes], batch=[global_batch(spec, n) for n in sizes],
            before={}, after={}, state_factors={}, warnings=[], decide_s=0, pause_s=0, steps_lost=0, samples_lost=0,
        )  # fmt: skip

    def _size(self, workers: int) -> dict[str, Any]:
        spec = self.launch.spec
        return {"workers": workers, "kappa": kappa_at(spec, workers), "batch": global_batch(spec, workers)}

    def _say(self, kind: Callable[..., WorkerEvent], **fields: Any) -> None:
        self._said += 1
        own = {"job": self.launch.job, "incarnation": self.launch.incarnation, "generation": self.generation}
        self._spool.append(kind(**own, sequence=self._said, at=self._now(), **fields))
        self._news.set()

    def _report(self) -> Report:
        return Report(
            job=self.launch.job, incarnation=self.launch.incarnation, generation=self.generation,
            workers=self.workers, joining=0, samples=self.samples, done=self.finished, events=list(self._spool),
        )  # fmt: skip


class FakeCluster:
    """Nodes, and the controllers on them."""

    def __init__(self, now: Callable[[], datetime], *cpus: float) -> None:
        self.launches: list[Launch] = []
        self.killed: list[str] = []
        self.running: dict[str, FakeController] = {}
        self.catalogue_now = [RecipeInfo(name="classify", summary="Nothing.", config_schema={"type": "object"})]
        self.launch_error: str | None = None
        self.reachable = True
        self._now = now
        self._nodes: list[Node] = []
        for cpu in cpus:
            self.add_node(cpu)

    def add_node(self, cpu: float) -> None:
        """One more node."""
        number = len(self._nodes)
        node = Node(id=f"node-{number}", address=f"10.0.0.{number}", alive=True, cpu=cpu, gpu=0, cpu_used=0, gpu_used=0)
        self._nodes.append(node)

    def drain_node(self, by: datetime | None = None) -> None:
        """The last node is to leave."""
        self._nodes[-1] = self._nodes[-1].model_copy(update={"draining": True, "drains_at": by})

    def remove_node(self) -> None:
        """The last node goes."""
        self._nodes.pop()

    def lose(self, job: str) -> None:
        """The job's controller is gone, and its name with it."""
        del self.running[job]

    async def nodes(self) -> list[Node]:
        if not self.reachable:
            raise ClusterUnreachable("Nobody is there.")
        return list(self._nodes)

    async def catalogue(self) -> list[RecipeInfo]:
        return list(self.catalogue_now)

    async def launch(self, launch: Launch) -> None:
        if self.launch_error:
            raise LaunchFailed(self.launch_error)
        self.launches.append(launch)
        before = self.running.get(launch.job)
        self.running[launch.job] = FakeController(launch, self._now, before.samples if before else 0)

    async def exchange(self, command: Command) -> Report:
        controller = self.running.get(command.job)
        if controller is None or controller.went:
            raise ControllerGone(f"There is no controller of {command.job}.")
        return await controller.exchange(command)

    async def kill(self, job: str) -> None:
        self.killed.append(job)
        self.running.pop(job, None)

    async def controllers(self) -> set[str]:
        return {job for job, controller in self.running.items() if not controller.went}
