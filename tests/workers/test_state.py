"""State handed from those who have it to those who need it: every bit arrives, and nothing changes at the source."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.workers.peers import Link, Peers, gathered
from workers.membership import Transfers
from workers.mesh import Mesh, MeshBroken, Rendezvous
from workers.state import _SMALL, State, _pieces, exchange


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with gathered() as peers:
        yield peers


def rich_state(seed: int = 0) -> State:
    """All that a replica may hold, and more."""
    noise = torch.Generator().manual_seed(seed)

    def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, generator=noise).to(dtype)

    tied = nn.Parameter(random(300, 40))
    small: dict[str, Tensor] = {}
    for i in range(150):
        small[f"{i}.weight"] = nn.Parameter(random(7, i % 5 + 1))
        small[f"{i}.step"] = torch.tensor(float(i) + seed)
        small[f"{i}.batches"] = torch.tensor(2**62 + i + seed)
        small[f"{i}.mean"] = torch.tensor(1 / 3 + i, dtype=torch.float64)
        small[f"{i}.mask"] = random(3) > 0
        small[f"{i}.bf16"] = random(5, dtype=torch.bfloat16)
        small[f"{i}.complex"] = torch.complex(random(2), random(2))
    odd = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])
    large = {
        "tied.in": tied,
        "tied.out": tied,
        "conv": random(64, 32, 3, 3).to(memory_format=torch.channels_last),
        "transposed": random(200, 100).T,
        "every other": random(20000)[::2],
        "edge": random(_SMALL),
        "past the edge": random(_SMALL + 1),
        "half": random(10000, dtype=torch.float16),
        "big": random(1000, 1000),
        "mask": random(300, 300) > 0,
        "integers": torch.arange(10000) - 5000,
    }
    empty = {"none": torch.empty(0), "no rows": torch.empty(0, 3, dtype=torch.int32), "odd": odd}
    meta = {"samples": 123456789012345, "lr": 0.1, "inf": float("inf"), "nested": {"due": ["export"], "none": None}}
    return State({"model": small, "ema": {}, "optimizer": large, "other": empty}, meta)


def bits(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def about(state: State) -> list[Any]:
    """Everything that must arrive, in order."""
    tensors = [
        (group, name, t.shape, t.dtype, bits(t)) for group, named in state.groups.items() for name, t in named.items()
    ]
    return [list(state.groups), tensors, state.meta]


def storage(state: State) -> list[Any]:
    """What the source's tensors are, beside their values."""
    tensors = [t for named in state.groups.values() for t in named.values()]
    return [(id(t), t.data_ptr(), t.stride(), t.requires_grad, t._version) for t in tensors]


def plan_of(world: int, sources: tuple[int, ...]) -> Transfers:
    receivers = tuple(rank for rank in range(world) if rank not in sources)
    return Transfers(sources=sources, receivers=receivers, fresh=False)


# What peers run


def hand_on(_: Link, rendezvous: Rendezvous, all_sources: list[tuple[int, ...]]) -> list[str]:
    """One exchange after the other on the same mesh; says what each was like."""
    mesh = Mesh(rendezvous)
    mesh.join()
    outcomes = []
    for number, sources in enumerate(all_sources):
        plan, state = plan_of(mesh.world, sources), rich_state(number)
        if mesh.rank not in sources:
            got = exchange(mesh, plan, None)
            assert got is not None
            outcomes.append("the same" if about(got) == about(state) else "something else")
        else:
            before = storage(state)
            assert exchange(mesh, plan, state) is None
            untouched = storage(state) == before and about(state) == about(rich_state(number))
            outcomes.append("untouched" if untouched else "touched")
    mesh.vote(False)
    mesh.leave()
    return outcomes


def land(_: Link, rendezvous: Rendezvous) -> list[str]:
    """Which tensors arrived in the receiver's own memory: those that are large enough, and fit."""
    mesh = Mesh(rendezvous)
    mesh.join()
    sent = rich_state()
    own = {
        name: torch.zeros_like(t, memory_format=torch.contiguous_format) for name, t in sent.groups["optimizer"].items()
    }
    landing = {"optimizer": own | {"half": torch.zeros(9999, dtype=torch.float16), "mask": torch.zeros(300, 300)}}
    got = exchange(mesh, plan_of(2, (0,)), sent if mesh.rank == 0 else None, landing)
    mesh.vote(False)
    mesh.leave()
    if got is None:
        return []
    assert about(got) == about(sent)
    arrived = got.groups["optimizer"]
    return [name for name, tensor in landing["optimizer"].items() if arrived[name].data_ptr() == tensor.data_ptr()]


