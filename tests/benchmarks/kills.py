"""How soon the survivors of a worker that dies in its backward pass are free: `./run bench kills --count 100`.

Three worker processes train an MLP of 26 M parameters with DDP, led by the conductor of a job, without Ray. One of them
gets SIGKILL at a random moment of a backward pass, again and again; its place is taken each time. Of every survivor:
`free_s`, from the signal until its training thread is out of the broken generation, and `step_s`, until its first step
in the next one is done. `usual_step_s` is how long the step before took.
"""

from __future__ import annotations

import asyncio
import itertools
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from tests.benchmarks import MODELS, finish, parameters, say, spread
from tests.workers.company import Theatre, plane
from tests.workers.stage import allocation
from workers import memory
from workers.mesh import Mesh
from workers.recipes import StepContext
from workers.trainer import Trainer

memory.keep()  # as in workers.rank

MODEL = "26 M"
WORKERS, PER_WORKER = 3, 8
LATE_S = 1.0
PATIENCE_S = 120.0


class Wide:
    """An MLP on random samples."""

    class Config(BaseModel):
        pass

    def __init__(self, *_: object) -> None:
        pass

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        width, depth = MODELS[MODEL]
        sizes = [64, *[width] * depth]
        layers = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(width, 10))

    def train_data(self) -> TensorDataset:
        return TensorDataset(torch.randn(1000, 64), torch.randint(10, (1000,)))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002
        x, y = batch
        return nn.functional.cross_entropy(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002
        return {}


# -- in the process of a worker ----------------------------------------------------------------------------------------


class Gauge:
    """What a worker shows of its backward pass, in memory that outlives it: began at, and how long the last one took.

    While it is in none, the moment is 0.
    """

    def __init__(self, place: Path) -> None:
        place.touch()
        if not place.stat().st_size:
            place.write_bytes(bytes(16))
        with place.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 16)

    def show(self, began: float, took: float) -> None:
        struct.pack_into("dd", self._memory, 0, began, took)

    def read(self) -> tuple[float, float]:
        began, took = struct.unpack_from("dd", self._memory)
        return began, took


def measured(folder: Path, worker: str) -> None:
    """Have this worker show its backward passes, and write down when it left a generation or did its first step."""
    gauge, log = Gauge(folder / f"{worker}.gauge"), (folder / f"{worker}.log").open("a", buffering=1)
    backward, leave, step = torch.Tensor.backward, Mesh.leave, Trainer.step
    told, took = set(), [0.0]

    def tell(what: str, generation: int) -> None:
        if (what, generation) not in told:
            told.add((what, generation))
            print(what, generation, time.monotonic(), file=log)

    def shown(self: Tensor, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        gauge.show(began, took[0])
        try:
            backward(self, *args, **options)  # type: ignore[no-untyped-call]
            took[0] = time.monotonic() - began
        finally:
            gauge.show(0.0, took[0])

    def left(self: Mesh) -> None:
        leave(self)
        tell("left", self.generation)

    def stepped(self: Trainer, group: Mesh, *args: Any) -> bool:
        ended = step(self, group, *args)
        tell("stepped", group.generation)
        return ended

    torch.Tensor.backward = shown  # type: ignore[method-assign]
    Mesh.leave = left  # type: ignore[method-assign]
    Trainer.step = stepped  # type: ignore[method-assign,assignment]


# -- the bench ---------------------------------------------------------------------------------------------------------


class Range:
    """The job, and what its workers show."""

    def __init__(self, folder: Path, seed: int) -> None:
        batch = {"base": WORKERS * PER_WORKER, "per_worker": PER_WORKER}
        spec = plane(recipe={"name": f"{Wide.__module__}:Wide"}, batch=batch)
        self.theatre = Theatre(folder, spec, watched=False)
        self.random = random.Random(seed)
        self._folder = folder
        for number in range(1000):
            self.theatre.crew.prepared[f"w{number}"] = partial(measured, folder, f"w{number}")

    async def kill(self) -> list[dict[str, float]]:
        """One, in a backward pass; the others' times. An empty list: it had just come to its end."""
        members = self.theatre.training()
        victim = self.random.choice(members)
        status = self.theatre.conductor._roll.workers[victim]
        generation = status.generation
        struck_at = await asyncio.to_thread(self._strike, victim)
        survivors = [member for member in members if member != victim]
        await self.until(lambda: all(self._next_step(worker, generation) for worker in survivors))
        if not Gauge(self._folder / f"{victim}.gauge").read()[0]:
            return []
        return [
            {
                "free_s": self._moment(worker, "left", generation) - struck_at,
                "step_s": self._next_step(worker, generation) - struck_at,
                "usual_step_s": status.step_s,
            }
            for worker in survivors
        ]

    async def whole(self) -> None:
        """Everybody trains, and has done so for some steps; a process stands by."""
        await self.theatre.crew.stand_by(1)
        await self.until(lambda: len(self.theatre.training()) == WORKERS)
        assert self.theatre.report is not None
        reached = self.theatre.report.samples + 3 * WORKERS * PER_WORKER
        await self.until(lambda: self.theatre.report and self.theatre.report.samples >= reached)

    async def until(self, condition: Callable[[], object]) -> None:
        """Ask as the service does. TimeoutError where it never comes to that."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await self.theatre.exchange(wait_s=0.05)

    def _strike(self, victim: str) -> float:
        gauge = Gauge(self._folder / f"{victim}.gauge")
        process = self.theatre.crew.pid(victim)
        last, took = gauge.read()
        while not (gauge.read()[0] and gauge.read()[0] != last):
            time.sleep(0.0002)
        time.sleep(self.random.random() * took)
        struck_at = time.monotonic()
        os.kill(process, signal.SIGKILL)
        return struck_at

    def _next_step(self, worker: str, generation: int) -> float:
        """When the worker did its first step after that generation; 0: not yet."""
        moments = [moment for what, number, moment in self._log(worker) if what == "stepped" and number > generation]
        return min(moments, default=0.0)

    def _moment(self, worker: str, what: str, generation: int) -> float:
        (moment,) = (moment for each, number, moment in self._log(worker) if (each, number) == (what, generation))
        return moment

    def _log(self, worker: str) -> list[tuple[str, int, float]]:
        lines = (self._folder / f"{worker}.log").read_text().splitlines(keepends=True)
        words = [line.split() for line in lines if line.endswith("\n")]
        return [(what, int(generation), float(moment)) for what, generation, moment in words]


async def _measure(folder: Path, count: int, seed: int) -> list[dict[str, float]]:
    bench, found, kills = Range(folder, seed), [], 0
    bench.theatre.allocation = allocation(WORKERS)
    try:
        while kills < count:
            await bench.whole()
            times = await bench.kill()
            found += times
            kills += bool(times)
            for each in times:
                say({name: round(value, 4) for name, value in each.items()})
    finally:
        await bench.theatre.end()
    bench.theatre.check_line()
    assert not bench.theatre.told("rollback")
    return found


def main(
    count: Annotated[int, typer.Option(help="Workers to kill.")] = 100,
    seed: int = 0,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Kill, and measure every survivor. Exit code 1 where one was not free within a second."""
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        found = asyncio.run(_measure(Path(folder), count, seed))
    result: dict[str, Any] = {"params": parameters(MODEL), "kills": count, "survivors": len(found)}
    for name in found[0]:
        result[name] = spread([each[name] for each in found])
    result["late"] = sum(each["free_s"] > LATE_S for each in found)
    finish(result, output)
    sys.exit(result["late"] > 0)


if __name__ == "__main__":
    typer.run(main)
