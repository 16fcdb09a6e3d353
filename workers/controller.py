"""The controller of a job as a Ray actor: detached and started again by Ray, so it outlives service and node.

The service knows two things of this module: `start`, which it has a node call, and the actor's method `exchange`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import ray

from api_schemas.exchange import NAMESPACE, TRAINING_NODES, Command, Launch, Report, controller_name
from workers.chronicle import Chronicle
from workers.conductor import Conductor
from workers.losses import cause_of_death
from workers.membership import Plan
from workers.node import end_with_node
from workers.rank import find_ranks, is_alive, start_rank
from workers.ray_train import RayTrainRuns
from workers.restarts import Reply, Restarts
from workers.roll import WorkerGone
from workers.spool import Spool
from workers.status import Status
from workers.storage import Pause, Storage, StorageError, patiently

T = TypeVar("T")

READ_S = 45.0
"""How long a controller tries to read its history. The service waits longer (`Pace.silence`): another controller could
read no more, and would start without the workers that train."""
NAME_PATIENCE_S = 30.0
"""How long the name of a controller that was killed may stay taken."""
UNAVAILABLE_S = 1.0
"""How long a worker that Ray calls unavailable for now is asked again: a connection that broke says nothing of it."""
STEADY = {
    "label_selector": {"ray.io/market-type": "!spot", **TRAINING_NODES},
    "fallback_strategy": [{"label_selector": TRAINING_NODES}],
}
"""Not on a spot node where there is another. Ray itself starts nothing on a node that is to leave."""


logger = logging.getLogger(__name__)


class Stale(Exception):
    """The command is for another incarnation of the job."""


class Controller:
    """One incarnation of one job."""

    def __init__(self, launch_json: str) -> None:
        launch = Launch.model_validate_json(launch_json)
        spool, chronicle = recollect(launch, Storage(launch.storage))
        self._launch = launch
        self._node: str = ray.get_runtime_context().get_node_id()
        self._conductor = self._engine(launch, spool, chronicle)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._work, name="conductor", daemon=True).start()
        threading.Thread(target=end_with_node, name="node", daemon=True).start()

    def exchange(self, command_json: str) -> str:
        """A Command as JSON -> a Report as JSON. After the last acknowledgement the actor is gone. Raises Stale."""
        command = Command.model_validate_json(command_json)
        if command.incarnation != self._launch.incarnation:
            raise Stale(f"this is incarnation {self._launch.incarnation}, not {command.incarnation}")
        report, is_over, is_to_move = self._do(self._answer(command))
        if is_over or is_to_move:
            ray.kill(ray.get_runtime_context().current_actor, no_restart=is_over)
        return report.model_dump_json()

    async def _answer(self, command: Command) -> tuple[Report, bool, bool]:
        """The report; whether all is said and done; and whether to be started again elsewhere now, rather than when the
        node goes, at a moment nobody chose.
        """
        conductor = self._conductor
        report = await conductor.exchange(command)
        is_to_move = isinstance(conductor, Conductor) and conductor.is_stranded(self._node)
        return report, conductor.is_over(command.acked), is_to_move

    def _engine(self, launch: Launch, spool: Spool, chronicle: Chronicle) -> Conductor | Restarts:
        meeting = _Meeting()
        return Conductor(launch, _RayCrew(launch, meeting), spool, chronicle, meet=meeting.place, now=_now)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _work(self) -> None:
        """Not on a loop of Ray's: that runs only while somebody calls, and nobody calls a controller started again."""
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._conductor.run())
        self._loop.run_forever()


def recollect(launch: Launch, storage: Storage, pause: Pause = time.sleep) -> tuple[Spool, Chronicle]:
    """What this incarnation has told so far, or else what the one before left untold.

    Storage that cannot be read is tried again for `READ_S`: Ray starts no actor again that cannot begin. Raises
    StorageError, and what `pause` raises.
    """

    def read() -> tuple[Spool, Chronicle]:
        spool = Spool(storage, launch.incarnation)
        chronicle = Chronicle(launch, spool, _now)
        if launch.before and not spool.last:
            chronicle.inherit(Spool(storage, launch.before.incarnation), launch.before.acked)
        return spool, chronicle

    def tell(error: StorageError) -> None:
        what = {"action": "spool_unread", "job": launch.job}
        logger.warning("the history cannot be read, and is tried again for %g s: %s", READ_S, error, extra=what)

    return patiently(read, READ_S, pause, on_refusal=tell)


class RestartController(Controller):
    """The same for the engine `ray_train`, whose workers tell how they are, instead of being asked."""

    _conductor: Restarts

    def enter(self, world: int) -> Plan:
        """See `Restarts.enter`."""
        return self._do(self._conductor.enter(world))

    def hear(self, worker: str, status: Status) -> Reply:
        """See `Restarts.hear`."""
        return self._do(self._conductor.hear(worker, status))

    def lose(self, reasons: dict[int, str]) -> None:
        """See `Restarts.lose`."""
        self._do(self._conductor.lose(reasons))

    def _engine(self, launch: Launch, spool: Spool, chronicle: Chronicle) -> Restarts:
        return Restarts(launch, RayTrainRuns(launch), spool, chronicle, now=_now)


