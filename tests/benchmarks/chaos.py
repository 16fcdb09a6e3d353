"""Random faults against several jobs at once, and the proof that nothing was lost: `./run bench chaos --seconds 120`.

Faults: SIGKILL of one worker, of several, of all; of a controller, the API, the reconciler; SIGSTOP of a worker; other
sizes asked for in between. At the end every job must still train, its ledger must hold every sample once, its history
every event once, and nothing of it may live on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from api_schemas.errors import EmascaleError
from api_schemas.views import Phase
from service.processes import Process
from tests.integration.stage import Job, Stage, staged

REST_S = (0.5, 6.0)
"""Between two faults."""


class Chaos:
    """The faults, and how often each was tried."""

    def __init__(self, stage: Stage, jobs: list[Job], seed: int) -> None:
        self.stage = stage
        self.jobs = jobs
        self.random = random.Random(seed)
        self.done: dict[str, int] = {}
        self._faults: dict[str, tuple[int, Callable[[Job], None]]] = {
            "kill_worker": (6, lambda job: self._kill(job, 1)),
            "kill_workers": (3, lambda job: self._kill(job, 2)),
            "kill_all_workers": (1, lambda job: self._kill(job, 99)),
            "stop_worker": (1, self._freeze),
            "kill_controller": (2, self._kill_controller),
            "kill_api": (1, lambda _: self._kill_child("api")),
            "kill_reconciler": (1, lambda _: self._kill_child("reconciler")),
            "resize": (6, self._resize),
        }

    def strike(self) -> None:
        """One fault, of a random kind, against a random job."""
        names = list(self._faults)
        (name,) = self.random.choices(names, [self._faults[each][0] for each in names])
        job = self.random.choice(self.jobs)
        try:
            self._faults[name][1](job)
        except (ProcessLookupError, EmascaleError):
            return  # it was gone already, or the service is just being started again
        self.done[name] = self.done.get(name, 0) + 1
        print(f"{name} {job.view.name}", file=sys.stderr, flush=True)

    def _kill(self, job: Job, count: int) -> None:
        living = list(job.processes().values())
        for process in self.random.sample(living, min(count, len(living))):
            os.kill(process, signal.SIGKILL)

    def _freeze(self, job: Job) -> None:
        os.kill(self.random.choice(list(job.processes().values()) or [0x7FFFFFFF]), signal.SIGSTOP)

    def _kill_controller(self, _: Job) -> None:
        os.kill(self.random.choice(self.stage.processes("ray::Controller") or [0x7FFFFFFF]), signal.SIGKILL)

    def _kill_child(self, name: str) -> None:
        os.kill(int((self.stage.data_folder / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def _resize(self, job: Job) -> None:
        self.stage.client.resize(job.id, self.random.randint(1, 3))


def main(
    seconds: Annotated[float, typer.Option(help="How long to strike.")] = 120.0,
    seed: int = 0,
    jobs: int = 2,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Strike, then judge. Exit code 1 where anything was lost."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, staged(Path(folder), slots=3 * jobs) as stage:
        started = [_submit(stage, number) for number in range(jobs)]
        for job in started:
            job.until(lambda view: view.workers > 0)
        chaos = Chaos(stage, started, seed)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            chaos.strike()
            time.sleep(chaos.random.uniform(*REST_S))
        result = {"faults": sum(chaos.done.values()), "by_kind": chaos.done, "jobs": jobs, **_judge(stage, started)}
    text = json.dumps(result, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n")
    sys.exit(any(result[name] for name in ("samples_lost", "samples_repeated", "events_lost", "leaked_processes")))


def _submit(stage: Stage, number: int) -> Job:
    return stage.submit(
        name=f"job {number}",
        recipe={"name": "classify", "config": {"model": "cnn" if number % 2 else "mlp", "hidden": 64, "depth": 2}},
        schedule={"budget": "100000 epochs"},
        checkpoint={"every": "2 epochs"},
        elasticity={"workers": [1, 3]},
        seed=number,
    )


def _judge(stage: Stage, jobs: list[Job]) -> dict[str, int]:
    """Each job goes on, and is then stopped and counted."""
    judged = {"samples_lost": 0, "samples_repeated": 0, "events_lost": 0}
    processes: list[Process | None] = []
    for job in jobs:
        job.progresses(2000)
        processes += [Process.of(pid) for pid in job.processes().values()]
        stage.client.cancel(job.id)
        job.ends(Phase.CANCELLED)
        ledger, events = stage.client.ledger(job.id), job.events()
        unaccounted = abs(sum(epoch.samples for epoch in ledger.epochs) - job.view.progress.samples)
        judged["samples_lost"] += ledger.samples_lost + unaccounted
        judged["samples_repeated"] += ledger.samples_repeated
        numbers = [(event.incarnation, event.sequence) for event in events]
        judged["events_lost"] += len(numbers) - len(set(numbers)) + (not job.said("finished"))
    time.sleep(1.0)
    return judged | {"leaked_processes": sum(bool(each and each.alive()) for each in processes)}


if __name__ == "__main__":
    typer.run(main)
