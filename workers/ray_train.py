"""Runs of Ray Train for the controller of a job: `workers.restarts.Runs`.

Each run is a task of Ray's with a process of its own, in which `TorchTrainer.fit` waits. To cancel that task is to
press Ctrl-C there, which Ray Train answers by ending its workers and giving back what it had reserved for them. Where
the process is killed instead, the workers go too, but the reservation stands for three minutes (ray 2.60).
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

from api_schemas.exchange import TRAINING_NODES, Launch
from workers.losses import cause_of_death
from workers.restarts import RunFailed

ABORT_S = 10.0
"""How long a run that was cancelled may take to end; then it is killed."""


class RayTrainRuns:
    """The runs of one job: `workers.restarts.Runs`."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        environment = {"env_vars": _environment(launch)}
        options = {"num_cpus": 0, "max_retries": 0, "label_selector": TRAINING_NODES, "runtime_env": environment}
        self._fit = ray.remote(_fit).options(**options)
        self._run: Any = None

    async def train(self, fewest: int, most: int) -> None:
        """See `Runs.train`."""
        self._run = self._fit.remote(self._launch.model_dump_json(), fewest, most)
        try:
            await self._run
        except ray.exceptions.RayError as error:
            raise RunFailed(f"Ray Train gave up: {cause_of_death(error)}") from error

    async def kill(self) -> None:
        """See `Runs.kill`."""
        run, self._run = self._run, None
        if run is None:
            return
        ray.cancel(run)
        if not await asyncio.to_thread(_has_ended, run):
            ray.cancel(run, force=True)


def _has_ended(run: Any) -> bool:
    ended, _ = ray.wait([run], timeout=ABORT_S)
    return bool(ended)


def _fit(launch_json: str, fewest: int, most: int) -> None:
    from workers import train_run  # takes seconds, in this process alone

    train_run.fit(launch_json, fewest, most)


def _environment(launch: Launch) -> dict[str, str]:
    """What Ray Train is told by its environment: nothing that a user would not choose, but less to say."""
    quiet = ("RAY_TRAIN_METRICS_ENABLED", "RAY_CHDIR_TO_TRIAL_DIR", "RAY_TRAIN_ENABLE_PRINT_PATCH")
    environment = dict.fromkeys(quiet, "0")
    if launch.spec.stall_timeout is not None:
        environment["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = f"{launch.spec.stall_timeout:g}"
    return environment
