"""A job of our own service, of either engine, for the resize benchmark."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api_schemas.views import Phase, Resize
from tests.benchmarks import MODELS
from tests.benchmarks.peers.change import Change
from tests.integration.stage import Job, staged


@contextmanager
def job(engine: str, model: str) -> Iterator[ServiceJob]:
    """On a service and an embedded cluster of its own."""
    hidden, depth = MODELS[model]
    with tempfile.TemporaryDirectory(prefix="resize-") as folder, staged(Path(folder), slots=4) as stage:
        submitted = stage.submit(
            engine=engine,
            recipe={"name": "classify", "config": {"model": "mlp", "hidden": hidden, "depth": depth}},
            schedule={"budget": "1000000 epochs"},
            batch={"base": 8, "per_worker": 8},
            elasticity={"workers": [1, 3]},
            stall_timeout="10s",
            **({"checkpoint": {"every": "60 base_steps"}} if engine == "ray_train" else {}),
        )
        yield ServiceJob(submitted)
        stage.client.cancel(submitted.id)
        submitted.ends(Phase.CANCELLED)


class ServiceJob:
    """See `peers.change.Peer`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def settle(self) -> None:
        self._job.trains_on(3)

    def shrink(self) -> Change:
        return self._asked(2)

    def grow(self) -> Change:
        return self._asked(3)

    def kill(self) -> Change:
        return self._struck(signal.SIGKILL)

    def freeze(self) -> Change:
        return self._struck(signal.SIGSTOP)

    def _asked(self, workers: int) -> Change:
        told = len(self._job.rows())
        self._job.client.resize(self._job.id, workers)
        self._trains_again(told, workers)
        row = self._job.rows()[-1]
        return Change(row.pause_s, row.decide_s, row.steps_lost)

    def _struck(self, number: signal.Signals) -> Change:
        told, processes = len(self._job.rows()), self._job.ranks()
        newest = max(processes, key=lambda worker: int(worker[1:]))
        struck_at = time.time()
        os.kill(processes[newest], number)
        self._trains_again(told, 3)
        row = self._job.rows()[told]
        return Change(row.at.timestamp() - struck_at, row.decide_s, row.steps_lost)

    def _trains_again(self, told: int, workers: int) -> None:
        def reached(rows: list[Resize]) -> bool:
            return len(rows) > told and rows[-1].workers[1] == workers

        self._job.until(lambda _: reached(self._job.rows()))
        self._job.trains_on(workers)
