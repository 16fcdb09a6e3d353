"""Gradients over real process groups: sum, spread and squares are those that one process computes by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.workers.peers import Link, Peers, gathered
from workers import gradients
from workers.gradients import GradientReducer, square_sum
from workers.mesh import Mesh, Rendezvous

Slices = list[list[tuple[int, int]]]
"""By worker, its micro-batches."""


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with gathered() as found:
        yield found


@dataclass(frozen=True)
class Case:
    """What the workers are to do."""

    slices: Slices
    steps: int = 1
    norms: bool = True
    coordinates: bool = True
    every: int = 1
    fused: int = 2**18
    bucket_mb: float = 25.0
    model: str = "layers"
    alike: bool = False  # all samples

    @property
    def batch(self) -> int:
        return max(stop for worker in self.slices for _, stop in worker)

    @property
    def shards(self) -> list[tuple[int, int]]:
        return [part for worker in self.slices for part in worker if part[0] < part[1]]


@dataclass(frozen=True)
class Outcome:
    """What one worker had after one step."""

    grads: list[Tensor]
    spread: list[Tensor]
    square_norm: float
    measuring: bool
    shards: int
    buckets: list[tuple[int, int]]  # index and elements


class Layers(nn.Module):
    """Where it is `lazy`, the second layer has no gradient but in a step's last micro-batch."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 40), nn.Linear(40, 30), nn.Linear(30, 2)
        self.image = nn.Conv2d(2, 3, 2) if kind == "image" else None
        if self.image:
            self.image.to(memory_format=torch.channels_last)
        self.kind = kind

    def forward(self, x: Tensor, *, last: bool) -> Tensor:
        if self.image:
            x = x + self.image(x.reshape(-1, 2, 3, 1).expand(-1, 2, 3, 2)).flatten(1)
        hidden = torch.tanh(self.first(x))
        if self.kind == "lazy" and not last:
            return self.last(hidden[:, :30])  # type: ignore[no-any-return]
        return self.last(torch.tanh(self.second(hidden)))  # type: ignore[no-any-return]


def network(kind: str) -> Layers:
    torch.manual_seed(0)
    return Layers(kind).double()


