"""Samples per second beside a hand-written DDP loop: `./run bench throughput [--json FILE]`.

Both train the same model on the same data, with AdamW, an EMA and gloo, one torch thread a rank, in processes of their
own: ours through `Trainer.run`, the loop that Ray runs. They take turns, a block of steps each, while the other sleeps.
A ratio is the median over pairs of neighbouring blocks, of several pairs of processes, since how a process's memory
happens to lie makes it faster or slower for all its life; every step takes 100 ms at least. `cpu_ratio` is the same of
processor seconds, which neighbours on the machine disturb less. The loop by hand has the foreach AdamW and malloc as it
comes; the ratios that begin with `fused` are against one that has what we have: the fused AdamW, which is not torch's
default on a CPU, and memory that is kept.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch.distributed as dist
import typer

from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from tests.benchmarks import MODELS, finish, say, spread
from tests.benchmarks.peers.ddp import RHO, Loop
from tests.workers.peers import HOST, Link, Peer, gathered
from workers import memory
from workers.archive import Archive
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, Rendezvous
from workers.recipes.classify import Classify
from workers.trainer import Trainer

BLOCK_S = 2.0
SHORTEST_STEP_S = 0.1
SAMPLED = 8
"""The `sample_every` that is measured."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is trained, and how."""

    model: str
    config: dict[str, Any]
    batch: int  # samples a worker and step
    world: int
    scaling: dict[str, Any] = field(default_factory=dict)
    fused: bool = False  # the loop by hand takes the fused AdamW and keeps its memory too

    def spec(self) -> JobSpec:
        """For our loop."""
        made = {
            "name": "throughput",
            "recipe": {"name": "classify", "config": self.config},
            "optimizer": {"name": "adamw", "lr": 1e-3},
            "schedule": {"budget": "1000000 epochs"},
            "ema": {"momentum": RHO},
            "batch": {"base": self.batch, "per_worker": self.batch},
            "elasticity": {"workers": [1, self.world]},
            "scaling": self.scaling,
        }
        return JobSpec.model_validate(made)


class Took(NamedTuple):
    """A block of steps."""

    wall_s: float
    cpu_s: float


