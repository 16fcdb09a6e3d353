"""Runs of Ray Train for the controller of a job: `workers.restarts.Runs`.

Each run has a driver, an actor of its own: there is no other public way to end a run at once. What Ray Train has
started, its own controller and the workers, goes with the process that started it.
"""

from __future__ import annotations

from typing import Any

import ray

from api_schemas.exchange import Launch
from workers.losses import cause_of_death
from workers.restarts import RunFailed


class RayTrainRuns:
    """The runs of one job: `workers.restarts.Runs`."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._driver: Any = None

    async def train(self, fewest: int, most: int) -> None:
        """See `Runs.train`."""
        if self._driver is None:
            options = {"num_cpus": 0, "runtime_env": {"env_vars": _environment(self._launch)}}
            self._driver = ray.remote(_Driver).options(**options).remote()
        try:
            await self._driver.train.remote(self._launch.model_dump_json(), fewest, most)
        except ray.exceptions.RayError as error:
            await self.kill()
            raise RunFailed(f"Ray Train gave up: {cause_of_death(error)}") from error

    async def kill(self) -> None:
        """See `Runs.kill`."""
        driver, self._driver = self._driver, None
        if driver is not None:
            ray.kill(driver, no_restart=True)


class _Driver:
    def train(self, launch_json: str, fewest: int, most: int) -> None:
        from workers import train_run  # takes seconds, in this process alone

        train_run.fit(launch_json, fewest, most)


def _environment(launch: Launch) -> dict[str, str]:
    """What Ray Train is told by its environment: nothing that a user would not choose, but less to say."""
    quiet = ("RAY_TRAIN_METRICS_ENABLED", "RAY_CHDIR_TO_TRIAL_DIR", "RAY_TRAIN_ENABLE_PRINT_PATCH")
    environment = dict.fromkeys(quiet, "0")
    if launch.spec.stall_timeout is not None:
        environment["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = f"{launch.spec.stall_timeout:g}"
    return environment
