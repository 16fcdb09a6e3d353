"""What a step boundary and a re-mesh cost as the world grows, and what follows for 1,000: `./run bench scale`.

Real processes on this machine, with a model so small that sixteen fit: `vote_ms` is one vote, all members being there;
`remesh_s` from the last step of one generation to the first of the next one of the same size, for the slowest member.
Two cores run all of them in turn, so what each member does itself is measured in processor seconds beside it, and the
model that is fitted counts those once for a member that has a machine of its own. The store's share is that of its
process, which does nothing else. A hop from one member to the next is half of a vote between two: more of them wait for
a core.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
import typer
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from api_schemas.exchange import Launch
from api_schemas.jobs import JobSpec
from tests.benchmarks import finish, say, spread
from tests.workers.peers import Link, Peers, gathered
from workers.archive import Archive
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, Rendezvous
from workers.recipes import StepContext
from workers.trainer import Trainer

VOTES = 40
"""In each generation."""
STEPS = 3

ASSUMPTIONS = [
    "A member has a core of its own; on the machine that was measured all of them share two, which lengthens remesh_s.",
    "A hop between two members takes as long as on the loopback, a process being woken for it; a network adds its own.",
    "gloo reduces in a ring, 2 (W - 1) hops one after the other, and connects every member to every other.",
    "The store is one thread; each member reads what all others wrote, so its work grows with W^2.",
    "A member's own work is linear in W: a connection to each other one, and its sockets looked through.",
    "Nobody joins: state handed to joiners comes on top, and does not depend on W.",
]


class Tiny:
    """Fit a line."""

    class Config(BaseModel):
        """Nothing to set."""

    def __init__(self, config: Config, seed: int) -> None:
        pass

    def model(self) -> nn.Module:
        """Nine weights."""
        return nn.Linear(8, 1)

    def train_data(self) -> TensorDataset:
        """Zeros."""
        return TensorDataset(torch.zeros(1024, 8), torch.zeros(1024, 1))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002 (part of the protocol)
        """Mean square."""
        return nn.functional.mse_loss(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002 (part of the protocol)
        """Not asked for."""
        return {"loss": 0.0}


class Found(NamedTuple):
    """What one member measured, a generation each."""

    votes_s: list[float]
    remeshes_s: list[float]
    cpu_s: list[float]  # of the re-meshes


def main(
    worlds: Annotated[str, typer.Option(help="Sizes, separated by commas.")] = "1,2,4,8,16",
    repeat: Annotated[int, typer.Option(help="Re-meshes at each size.")] = 10,
    output: Annotated[Path | None, typer.Option("--json", help="Write the result here.")] = None,
) -> None:
    """Measure, print a row at a time, fit, write all."""
    with gathered() as peers, tempfile.TemporaryDirectory() as folder:
        rows = [_measure(peers, int(world), repeat, folder) for world in worlds.split(",")]
    finish({"rows": rows, "model": _fitted(rows)}, output)


def _measure(peers: Peers, world: int, repeat: int, folder: str) -> dict[str, Any]:
    peers.run(meet, world)  # what is imported and connected once
    generations = [peers.rendezvous(world) for _ in range(repeat + 1)]
    members = peers.take(world)
    began = time.process_time()
    for rank, member in enumerate(members):
        member.start(live, [generation[rank] for generation in generations], f"{folder}/{world}")
    found: list[Found] = [member.result() for member in members]
    store_s = (time.process_time() - began) / (repeat + 1)
    row = {
        "world": world,
        "vote_ms": spread([1000 * vote for vote in found[0].votes_s]),
        "remesh_s": spread([max(times) for times in zip(*(each.remeshes_s for each in found), strict=True)]),
        "member_cpu_s": round(statistics.median(cpu for each in found for cpu in each.cpu_s), 5),
        "store_cpu_s": round(store_s, 5),
    }
    say(row)
    return row


def _fitted(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A vote by hops; straight lines through the medians: a member's work by the others, the store's by pairs."""
    worlds = [row["world"] for row in rows]
    hop_ms = next(row["vote_ms"]["median"] for row in rows if row["world"] == 2) / 2
    other_s, member_s = statistics.linear_regression([w - 1 for w in worlds], [row["member_cpu_s"] for row in rows])
    pair_s, store_s = statistics.linear_regression([w * w for w in worlds], [row["store_cpu_s"] for row in rows])

    def at(world: int) -> dict[str, float]:
        remesh = member_s + other_s * (world - 1) + store_s + pair_s * world**2
        return {"vote_ms": round(1000 * ring_s(world, hop_ms), 2), "remesh_s": round(remesh, 3)}

    return {
        "vote_ms": f"{hop_ms:.4f} * 2 (W - 1)",
        "remesh_s": f"{member_s:.5f} + {other_s:.6f} (W - 1) + {store_s:.5f} + {pair_s:.8f} W^2",
        "constants": {
            "hop_ms": hop_ms,
            "member_s": member_s,
            "other_s": other_s,
            "store_s": store_s,
            "pair_s": pair_s,
        },
        "predicted": {str(world): at(world) for world in (16, 100, 1000)},
        "assumptions": ASSUMPTIONS,
    }


def ring_s(world: int, hop_ms: float) -> float:
    """Something small once round the ring and back."""
    return 2 * (world - 1) * hop_ms / 1000


# -- in the members ----------------------------------------------------------------------------------------------------


def meet(_: Link, at: Rendezvous) -> None:
    """Once, for nothing."""
    mesh = Mesh(at)
    mesh.join()
    mesh.vote(False)
    mesh.leave()


def live(_: Link, places: list[Rendezvous], folder: str) -> Found:
    """A member of one generation after the other; the first is not counted."""
    launch, journal = Launch(job="j", incarnation=1, spec=_spec(), storage=folder), Journal()
    trainer, mesh, found = Trainer.of(launch, journal, Archive.of(launch, journal)), Mesh(places[0]), Found([], [], [])
    for at in places:
        began, cpu = time.monotonic(), time.process_time()
        if at is not places[0]:
            trainer.leave()
            mesh.leave()
            mesh = Mesh(at)
        mesh.join()
        trainer.enter(mesh, _plan(at))
        if at is not places[0]:
            found.remeshes_s.append(time.monotonic() - began)
            found.cpu_s.append(time.process_time() - cpu)
        goal = trainer.replica.samples + STEPS * trainer.replica.size.batch
        trainer.run(mesh, lambda samples, goal=goal: samples >= goal)  # type: ignore[misc]
        found.votes_s.extend(_vote(mesh) for _ in range(VOTES))
    trainer.leave()
    mesh.leave()
    return found


def _vote(mesh: Mesh) -> float:
    began = time.monotonic()
    mesh.vote(False, 0.0, 0.0)
    return time.monotonic() - began


def _spec() -> JobSpec:
    made = {
        "name": "scale",
        "recipe": {"name": "tests.benchmarks.scale:Tiny"},
        "optimizer": {"name": "adamw", "lr": 1e-3},
        "schedule": {"budget": "1000000 epochs"},
        "ema": {"momentum": 0.99},
        "batch": {"base": 16, "per_worker": 1},
        "elasticity": {"mode": "hold", "workers": [1, 16]},
    }
    return JobSpec.model_validate(made)


def _plan(at: Rendezvous) -> Plan:
    members = tuple(f"w{rank}" for rank in range(at.world))
    return Plan(generation=at.generation, members=members, host=at.host, port=at.port, kappa=(1e-3, 1e3))


if __name__ == "__main__":
    typer.run(main)
