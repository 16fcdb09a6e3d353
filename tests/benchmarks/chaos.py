"""Random faults against several jobs at once, and the proof that nothing was lost: `./run bench chaos --seconds 120`.

Faults: SIGKILL of one worker, of several, of all; of a controller, the API, the reconciler; of a node, its raylet alone
or all that runs there; of the Ray head; SIGSTOP of a worker, and of a
controller that goes on after a while; a node announced to leave, and gone at its deadline. Other
sizes are asked for in between, which is no fault. Nodes come back. At the end every job must train on, its ledger must
hold every sample once, its history every event once, with no change of size missing and no rollback beyond the last
checkpoint, and nothing of it or of its cluster may live on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from api_schemas.errors import EmascaleError
from api_schemas.views import Phase
from service.head import HEAD_IP, NodeRecord
from service.processes import Process, members, wait_until
from tests import history
from tests.integration.stage import PATIENCE_S, Job, Stage, staged

REST_S = (0.5, 4.0)
"""Between two faults."""
AWAY_S = (1.0, 10.0)
"""How long a node is away."""
NOTICE_S = (5, 30)
"""Before a node that is announced to leave is gone."""
ADDED = ("127.0.0.2", "127.0.0.3")
"""Nodes beside the head."""
STILL_S = 12.0
"""How long a controller is stopped: workers may be silent for 10."""
SLOTS = 2
"""Of each node."""
RESIZE = "resize"
"""It is no fault."""
NOBODY = 0x7FFFFFFF
"""No process has this number."""


class Nodes:
    """Those beside the head: they go, and come back."""

    def __init__(self, stage: Stage, chance: random.Random) -> None:
        self.stage = stage
        self.seen: dict[int, NodeRecord] = {}  # every node that there ever was
        self._chance = chance
        self._back_at = dict.fromkeys(ADDED, 0.0)  # of those that are away
        self._gone_at: dict[str, float] = {}  # of those that are to leave

    def tend(self) -> None:
        """What is due: those that were announced to leave go, those that were away come back."""
        for ip in _due(self._gone_at):
            self._go(ip)
        for ip in _due(self._back_at):
            self.stage.ray.remove_node(ip)
            self.stage.ray.add_node(ip, slots=SLOTS)
        self.seen |= {node.leader.pid: node for node in self.stage.nodes().values()}

    def kill(self) -> None:
        """One of them, all at once or its raylet alone."""
        ip = self._any()
        if self._chance.random() < 0.5:
            self.stage.kill_raylet(ip)
            self._leaves(ip)
        else:
            self._go(ip)

    def drain(self) -> None:
        """Give notice of one of them."""
        ip, seconds = self._any(), self._chance.randint(*NOTICE_S)
        self.stage.drain(ip, seconds)
        self._gone_at[ip] = time.monotonic() + seconds

    def kill_head(self) -> None:
        """One of the two processes that make it one; returns once another takes its place."""
        before = self.stage.nodes()[HEAD_IP]
        os.kill(self._chance.choice(before.core).pid, signal.SIGKILL)
        assert wait_until(lambda: self._has_another_head(before), PATIENCE_S), "no head came back"
        self._gone_at = {}
        for ip in ADDED:
            self._leaves(ip)

    def return_all(self) -> None:
        """At the end nobody is away."""
        self._gone_at, self._back_at = {}, dict.fromkeys({*self._gone_at, *self._back_at}, 0.0)
        self.tend()

    def _has_another_head(self, before: NodeRecord) -> bool:
        now = self.stage.nodes().get(HEAD_IP)
        return now is not None and now.leader != before.leader and self.stage.ray.address() is not None

    def _any(self) -> str:
        there = [ip for ip in ADDED if ip not in self._back_at and ip not in self._gone_at]
        if not there:
            raise ProcessLookupError("all are away")
        return self._chance.choice(there)

    def _go(self, ip: str) -> None:
        self.stage.ray.remove_node(ip)
        self._leaves(ip)

    def _leaves(self, ip: str) -> None:
        self._back_at[ip] = time.monotonic() + self._chance.uniform(*AWAY_S)


def _due(times: dict[str, float]) -> list[str]:
    """Take out those whose time has come."""
    due = [ip for ip, at in times.items() if at <= time.monotonic()]
    for ip in due:
        del times[ip]
    return due


class Chaos:
    """The faults, and how often each came to pass."""

    def __init__(self, stage: Stage, jobs: list[Job], nodes: Nodes, chance: random.Random) -> None:
        self.stage = stage
        self.jobs = jobs
        self.done: Counter[str] = Counter()
        self._chance = chance
        self._faults: dict[str, tuple[int, Callable[[Job], None]]] = {
            "kill_worker": (12, lambda job: self._kill(job, 1)),
            "kill_workers": (6, lambda job: self._kill(job, 2, least=2)),
            "kill_all_workers": (2, lambda job: self._kill(job, 99)),
            "stop_worker": (2, self._freeze),
            "kill_controller": (4, lambda _: self._kill_any(stage.processes("ray::Controller"))),
            "stop_controller": (2, lambda _: self._still(stage.processes("ray::Controller"))),
            "kill_api": (2, lambda _: self._kill_child("api")),
            "kill_reconciler": (2, lambda _: self._kill_child("reconciler")),
            "kill_node": (6, lambda _: nodes.kill()),
            "drain_node": (6, lambda _: nodes.drain()),
            "kill_head": (1, lambda _: nodes.kill_head()),
            RESIZE: (12, lambda job: self._resize(job)),
        }

    @property
    def faults(self) -> int:
        """How many there were."""
        return self.done.total() - self.done[RESIZE]

    def strike(self) -> None:
        """One fault, of a random kind, against a random job."""
        names = list(self._faults)
        (name,) = self._chance.choices(names, [self._faults[each][0] for each in names])
        job = self._chance.choice(self.jobs)
        try:
            self._faults[name][1](job)
        except (ProcessLookupError, EmascaleError):
            return  # it was gone already, there were too few, or the service is just being started again
        self.done[name] += 1
        print(f"{time.strftime('%H:%M:%S')} {self.done.total()} {name} {job.id}", file=sys.stderr, flush=True)

    def _kill(self, job: Job, count: int, *, least: int = 1) -> None:
        """So many workers, or all that there are; nobody where there are fewer than `least`."""
        living = list(job.processes().values())
        if len(living) < least:
            raise ProcessLookupError(f"{len(living)} live")
        for process in self._chance.sample(living, min(count, len(living))):
            os.kill(process, signal.SIGKILL)

    def _freeze(self, job: Job) -> None:
        os.kill(self._chance.choice(list(job.processes().values()) or [NOBODY]), signal.SIGSTOP)

    def _kill_any(self, processes: list[int]) -> None:
        os.kill(self._chance.choice(processes or [NOBODY]), signal.SIGKILL)

    def _still(self, processes: list[int]) -> None:
        """One of them does nothing for longer than a worker may be silent, and then goes on."""
        process = self._chance.choice(processes or [NOBODY])
        os.kill(process, signal.SIGSTOP)
        try:
            time.sleep(STILL_S)
        finally:
            os.kill(process, signal.SIGCONT)

    def _kill_child(self, name: str) -> None:
        os.kill(int((self.stage.data_folder / "run" / f"{name}.pid").read_text()), signal.SIGKILL)

    def _resize(self, job: Job) -> None:
        self.stage.client.resize(job.id, self._chance.randint(1, 3))


def main(
    seconds: Annotated[float, typer.Option(help="How long to strike.")] = 120.0,
    seed: int = 0,
    jobs: int = 2,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Strike, then judge. Exit code 1 where anything was lost."""
    chance = random.Random(seed)
    seen: dict[int, NodeRecord] = {}
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, staged(Path(folder), slots=SLOTS) as stage:
        nodes = Nodes(stage, chance)
        nodes.tend()
        started = [_submit(stage, number) for number in range(jobs)]
        with _told(started):
            for job in started:
                job.until(lambda view: view.workers > 0)
            chaos = Chaos(stage, started, nodes, chance)
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                nodes.tend()
                chaos.strike()
                time.sleep(chance.uniform(*REST_S))
            nodes.return_all()
            judged = _judge(stage, started)
        seen = nodes.seen
    leaked = judged.pop("leaked_processes") + sum(len(members(node.leader)) for node in seen.values())
    result = {"faults": chaos.faults, "jobs": jobs, **judged, "leaked_processes": leaked, "by_kind": chaos.done}
    text = json.dumps(result, indent=2)
    print(text)
    if output is not None:
        output.write_text(text + "\n")
    sys.exit(any(result[name] for name in ("samples_lost", "samples_repeated", "events_lost", "leaked_processes")))