CONTROLLERS: dict[str, type[Controller]] = {"in_place": Controller, "ray_train": RestartController}
"""By `engine` of the spec."""


class _RayCrew:
    """The job's workers as Ray actors."""

    def __init__(self, launch: Launch, meeting: _Meeting) -> None:
        self._launch = launch
        self._meeting = meeting
        self._ranks: dict[str, Any] = {}

    async def adopt(self) -> dict[str, bool]:
        """Those of an earlier incarnation end: a predecessor may have started one as it was killed."""
        for (incarnation, worker), rank in (await asyncio.to_thread(find_ranks, self._launch.job)).items():
            if incarnation == self._launch.incarnation:
                self._ranks[worker] = rank
            elif incarnation < self._launch.incarnation:
                await asyncio.to_thread(ray.kill, rank, no_restart=True)
        if self._ranks:
            self._meeting.prepare()
        return await asyncio.to_thread(lambda: {worker: is_alive(rank) for worker, rank in self._ranks.items()})

    async def start(self, worker: str) -> None:
        self._ranks[worker] = await asyncio.to_thread(start_rank, self._launch, worker)
        self._meeting.prepare()

    async def poll(self, worker: str, *, version: int, heard: int, seen: int, wait_s: float) -> Status:
        status: Status = await self._call(worker, "poll", version, heard, seen, wait_s)
        return status

    async def announce(self, worker: str, plan: Plan) -> None:
        await self._call(worker, "announce", plan)

    async def sever(self, worker: str, generation: int) -> None:
        await self._call(worker, "sever", generation)

    async def retire(self, worker: str, generation: int) -> None:
        await self._call(worker, "retire", generation)

    async def kill(self, worker: str) -> None:
        rank = self._ranks.pop(worker, None)
        if rank is not None:
            await asyncio.to_thread(ray.kill, rank, no_restart=True)

    async def _call(self, worker: str, method: str, *arguments: Any) -> Any:
        rank = self._ranks.get(worker)
        if rank is None:
            raise WorkerGone("It was dismissed.")
        until = time.monotonic() + UNAVAILABLE_S
        try:
            while True:
                try:
                    return await getattr(rank, method).remote(*arguments)
                except ray.exceptions.ActorUnavailableError:
                    if time.monotonic() > until:
                        raise
                    await asyncio.sleep(UNAVAILABLE_S / 10)
        except ray.exceptions.RayActorError as error:
            raise WorkerGone(cause_of_death(error)) from error
        except ray.exceptions.RuntimeEnvSetupError as error:
            reason = str(error).strip().splitlines()[-1]
            raise WorkerGone(f"The recipe's packages could not be put on its path: {reason}") from error


class _Meeting:
    """The store where all generations meet."""

    def __init__(self) -> None:
        self._host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        self._store: Any = None
        self._making = threading.Lock()
        self._thread = threading.Thread(target=self.place, name="meeting", daemon=True)

    def prepare(self) -> None:
        """To be ready when the first workers are: torch takes a second, and they import it too."""
        if self._thread.ident is None:
            self._thread.start()

    def place(self) -> tuple[str, int]:
        """The store's host and port."""
        with self._making:
            if self._store is None:
                import torch.distributed as dist

                self._store = dist.TCPStore(self._host, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        return self._host, self._store.port


def start(launch_json: str) -> None:
    """Start the job's controller on this cluster, in place of one of an older incarnation and its workers."""
    launch = Launch.model_validate_json(launch_json)
    _end_predecessor(launch.job)
    if launch.spec.engine == "in_place" and launch.before is None:
        _start_ranks(launch)
    options = {
        "name": controller_name(launch.job),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": -1,
        "max_concurrency": 8,
        **STEADY,
    }
    deadline = time.monotonic() + NAME_PATIENCE_S
    while True:
        try:
            controller: Any = ray.remote(CONTROLLERS[launch.spec.engine]).options(**options).remote(launch_json)
            break
        except ValueError:  # the name is still taken
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    ray.get(controller.__ray_ready__.remote())


def _start_ranks(launch: Launch) -> None:
    """The first workers of a job that is new: they come up beside the controller, which will adopt them."""
    with contextlib.suppress(ValueError):  # a name is still taken: the controller starts whom it lacks
        for worker in range(launch.spec.elasticity.workers[0]):
            start_rank(launch, f"w{worker}")


def _end_predecessor(job: str) -> None:
    """The controller first: it would replace its workers."""
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(controller_name(job), NAMESPACE), no_restart=True)
    for rank in find_ranks(job).values():
        ray.kill(rank, no_restart=True)


def _now() -> datetime:
    return datetime.now(UTC)
