"""`per_worker` in the trainer, over real process groups: Adam's v, weights and curves against the rules written out.

What the shards of a step are is spelled out in each case, and every gradient by hand is that of one shard.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from api_schemas.jobs import JobSpec
from api_schemas.scaling import NoiseScale, noise_scale_of
from tests.workers.peers import HOST, Link, Peers, gathered, results
from workers.archive import Archive
from workers.data import SampleOrder
from workers.journal import Journal
from workers.membership import Plan
from workers.mesh import Mesh, Rendezvous
from workers.noise import WINDOW
from workers.recipes import StepContext
from workers.storage import Storage
from workers.trainer import Trainer

BASE, SIZE, SEED = 8, 120, 3
LR, BETAS, EPS, DECAY = 1e-2, (0.9, 0.99), 1e-6, 0.1
CLIP, EVERY = 0.3, 3


@dataclass(frozen=True, kw_only=True)
class Part:
    """A generation: the shards of its steps, by size, in the order of samples."""

    shards: tuple[int, ...]
    steps: int

    @property
    def batch(self) -> int:
        return sum(self.shards)

    @property
    def kappa(self) -> float:
        return self.batch / BASE


@dataclass(frozen=True, kw_only=True)
class Case:
    world: int
    per_worker: int
    parts: tuple[Part, ...]
    optimizer: str = "adamw"

    @property
    def stops(self) -> list[int]:
        """Where the steps end, in samples."""
        return list(itertools.accumulate(part.batch for part in self.parts for _ in range(part.steps)))


@dataclass(frozen=True, kw_only=True)
class After:
    """What there is after a step."""

    values: list[Tensor]
    v: list[Tensor]


# -- in the trainer ----------------------------------------------------------------------------------------------------


class Regress:
    """In double precision, so that a comparison can be sharp."""

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()

    def train_data(self) -> TensorDataset:
        x = torch.randn(SIZE, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        return TensorDataset(x, x.sum(dim=1, keepdim=True))

    def loss(self, model: nn.Module, batch: Any, step: StepContext) -> Tensor:  # noqa: ARG002
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def evaluate(self, model: nn.Module) -> dict[str, float]:  # noqa: ARG002
        return {}


class Watched(Trainer):
    """Keeps what it has after each step."""

    seen: list[After]

    def step(self, *args: Any) -> bool:
        ended = super().step(*args)
        state = self.replica.optimizer.state
        owned = list(self.replica.model.parameters())
        values, v = [p.detach().clone() for p in owned], [state[p]["exp_avg_sq"].clone() for p in owned]
        self.seen.append(After(values=values, v=v))
        return ended


def spec(case: Case) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "noise",
            "recipe": {"name": "any"},
            "optimizer": {"name": case.optimizer, "lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY},
            "schedule": {"budget": "1000 samples"},
            "batch": {"base": BASE, "per_worker": case.per_worker},
            "clip": {"norm": CLIP},
            "scaling": {"second_moment": "per_worker", "sample_every": EVERY},
            "seed": SEED,
        }
    )


Outcome = tuple[list[After], list[tuple[int, dict[str, float | None]]]]
"""After each step, and the points of the curves."""


def train(_: Link, meetings: list[Rendezvous], case: Case, folder: Path) -> Outcome:
    """Runs in a peer."""
    journal = Journal()
    archive = Archive(Storage(str(folder)), journal, incarnation=1, keep=3, about={})
    trainer = Watched(spec(case), Regress(), journal, archive)  # type: ignore[arg-type]
    trainer.seen = []
    leave_at = 0
    for part, rendezvous in zip(case.parts, meetings, strict=True):
        leave_at += part.steps * part.batch
        mesh = Mesh(rendezvous)
        mesh.join()
        trainer.enter(mesh, plan(part, rendezvous))
        trainer.run(mesh, lambda samples, leave_at=leave_at: samples >= leave_at)  # type: ignore[misc]
        trainer.leave()
        mesh.leave()
    return trainer.seen, journal.points(0)


def plan(part: Part, rendezvous: Rendezvous) -> Plan:
    """Limits of kappa that leave no choice."""
    return Plan(
        generation=rendezvous.generation,
        members=tuple(f"w{rank}" for rank in range(rendezvous.world)),
        host=HOST,
        port=rendezvous.port,
        kappa=(part.kappa, part.kappa),
    )


# -- by hand -----------------------------------------------------------------------------------------------------------


@dataclass
class Noise:
    """tr Sigma and |G|^2, averaged apart by samples."""

    trace: float = 0.0
    square: float = 0.0
    filled: float = 0.0

    def add(self, trace: float, square: float, batch: int) -> None:
        share = 1 - math.exp(-batch / (WINDOW * BASE))
        self.trace += share * (trace - self.trace)
        self.square += share * (square - self.square)
        self.filled += share * (1 - self.filled)

    def scale(self) -> NoiseScale:
        return noise_scale_of(self.trace / self.filled, max(self.square, 0.0) / self.filled, BASE)


@dataclass
class ByHand:
    """The run on one process: each `step` leaves its weights, v and noise here."""

    coupled: bool  # weight decay
    model: nn.Module = field(default_factory=lambda: Regress().model())
    noise: Noise = field(default_factory=Noise)
    samples: int = 0
    time: float = 0.0  # Adam's step counter
    spread: list[Tensor] = field(default_factory=list)  # Q of the last measurement
    kept: float = 1.0  # of the last gradient, by clipping

    def __post_init__(self) -> None:
        self.values = list(self.model.parameters())
        self.m = [torch.zeros_like(p) for p in self.values]
        self.v = [torch.zeros_like(p) for p in self.values]

    def step(self, part: Part, *, measures: bool, f: float, limit: float) -> None:
        gradients = [self.gradient(size) for size in part.shards]
        weights = [size / part.batch for size in part.shards]
        mean = weighted(weights, gradients)
        if measures:
            squares = weighted(weights, [[g.square() for g in shard] for shard in gradients])
            self.spread = [square - g.square() for square, g in zip(squares, mean, strict=True)]
            trace = part.batch * total(self.spread) / (len(part.shards) - 1)
            square = total([g.square() for g in mean]) - trace / part.batch
            self.noise.add(trace, square, part.batch)
        self.kept = min(1.0, limit / math.sqrt(total([g.square() for g in mean])))
        self.update([self.kept * g for g in mean], part, f)

    def gradient(self, size: int) -> list[Tensor]:
        """Of the mean loss over the next samples."""
        _, indices = SampleOrder(SIZE, SEED).keys(self.samples, self.samples + size)
        self.samples += size
        x, y = (tensor[indices] for tensor in Regress().train_data().tensors)
        return list(torch.autograd.grad(nn.functional.mse_loss(self.model(x), y), self.values))

    @torch.no_grad()
    def update(self, gradients: list[Tensor], part: Part, f: float) -> None:
        kappa, shards = part.kappa, len(part.shards)
        lr, (beta1, beta2) = LR * kappa, (beta**kappa for beta in BETAS)
        self.time += 1
        for i, (value, g) in enumerate(zip(self.values, gradients, strict=True)):
            if self.coupled:
                g = g + DECAY * value
            else:
                value.mul_(1 - lr * DECAY)
            if kappa >= 1 and shards >= 2:
                fed = g.square() + (kappa - 1) / (shards - 1) * self.kept**2 * self.spread[i]
            else:
                fed = g.square() / (1 - f + f / kappa)
            self.m[i] = beta1 * self.m[i] + (1 - beta1) * g
            self.v[i] = beta2 * self.v[i] + (1 - beta2) * fed
            root = (self.v[i] / (1 - beta2**self.time)).sqrt() + EPS
            value.sub_(lr * self.m[i] / (1 - beta1**self.time) / root)


def weighted(weights: list[float], shards: list[list[Tensor]]) -> list[Tensor]:
    """The mean over the shards, by parameter."""
    return [
        torch.stack([w * g for w, g in zip(weights, each, strict=True)]).sum(0) for each in zip(*shards, strict=True)
    ]


def total(tensors: list[Tensor]) -> float:
    return sum(float(tensor.sum()) for tensor in tensors)


def by_hand(case: Case) -> Iterator[ByHand]:
    """The same object after each step of the run."""
    hand, before = ByHand(coupled=case.optimizer == "adam"), None
    for part in case.parts:
        measured = hand.noise.filled > 0  # the newest f counts from one change of size to the next
        f = hand.noise.scale().noise_fraction if measured else 1.0
        limit = CLIP * math.sqrt(1 - f + f / part.kappa) if measured else CLIP
        hand.time *= before.kappa / part.kappa if before else 1.0
        before = part
        for number in range(part.steps):
            hand.step(part, measures=len(part.shards) > 1 and number % EVERY == 0, f=f, limit=limit)
            yield hand


# -- the comparison ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with gathered() as found:
        yield found


def run(peers: Peers, case: Case, folder: Path) -> list[Outcome]:
    """By rank."""
    meetings = [peers.rendezvous(case.world) for _ in case.parts]
    players = peers.take(case.world)
    for rank, player in enumerate(players):
        player.start(train, [meeting[rank] for meeting in meetings], case, folder)
    return results(players)


WITH_FOUR = Part(shards=(6, 6, 5, 5), steps=7)
CASES = {
    "accumulated": Case(world=1, per_worker=6, parts=(WITH_FOUR,)),
    "accumulated, coupled decay": Case(world=1, per_worker=6, parts=(WITH_FOUR,), optimizer="adam"),
    "two workers": Case(world=2, per_worker=7, parts=(Part(shards=(7, 6), steps=7),)),
    "two workers, coupled decay": Case(world=2, per_worker=7, parts=(Part(shards=(7, 6), steps=7),), optimizer="adam"),
    "two workers, accumulated": Case(world=2, per_worker=6, parts=(Part(shards=(6, 5, 5, 5), steps=7),)),
    "below the base batch": Case(world=2, per_worker=3, parts=(Part(shards=(3, 2), steps=7),)),
    "at the base batch": Case(world=2, per_worker=4, parts=(Part(shards=(4, 4), steps=4),)),
    "smaller and larger": Case(
        world=1,
        per_worker=6,
        parts=(Part(shards=(6, 6), steps=4), Part(shards=(4,), steps=4), Part(shards=(6, 5, 5), steps=5)),
    ),
    "smaller and larger, two workers": Case(
        world=2,
        per_worker=7,
        parts=(Part(shards=(5, 5), steps=4), Part(shards=(3, 2), steps=4), Part(shards=(7, 7, 6, 7, 7, 6), steps=5)),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_v_weights_and_noise_are_those_of_the_shards(peers: Peers, tmp_path: Path, case: Case) -> None:
    """Where the batch is at least the base and there are two shards; elsewhere the noise fraction takes their place."""
    outcomes = run(peers, case, tmp_path)
    sharp = {"rtol": 1e-9, "atol": 1e-13}
    kept = []
    for number, hand in enumerate(by_hand(case)):
        kept.append(hand.kept)
        for seen, points in outcomes:
            torch.testing.assert_close(seen[number].v, hand.v, **sharp)
            torch.testing.assert_close(seen[number].values, [p.detach() for p in hand.values], **sharp)
            samples, curve = points[number]
            assert samples == hand.samples == case.stops[number]
            noise = hand.noise.scale()
            assert 0 < noise.noise_fraction < 1, "there is something to tell"
            assert curve["noise_fraction"] == pytest.approx(noise.noise_fraction, rel=1e-9)
            assert curve["noise_scale"] == pytest.approx(noise.noise_batch, rel=1e-9)
    assert [len(seen) for seen, _ in outcomes] == [len(points) for _, points in outcomes] == [len(kept)] * case.world
    assert max(kept) < 1, "clipping bites at every step"
