"""A worker as a Ray actor: detached, so that it outlives its controller; named, so that the next one finds it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from typing import Any

import ray
from ray._private.state import actors

from api_schemas.exchange import NAMESPACE, Launch
from workers import memory
from workers.imports import uncollected
from workers.lease import Lease
from workers.membership import Plan
from workers.packages import own_modules
from workers.status import Phase, Status
from workers.worklog import Worklog

_NAME = re.compile(r"(\d+):w(\d+)")


def rank_name(job: str, incarnation: int, worker: str) -> str:
    """The actor's name within NAMESPACE."""
    return f"rank:{job}:{incarnation}:{worker}"


class Rank:
    """One worker. The training runs in a thread of its own, so every method answers at once."""

    def __init__(self, launch_json: str, worker: str) -> None:
        memory.keep()
        # Not above: whoever starts workers imports this module, and should not wait for torch.
        with uncollected():
            import torch
            import torch._dynamo  # by torch's optimizers and DDP, when they are made

            from workers.member import Member

        launch = Launch.model_validate_json(launch_json)
        torch.set_num_threads(max(1, int(launch.spec.resources.cpu)))
        host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        worklog = Worklog.of(launch, worker)
        worklog.begin(launch.job, host)
        self._node: str = ray.get_runtime_context().get_node_id()
        self._worklog = worklog
        self._member = Member(launch, worker, worklog.tail)
        self._lease = Lease(self._member, self._end)
        self._member.start()
        self._lease.start()

    def poll(self, version: int, heard: int, seen: int, wait_s: float) -> Status:
        """See `Member.poll`."""
        self._lease.renew()
        status = self._member.poll(version=version, heard=heard, seen=seen, wait_s=wait_s)
        status = replace(status, node=self._node)
        if status.phase in (Phase.FAILED, Phase.DONE, Phase.LEFT):
            self._worklog.conclude()  # the controller will end this process soon
        return status

    def announce(self, plan: Plan) -> None:
        """See `Member.announce`."""
        self._member.announce(plan)

    def sever(self, generation: int) -> None:
        """See `Member.sever`."""
        self._member.sever(generation)

    def retire(self, generation: int) -> None:
        """See `Member.retire`."""
        self._member.retire(generation)

    def _end(self, why: str) -> None:
        self._worklog.add(why)
        self._worklog.conclude()
        os._exit(1)


def start_rank(launch: Launch, worker: str) -> Any:
    """Have Ray start a worker; returns before it lives."""
    resources = launch.spec.resources
    options = {
        "name": rank_name(launch.job, launch.incarnation, worker),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "num_cpus": resources.cpu,
        "num_gpus": resources.gpu,
        "max_restarts": 0,
        "max_task_retries": 0,
        "max_concurrency": 8,
        **own_modules(launch),
    }
    return ray.remote(Rank).options(**options).remote(launch.model_dump_json(), worker)


def is_alive(rank: Any) -> bool:
    """Whether the worker has begun to live; else it waits for resources. Ray has no public way to ask."""
    return bool(actors(rank._actor_id.hex()).get("State") == "ALIVE")


def find_ranks(job: str) -> dict[tuple[int, str], Any]:
    """The job's workers that Ray knows, by incarnation and worker, the oldest first."""
    prefix = f"rank:{job}:"
    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if each["namespace"] == NAMESPACE]
    ours = (_NAME.fullmatch(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
    found = {}
    for incarnation, number in sorted((int(name[1]), int(name[2])) for name in ours if name):
        worker = f"w{number}"
        with contextlib.suppress(ValueError):  # it went by itself
            found[incarnation, worker] = ray.get_actor(rank_name(job, incarnation, worker), NAMESPACE)
    return found