@contextmanager
def _told(jobs: Iterable[Job]) -> Iterator[None]:
    """Where it goes wrong, what happened to each job is told."""
    try:
        yield
    except BaseException:
        for job in jobs:
            print(f"\n{job.id}: {job.story()}", file=sys.stderr)
        log = next(iter(jobs)).stage.data_folder / "service.log"
        print(log.read_text(), file=sys.stderr)
        raise


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
    for job in jobs:
        job.progresses(2000)
        stage.client.cancel(job.id)
        job.ends(Phase.CANCELLED)
        ledger, events = stage.client.ledger(job.id), [event.model_dump() for event in job.events()]
        unaccounted = abs(sum(epoch.samples for epoch in ledger.epochs) - job.view.progress.samples)
        judged["samples_lost"] += ledger.samples_lost + unaccounted + history.lost_though_saved(events)
        judged["samples_repeated"] += ledger.samples_repeated
        numbers = [(event["incarnation"], event["sequence"]) for event in events]
        judged["events_lost"] += len(numbers) - len(set(numbers)) + history.untold_sizes(events)
        judged["events_lost"] += not any(event["type"] == "finished" for event in events)
    time.sleep(1.0)
    left = [process for title in ("ray::Rank", "ray::Controller") for process in stage.processes(title)]
    return judged | {"leaked_processes": sum(bool(Process.of(process)) for process in left)}


if __name__ == "__main__":
    typer.run(main)