def hand_on_nothing(_: Link, rendezvous: Rendezvous) -> Any:
    mesh = Mesh(rendezvous)
    mesh.join()
    got = exchange(mesh, plan_of(2, (0,)), State({}, {"samples": 0}) if mesh.rank == 0 else None)
    mesh.vote(False)
    mesh.leave()
    return got and (got.groups, got.meta)


def lose_a_source(link: Link, rendezvous: Rendezvous, sources: tuple[int, ...]) -> None:
    """The second source only waits to be killed; the others exchange until they notice, or are severed."""
    mesh = Mesh(rendezvous)
    mesh.join()
    link.report("joined")
    if mesh.rank == sources[1]:
        link.word()
    threading.Thread(target=lambda: (link.word(), mesh.sever()), daemon=True).start()
    with pytest.raises(MeshBroken):
        exchange_and_vote(mesh, plan_of(mesh.world, sources))
    mesh.leave()


def exchange_and_vote(mesh: Mesh, plan: Transfers) -> None:
    exchange(mesh, plan, rich_state() if mesh.rank in plan.sources else None)
    mesh.vote(False)


# Tests


@pytest.mark.parametrize(
    ("world", "sources"), [(2, (0,)), (2, (1,)), (3, (1,)), (3, (0, 2)), (4, (1, 3)), (4, (0, 1, 2))]
)
def test_every_bit_arrives_and_the_sources_are_untouched(peers: Peers, world: int, sources: tuple[int, ...]) -> None:
    outcomes = peers.run(hand_on, world, [sources])
    assert outcomes == [["untouched"] if rank in sources else ["the same"] for rank in range(world)]


def test_one_exchange_after_the_other_in_changing_roles(peers: Peers) -> None:
    """Messages are numbered anew each time, and those of one exchange do not get into the next."""
    outcomes = peers.run(hand_on, 3, [(0,), (0,), (1, 2), (2,)])
    assert outcomes == [
        ["untouched", "untouched", "the same", "the same"],
        ["the same", "the same", "untouched", "the same"],
        ["the same", "the same", "untouched", "untouched"],
    ]


def test_large_tensors_arrive_where_the_receiver_has_room_for_them(peers: Peers) -> None:
    fitting = ["tied.in", "tied.out", "conv", "transposed", "every other", "past the edge", "big", "integers"]
    assert peers.run(land, 2) == [[], fitting]


def test_a_state_without_tensors_arrives(peers: Peers) -> None:
    assert peers.run(hand_on_nothing, 2) == [None, ({}, {"samples": 0})]


def test_a_source_that_dies_breaks_the_exchange(peers: Peers) -> None:
    """Of both others: gloo leaves a sender waiting whose message was half read when the receiver gave up."""
    for _ in range(2):
        first, second, receiver = peers.take(3)
        for peer, rendezvous in zip((first, second, receiver), peers.rendezvous(3), strict=True):
            peer.start(lose_a_source, rendezvous, (0, 1))
        for peer in (first, second, receiver):
            peer.report()
        second.kill()
        for peer in (first, receiver):
            peer.tell("sever")
        assert [first.result(), receiver.result()] == [None, None]


def test_nothing_travels_where_nobody_needs_it(peers: Peers) -> None:
    mesh = Mesh(*peers.rendezvous(1))  # not joined: any message would fail
    assert exchange(mesh, plan_of(1, (0,)), rich_state()) is None


def test_a_source_without_a_state_says_so(peers: Peers) -> None:
    """The receivers would wait for it for ever."""
    with pytest.raises(ValueError, match="rank 0"):
        exchange(Mesh(peers.rendezvous(2)[0]), plan_of(2, (0,)), None)


def test_small_tensors_travel_packed_and_large_ones_from_where_they_lie() -> None:
    state = rich_state()
    tensors = [tensor for named in state.groups.values() for tensor in named.values()]
    large = [tensor for tensor in tensors if tensor.numel() > _SMALL]
    _, pieces = _pieces(state)
    assert len(tensors) > 1000
    assert len(pieces) < 30
    assert len(pieces) == len({t.dtype for t in tensors if t.numel() <= _SMALL}) + len(large)
    for tensor in large:
        if tensor.is_contiguous():
            assert tensor.data_ptr() in {piece.data_ptr() for piece in pieces}


def test_the_size_counts_every_tensor() -> None:
    state = State({"a": {"x": torch.zeros(3), "y": torch.zeros(2, dtype=torch.int64)}, "b": {"x": torch.ones(())}}, {})
    assert state.nbytes == 12 + 16 + 4
