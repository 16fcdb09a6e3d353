"""The seam to the cluster: what the reconciler asks of it, and Ray as the one that answers.

    ClusterError
    ├── ClusterUnreachable    nobody answers: Ray's head is lost, or not there yet
    ├── LaunchFailed          a node could not start the controller
    ├── ControllerGone        the job has no controller, or one that cannot serve this service
    └── ControllerSilent      it has one that is away for now: Ray starts it again

Only strings cross the seam, JSON all of them: a node needs nothing of the service, the service nothing
of the workers. What runs on a node is named there (`workers.controller.start`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import ray
from pydantic import TypeAdapter, ValidationError
from ray._private import state  # there is no public way to ask for resources by node, or for what drains

from api_schemas.exchange import NAMESPACE, TRAINING_NODES, Command, Launch, Report, controller_name
from api_schemas.views import Node, RecipeInfo

START = "workers.controller.start"
CATALOGUE = "workers.recipes.catalogue"
_RECIPES = TypeAdapter(list[RecipeInfo])


class ClusterError(Exception):
    """The cluster did not do what it was asked."""


class ClusterUnreachable(ClusterError):
    """Nobody answers for the cluster."""


class LaunchFailed(ClusterError):
    """A node could not start the job's controller."""


class ControllerGone(ClusterError):
    """The job has no controller, or one that cannot serve this service."""


class ControllerSilent(ClusterError):
    """The job's controller is away for now."""


class Cluster(Protocol):
    """What the reconciler needs. Every call may take as long as it likes: the caller limits it."""

    async def nodes(self) -> list[Node]:
        """The living nodes. Raises ClusterUnreachable."""

    async def catalogue(self) -> list[RecipeInfo]:
        """The recipes that the nodes have. Raises ClusterError."""

    async def launch(self, launch: Launch) -> None:
        """Start the job's controller, in place of one of an older incarnation. Raises LaunchFailed."""

    async def exchange(self, command: Command) -> Report:
        """One question to the job's controller, and its answer. Raises ControllerGone, ControllerSilent."""

    async def kill(self, job: str) -> None:
        """End the job's actors, whatever they do; nothing where there are none."""

    async def controllers(self) -> set[str]:
        """The jobs that have a controller."""


class RayCluster:
    """A Ray cluster that this process is attached to. A process attaches once and ends when Ray is lost."""

    def __init__(self, address: str) -> None:
        """`address` as ray.init takes it; never empty: Ray would join any cluster that it finds.

        The token, if the cluster wants one, comes from the environment of the process. Raises ClusterUnreachable.
        """
        try:
            with tempfile.TemporaryDirectory() as nowhere, contextlib.chdir(nowhere):  # Ray has nodes import from here
                ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise ClusterUnreachable(f"No Ray cluster answers at {address}: {error}") from error
        self._call = ray.remote(num_cpus=0, max_retries=0, label_selector=TRAINING_NODES)(_by_name())
        self._controllers: dict[str, Any] = {}

    def detach(self) -> None:
        """Leave the cluster; its actors stay."""
        ray.shutdown()

    async def nodes(self) -> list[Node]:
        try:
            return await asyncio.to_thread(_nodes)
        except Exception as error:  # whatever Ray's client raises when nobody answers
            raise ClusterUnreachable(f"The cluster does not say which nodes it has: {error}") from error

    async def catalogue(self) -> list[RecipeInfo]:
        return _RECIPES.validate_python(await self._on_a_node(CATALOGUE))

    async def launch(self, launch: Launch) -> None:
        self._controllers.pop(launch.job, None)
        await self._on_a_node(START, launch.model_dump_json())

    async def exchange(self, command: Command) -> Report:
        controller = await self._controller(command.job)
        try:
            answer = await controller.exchange.remote(command_json=command.model_dump_json())  # see `stand_alone`
        except ray.exceptions.RayError as error:
            self._controllers.pop(command.job, None)
            if isinstance(error, ray.exceptions.RayActorError) and await self._has_name(command.job):
                raise ControllerSilent(f"The controller of {command.job} is being started again: {error}") from error
            raise ControllerGone(f"The controller of {command.job} cannot answer: {error}") from error
        try:
            return Report.model_validate_json(answer)
        except ValidationError as error:
            raise ControllerGone(f"The controller of {command.job} says what is not understood: {error}") from error

    async def kill(self, job: str) -> None:
        self._controllers.pop(job, None)
        await asyncio.to_thread(_kill_actors, job)

    async def controllers(self) -> set[str]:
        names = await asyncio.to_thread(ray.util.list_named_actors)
        prefix = controller_name("")
        return {name.removeprefix(prefix) for name in names if name.startswith(prefix)}

    async def _controller(self, job: str) -> Any:
        if job not in self._controllers:
            try:
                self._controllers[job] = await asyncio.to_thread(ray.get_actor, controller_name(job), NAMESPACE)
            except (ValueError, ray.exceptions.RayError) as error:
                raise ControllerGone(f"The cluster knows no controller of {job}.") from error
        return self._controllers[job]

    async def _has_name(self, job: str) -> bool:
        """Whether Ray goes on with the job's controller. Of one whose node went it says that it died, even then."""
        try:
            await self._controller(job)
        except ControllerGone:
            return False
        return True

    async def _on_a_node(self, target: str, *arguments: str) -> Any:
        """Call `package.module.function` in a worker process; it ends with who waits for it. Raises LaunchFailed."""
        called = self._call.remote(target, *arguments)
        try:
            answer = json.loads(await called)
        except ray.exceptions.RayError as error:
            raise LaunchFailed(f"No node could call {target}: {error}") from error
        except asyncio.CancelledError:
            ray.cancel(called, force=True)  # nobody waits for it: it would come in the way of what is done instead
            raise
        if "error" in answer:
            raise LaunchFailed(f"{target} failed on a node:\n{answer['error']}")
        return answer["value"]