def main(
    pairs: Annotated[int, typer.Option(help="Blocks of each loop in each pair of processes.")] = 5,
    lives: Annotated[int, typer.Option(help="Pairs of processes.")] = 5,
    only: Annotated[str, typer.Option(help="Cases whose name holds this.")] = "",
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, write all."""
    rows = {name: _measure(case, pairs, lives) for name, case in _cases().items() if only in name}
    result: dict[str, Any] = {"rows": [row for name, row in rows.items() if "world" in name]}
    for name, row in rows.items():
        if "world" not in name:
            result |= {f"{name}_ratio": row["ratio"], name: row}
    finish(result, output)


def _cases() -> dict[str, Case]:
    hidden, depth = MODELS["26 M"]
    large: dict[str, Any] = {"model": "mlp 26 M", "config": {"hidden": hidden, "depth": depth}, "batch": 64}
    small: dict[str, Any] = {"model": "cnn", "config": {"model": "cnn", "hidden": 64, "depth": 4}, "batch": 512}
    cases = {
        f"{about['model']}, world {world}": Case(world=world, **about) for about in (large, small) for world in (1, 2)
    }
    cases["per_worker"] = Case(world=2, **large, scaling={"second_moment": "per_worker"})
    sampled = {"second_moment": "per_worker", "sample_every": SAMPLED}
    cases["per_worker_sampled"] = Case(world=2, **large, scaling=sampled)
    cases["fused_cnn"] = Case(world=1, **small, fused=True)
    cases["fused"] = Case(world=2, **large, fused=True)
    cases["fused_per_worker"] = Case(world=2, **large, fused=True, scaling={"second_moment": "per_worker"})
    cases["fused_per_worker_sampled"] = Case(world=2, **large, fused=True, scaling=sampled)
    return cases


def _measure(case: Case, pairs: int, lives: int) -> dict[str, Any]:
    steps, blocks = 0, []
    for _ in range(lives):
        with _running(plain, case) as theirs, _running(emascale, case) as ours:
            _block(ours, 3)
            _block(theirs, 3)  # DDP lays its buckets out anew after the first step
            steps = steps or max(2, round(BLOCK_S / (_block(theirs, 3).wall_s / 3)))
            blocks += [(_block(theirs, steps), _block(ours, steps)) for _ in range(pairs)]
    row = _row(case, steps, blocks)
    say(row)
    assert row["step_s"] >= SHORTEST_STEP_S, "such short steps cannot be compared"
    return row


def _row(case: Case, steps: int, blocks: list[tuple[Took, Took]]) -> dict[str, Any]:
    plain_s, our_s = (statistics.median(block[i].wall_s for block in blocks) / steps for i in (0, 1))
    samples, ratios = case.batch * case.world, [their.wall_s / our.wall_s for their, our in blocks]
    return {
        "world": case.world,
        "model": case.model,
        "second_moment": case.spec().scaling.second_moment,
        "sample_every": case.spec().scaling.sample_every,
        "plain_optimizer": "fused" if case.fused else "foreach",
        "step_s": round(plain_s, 4),
        "plain": round(samples / plain_s, 1),
        "emascale": round(samples / our_s, 1),
        "ratio": round(statistics.median(ratios), 4),
        "ratio_range": spread(ratios),
        "cpu_ratio": round(statistics.median(their.cpu_s / our.cpu_s for their, our in blocks), 4),
    }


# -- processes ---------------------------------------------------------------------------------------------------------


@contextmanager
def _running(function: Any, case: Case) -> Iterator[list[Peer]]:
    """One process a rank, each of which trains a block of steps when told how many."""
    with gathered() as peers:
        ranks = peers.take(case.world)
        for rank, rendezvous in zip(ranks, peers.rendezvous(case.world), strict=True):
            rank.start(function, rendezvous, case)
        yield ranks
        for rank in ranks:
            rank.tell(0)
        for rank in ranks:
            rank.result()


def _block(ranks: list[Peer], steps: int) -> Took:
    """Of the slowest rank; the processor seconds of all."""
    for rank in ranks:
        rank.tell(steps)
    reports = [rank.report() for rank in ranks]
    return Took(max(wall for wall, _ in reports), sum(cpu for _, cpu in reports))


class _Clock:
    def __init__(self) -> None:
        self._began = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self._began[0], time.process_time() - self._began[1]


def plain(link: Link, at: Rendezvous, case: Case) -> None:
    """A rank of the loop by hand."""
    if case.fused:
        memory.keep()
    store = dist.TCPStore(HOST, at.port, is_master=False, wait_for_workers=False)  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=at.rank, world_size=at.world)
    loop = Loop(Classify.Config.model_validate(case.config), case.batch, fused=case.fused)
    while steps := link.word():
        clock = _Clock()
        for _ in range(steps):
            loop.step()
        link.report(clock.read())
    dist.destroy_process_group()


def emascale(link: Link, at: Rendezvous, case: Case) -> None:
    """A rank of ours."""
    memory.keep()  # as in workers.rank
    with tempfile.TemporaryDirectory() as folder:
        launch, journal = Launch(job="j", incarnation=1, spec=case.spec(), storage=folder), Journal()
        trainer, mesh = Trainer.of(launch, journal, Archive.of(launch, journal)), Mesh(at)
        mesh.join()
        trainer.enter(mesh, _plan(at, launch.spec))
        while steps := link.word():
            clock = _Clock()
            goal = trainer.replica.samples + steps * trainer.replica.size.batch
            trainer.run(mesh, lambda samples, goal=goal: samples >= goal)  # type: ignore[misc]
            link.report(clock.read())
        trainer.leave()
        mesh.leave()


def _plan(at: Rendezvous, spec: JobSpec) -> Plan:
    members = tuple(f"w{rank}" for rank in range(at.world))
    return Plan(generation=at.generation, members=members, host=at.host, port=at.port, kappa=spec.elasticity.kappa)


if __name__ == "__main__":
    typer.run(main)