def batch_of(step: int, case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    rows = 1 if case.alike else case.batch
    x, y = (torch.randn(rows, width, generator=generator, dtype=torch.float64) for width in (6, 2))
    return x.expand(case.batch, -1), y.expand(case.batch, -1)


def loss_of(model: Any, data: tuple[Tensor, Tensor], part: tuple[int, int], *, last: bool) -> Tensor:
    x, y = (tensor[slice(*part)] for tensor in data)
    return (model(x, last=last) - y).square().sum(1).mean()


class Seen(GradientReducer):
    """Keeps which buckets came."""

    buckets: list[tuple[int, int]]

    def _reduce(self, bucket: Any) -> Any:
        self.buckets.append((bucket.index(), bucket.buffer().numel()))
        return super()._reduce(bucket)


def train(_: Link, rendezvous: Rendezvous, case: Case) -> list[Outcome]:
    """Runs in a peer."""
    gradients.FUSED = case.fused
    mesh = Mesh(rendezvous)
    mesh.join()
    model = network(case.model)
    ddp = DistributedDataParallel(
        model,
        broadcast_buffers=False,  # type: ignore
        bucket_cap_mb=case.bucket_mb,  # type: ignore
        gradient_as_bucket_view=True,
    )
    reducer = Seen(ddp, norms=case.norms, coordinates=case.coordinates, summed=mesh.reduced, every=case.every)
    outcomes = []
    parts = case.slices[mesh.rank] or [(0, 0)]
    weights = [(stop - start) / case.batch for start, stop in parts]
    for step in range(case.steps):
        reducer.buckets = []
        data = batch_of(step, case)
        reducer.begin(weights, shards=len(case.shards))
        for position, ((start, stop), weight) in enumerate(zip(parts, weights, strict=True)):
            last = position == len(parts) - 1
            ddp.require_backward_grad_sync = last
            (loss_of(ddp, data, (start, max(stop, 1)), last=last) * weight).backward()  # type: ignore
            if not last:
                reducer.accumulated(position)
        if reducer.measuring:
            reducer.settle()
        outcomes.append(
            Outcome(
                grads=[p.grad.clone() for p in model.parameters()],  # type: ignore[union-attr]
                spread=[reducer.spread[p].clone() for p in model.parameters() if p in reducer.spread],
                square_norm=reducer.square_norm,
                measuring=reducer.measuring,
                shards=reducer.shards,
                buckets=reducer.buckets,
            )
        )
        model.zero_grad()
    mesh.leave()
    return outcomes


def by_hand(case: Case, step: int) -> tuple[list[Tensor], list[Tensor], float]:
    """Mean gradient, spread by coordinate, and sum of w |g|^2, on one process."""
    model = network(case.model)
    parameters, data = list(model.parameters()), batch_of(step, case)
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    for worker in case.slices:
        for part in worker:
            loss = loss_of(model, data, part, last=part == worker[-1])
            found = torch.autograd.grad(loss, parameters, allow_unused=True)
            for mean, square, g in zip(means, squares, found, strict=True):
                if g is not None:
                    weight = (part[1] - part[0]) / case.batch
                    mean.add_(g, alpha=weight)
                    square.add_(g.square(), alpha=weight)
    spread = [(square - mean.square()).detach() for mean, square in zip(means, squares, strict=True)]
    return means, spread, float(sum(square.sum() for square in squares))


def check(peers: Peers, case: Case) -> list[list[Outcome]]:
    """Every step of every worker against the one by hand; returns outcomes by step and worker."""
    by_worker: list[list[Outcome]] = peers.run(train, len(case.slices), case)
    steps = [list(outcomes) for outcomes in zip(*by_worker, strict=True)]
    for step, outcomes in enumerate(steps):
        means, spread, square_norm = by_hand(case, step)
        for outcome in outcomes:
            torch.testing.assert_close(outcome.grads, means, rtol=1e-11, atol=1e-14)
            if outcome.measuring and case.coordinates:
                torch.testing.assert_close(outcome.spread, spread, rtol=1e-9, atol=1e-14)
                assert all(bool((each >= 0).all()) for each in outcome.spread)
        if outcomes[0].measuring:
            assert sum(outcome.square_norm for outcome in outcomes) == pytest.approx(square_norm, rel=1e-11)
            assert outcomes[0].shards == len(case.shards)
    return steps


EQUAL: Slices = [[(0, 4)], [(4, 8)], [(8, 12)]]
UNEQUAL: Slices = [[(0, 5)], [(5, 6)], [(6, 9)]]
EMPTY: Slices = [[(0, 3)], [], [(3, 4)]]
ACCUMULATED: Slices = [[(0, 4), (4, 8), (8, 9)], [(9, 13)], [(13, 17), (17, 18)]]
PAIR: Slices = [[(0, 2), (2, 7)], [(7, 9)]]
ALONE: Slices = [[(0, 4), (4, 8), (8, 9)]]

every_cut = pytest.mark.parametrize(
    "slices",
    [EQUAL, UNEQUAL, EMPTY, ACCUMULATED, PAIR, ALONE],
    ids=["equal", "unequal", "empty", "accumulated", "pair", "alone"],
)


@every_cut
def test_one_bucket_carries_gradient_and_squares_together(peers: Peers, slices: Slices) -> None:
    (outcomes,) = check(peers, Case(slices))
    assert outcomes[0].measuring
    assert len(outcomes[0].buckets) == 1


@pytest.mark.parametrize("slices", [EMPTY, ACCUMULATED], ids=["empty", "accumulated"])
@pytest.mark.parametrize("fused", [0, 300, 2**18], ids=["apart", "mixed", "together"])
def test_many_buckets_whose_layout_changes(peers: Peers, slices: Slices, fused: int) -> None:
    case = Case(slices, steps=3, fused=fused, bucket_mb=0.004)
    steps = check(peers, case)
    layouts = [outcomes[0].buckets for outcomes in steps]
    assert len(layouts[0]) < len(layouts[1])
    assert layouts[1] == layouts[2]
    sizes = [size for _, size in layouts[1]]
    if fused == 300:
        assert min(sizes) <= fused < max(sizes)


@pytest.mark.parametrize("slices", [EMPTY, ACCUMULATED], ids=["empty", "accumulated"])
def test_the_norm_alone_costs_no_coordinates(peers: Peers, slices: Slices) -> None:
    steps = check(peers, Case(slices, steps=2, coordinates=False, bucket_mb=0.004))
    assert [outcome.spread for outcomes in steps for outcome in outcomes] == [[]] * 2 * len(slices)


def test_without_measuring_it_is_a_plain_sum(peers: Peers) -> None:
    steps = check(peers, Case(ACCUMULATED, steps=2, norms=False, coordinates=False))
    assert not any(outcome.measuring or outcome.square_norm for outcomes in steps for outcome in outcomes)


@pytest.mark.parametrize("slices", [EQUAL, ACCUMULATED], ids=["equal", "accumulated"])
def test_samples_that_are_all_alike_have_no_spread_below_zero(peers: Peers, slices: Slices) -> None:
    """Rounding would leave some."""
    steps = check(peers, Case(slices, steps=3, alike=True))
    assert all(float(each.max()) < 1e-13 for outcomes in steps for each in outcomes[0].spread)


def test_a_single_shard_has_no_spread(peers: Peers) -> None:
    ((outcome, other),) = check(peers, Case([[(0, 5)], []]))
    assert (outcome.measuring, other.measuring) == (False, False)
    assert outcome.spread == []


def test_the_sum_of_squares_of_millions() -> None:
    tensors = [torch.full((3000, 3000), 1e-3), torch.full((5,), 2.0), torch.zeros(0, 7)]
    assert square_sum(tensors) == pytest.approx(9e6 * 1e-6 + 20, rel=1e-5)
    assert square_sum([torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last).fill_(2.0)]) == pytest.approx(192)
    assert square_sum([]) == 0


@pytest.mark.parametrize("slices", [UNEQUAL, ACCUMULATED], ids=["unequal", "accumulated"])
def test_weights_that_lie_otherwise_in_memory(peers: Peers, slices: Slices) -> None:
    """A bucket holds a channels-last gradient as its weight lies, whatever `bucket.gradients` says."""
    check(peers, Case(slices, steps=2, model="image", bucket_mb=0.004))


def test_a_layer_that_only_the_last_micro_batch_uses(peers: Peers) -> None:
    check(peers, Case(ACCUMULATED, steps=2, model="lazy"))
    check(peers, Case(ACCUMULATED, steps=2, model="lazy", coordinates=False))


@pytest.mark.parametrize("coordinates", [True, False])
def test_every_so_many_steps(peers: Peers, coordinates: bool) -> None:
    case = Case(PAIR, steps=6, every=3, coordinates=coordinates, bucket_mb=0.004)
    steps = check(peers, case)
    assert [outcomes[0].measuring for outcomes in steps] == [True, False, False, True, False, False]
    assert [outcomes[1].measuring for outcomes in steps] == [True, False, False, True, False, False]
    if coordinates:
        for measured in (0, 3):
            for later in (1, 2):  # kept until the next measurement
                torch.testing.assert_close(steps[measured + later][0].spread, steps[measured][0].spread)