def stand_alone() -> None:
    """Refuse to import `workers` into this process, for good.

    A handle of an actor brings its class with it: Ray would import the controller, and torch, for every
    handle. Where it cannot, it makes do with the names of the methods; they then take keywords alone.
    """
    sys.modules["workers"] = None  # type: ignore[assignment]


def _by_name() -> Callable[..., str]:
    """Made inside a function, so that it travels by value: a node has no `service` to import it from."""

    def call(target: str, *arguments: str) -> str:
        import importlib
        import json
        import traceback

        try:
            module, _, name = target.rpartition(".")
            return json.dumps({"value": getattr(importlib.import_module(module), name)(*arguments)})
        except Exception:  # as text: the classes of a node's exceptions may not exist here
            return json.dumps({"error": traceback.format_exc()})

    return call


def _nodes() -> list[Node]:
    free = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    draining = _draining()
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [_node(node, free.get(node["NodeID"]), draining) for node in nodes if node["Alive"]]


def _draining() -> dict[str, datetime | None]:
    """Nodes that Ray was told will leave, by id, and when they may be gone; None: that was not said.

    Ray starts nothing on them, and ends the node once nothing runs there; at the deadline somebody else does.
    """
    found = state.state.get_draining_nodes()  # milliseconds since 1970; 0: not said
    return {node: datetime.fromtimestamp(at / 1000, UTC) if at else None for node, at in found.items()}


def _node(node: dict[str, Any], free: dict[str, float] | None, draining: Mapping[str, datetime | None]) -> Node:
    cpu, gpu = (node["Resources"].get(name, 0.0) for name in ("CPU", "GPU"))
    idle = {"CPU": cpu, "GPU": gpu} if free is None else free  # None: it has just come
    return Node(
        id=node["NodeID"],
        address=node["NodeManagerAddress"],
        alive=True,
        cpu=cpu,
        gpu=gpu,
        cpu_used=round(cpu - idle.get("CPU", 0.0), 4),
        gpu_used=round(gpu - idle.get("GPU", 0.0), 4),
        draining=node["NodeID"] in draining,
        drains_at=draining.get(node["NodeID"]),
    )


def _kill_actors(job: str) -> None:
    """Every actor named `<kind>:<job>` or `<kind>:<job>:...`, the controller first: it would replace the others."""
    names = [name for name in ray.util.list_named_actors() if name.split(":")[1:2] == [job]]
    for name in sorted(names, key=lambda name: name != controller_name(job)):
        try:
            ray.kill(ray.get_actor(name, NAMESPACE), no_restart=True)
        except ValueError:
            continue  # it went by itself
