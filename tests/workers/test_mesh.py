"""The mesh between real processes: generation after generation, with members lost at every moment."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from tests.workers.peers import HOST, Link, Peers, gathered, results
from workers import mesh as module
from workers.connections import connections, listening
from workers.gradients import GradientReducer
from workers.mesh import Mesh, MeshBroken, Rendezvous

SOON = 5.0
"""Seconds within which a severed member is out: far below any timeout of its own, far above what it takes."""


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with gathered() as peers:
        yield peers


@pytest.fixture
def alone(peers: Peers) -> Iterator[Mesh]:
    """A mesh of one, in this process."""
    mesh = Mesh(*peers.rendezvous(1))
    mesh.join()
    yield mesh
    mesh.leave()


# What peers run: (link, rendezvous, ...) -> result


@contextmanager
def joined(rendezvous: Rendezvous) -> Iterator[Mesh]:
    mesh = Mesh(rendezvous)
    try:
        mesh.join()
        yield mesh
    finally:
        mesh.leave()


@contextmanager
def short_join(seconds: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "JOIN_TIMEOUT", timedelta(seconds=seconds))
        yield


def sum_of_ranks(_: Link, rendezvous: Rendezvous) -> float:
    with joined(rendezvous) as mesh:
        tensor = torch.tensor([float(mesh.rank)])
        mesh.all_reduce(tensor)
        return tensor.item()


def use_everything(_: Link, rendezvous: Rendezvous) -> dict[str, Any]:
    with joined(rendezvous) as mesh:
        summed = torch.full((2, 3), float(mesh.rank + 1))
        mesh.all_reduce(summed)
        received = torch.zeros(3), torch.zeros(2, dtype=torch.bool)
        after, before = (mesh.rank + 1) % mesh.world, (mesh.rank - 1) % mesh.world
        if mesh.world > 1:
            works = mesh.send([torch.full((3,), float(mesh.rank)), torch.tensor([True, False])], after)
            mesh.wait(works + mesh.receive(received, before))
        return {
            "summed": summed.tolist(),
            "gathered": mesh.all_gather(torch.tensor([[mesh.rank, 7]])).tolist(),
            "vote": mesh.vote(mesh.rank == 1, 0.5, float(mesh.rank)),
            "received": [t.tolist() for t in received],
            "before": before,
        }


def vote_twice(_: Link, rendezvous: Rendezvous) -> list[Any]:
    with joined(rendezvous) as mesh:
        return [mesh.vote(False), mesh.vote(mesh.rank == mesh.world - 1, 1e-300, 2.0**50 + mesh.rank)]


def count_what_is_left(_: Link, meetings: list[Rendezvous]) -> list[dict[str, int]]:
    """Open files and threads after a few generations and after all of them, DDP used in each."""
    hook = sys.excepthook
    counts = []
    for number, rendezvous in enumerate(meetings):
        with joined(rendezvous) as mesh:
            ddp = wrapped(nn.Linear(4, 4))
            ddp(torch.ones(1, 4)).sum().backward()
            mesh.vote(False)
            del ddp
        assert sys.excepthook is hook
        if number in (2, len(meetings) - 1):
            time.sleep(0.5)  # what can be closed behind the scenes is closed
            counts.append({kind: len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")})
    return counts


def wrapped(model: nn.Module) -> DistributedDataParallel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(model, init_sync=False, broadcast_buffers=False, bucket_cap_mb=1)


def train_until_broken(link: Link, rendezvous: Rendezvous, following: Rendezvous) -> tuple[float, float]:
    """DDP over a dozen buckets until MeshBroken, severed at the test's word; then the next generation.

    Returns the seconds from the word to the way out, and the sum of ranks in the next generation.
    """
    mesh = Mesh(rendezvous)
    mesh.join()
    ddp = wrapped(nn.Sequential(*(nn.Linear(512, 512) for _ in range(12))))
    passed = severing(link, mesh)
    link.report("training")
    with pytest.raises(MeshBroken):
        train(mesh, ddp)
    del ddp
    return passed(), sum_of_ranks(link, following)


def train(mesh: Mesh, ddp: DistributedDataParallel) -> None:
    while True:
        with mesh.guard():
            ddp(torch.ones(4, 512)).sum().backward()
        mesh.vote(False, 0.0)


def idle(link: Link, rendezvous: Rendezvous) -> None:
    """A member that comes to no collective: alive, and of no use."""
    with joined(rendezvous):
        link.report("idle")
        link.word()


def severing(link: Link, mesh: Mesh) -> Callable[[], float]:
    """Sever the mesh from another thread at the test's word; then call what this returns, for the seconds since."""
    severed: list[float] = []

    def control() -> None:
        link.word()
        severed.append(time.monotonic())
        mesh.sever()

    thread = threading.Thread(target=control, daemon=True)
    thread.start()

    def passed() -> float:
        out = time.monotonic()
        mesh.leave()
        thread.join()
        return out - severed[0]

    return passed


def join_in_vain(link: Link, rendezvous: Rendezvous) -> float:
    """Returns the seconds from the test's word to the way out."""
    mesh = Mesh(rendezvous)
    passed = severing(link, mesh)
    link.report("joining")
    with pytest.raises(MeshBroken):
        mesh.join()
    return passed()


def join_short(_: Link, rendezvous: Rendezvous) -> float:
    start = time.monotonic()
    with short_join(1.0), pytest.raises(MeshBroken):
        Mesh(rendezvous).join()
    return time.monotonic() - start


def sum_in_a_hurry(link: Link, rendezvous: Rendezvous) -> float:
    with short_join(0.3):
        return sum_of_ranks(link, rendezvous)


def come_without_connecting(link: Link, rendezvous: Rendezvous) -> None:
    """Tell the others that one is there, and never connect to them."""

    def never(*_: object) -> None:
        link.report("told")
        link.word()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_gloo", never)
        Mesh(rendezvous).join()


def send_much(link: Link, rendezvous: Rendezvous) -> float:
    """A message larger than all buffers on its way; returns the seconds from the test's second word to the way out."""
    with joined(rendezvous) as mesh:
        message = torch.zeros(2**28, dtype=torch.uint8)
        if mesh.rank == 1:
            mesh.receive([message], 0)
            link.report("receiving")
            link.word()
        link.word()
        passed = severing(link, mesh)
        works = mesh.send([message], 1)
        link.report("sending")
        with pytest.raises(MeshBroken):
            mesh.wait(works)
        return passed()


def send_late(_: Link, rendezvous: Rendezvous, seconds: float) -> float:
    """What the second member gets from the first one, sent long after the rendezvous could have timed out."""
    value = torch.zeros(1)
    module._kept[rendezvous.host, rendezvous.port] = module._connect(rendezvous.host, rendezvous.port)  # however long
    with short_join(seconds / 2), joined(rendezvous) as mesh:
        if mesh.rank == 0:
            time.sleep(seconds)
            mesh.wait(mesh.send([torch.ones(1)], 1))
        else:
            mesh.wait(mesh.receive([value], 0))
    return value.item()


def leave_first(_: Link, rendezvous: Rendezvous) -> str:
    with joined(rendezvous) as mesh:
        mesh.vote(False)
        if mesh.rank == 0:
            return "left"
        with pytest.raises(MeshBroken):
            mesh.vote(False)
        return "noticed"


def vote_late(link: Link, rendezvous: Rendezvous, late: int) -> str:
    """All vote, one of them when it is told to; whoever is told so again is severed."""
    with joined(rendezvous) as mesh:
        mesh.vote(False)
        link.report("joined")
        if mesh.rank == late:
            link.word()
        threading.Thread(target=lambda: (link.word(), mesh.sever()), daemon=True).start()
        try:
            mesh.vote(False)
        except MeshBroken:
            return "broken"
        return "passed"


def err(_: Link, rendezvous: Rendezvous, make: Callable[[], Tensor]) -> str:
    """The error that a recipe's mistake in one member becomes there, while the other members wait for it."""
    with joined(rendezvous) as mesh:
        mesh.vote(False)  # all have joined
        ddp = wrapped(nn.Linear(4, 4))
        try:
            with mesh.guard():
                loss = ddp(torch.ones(1, 4)).sum()
                if mesh.rank == 1:
                    loss = loss + make()
                loss.backward()
            mesh.vote(False)
        except (RuntimeError, MeshBroken) as error:
            return f"{type(error).__name__}: {error}"
    return "no error"


def keep_ddp(_: Link, meetings: list[Rendezvous]) -> None:
    """Fail in backward with reductions in flight, and drop DDP after the mesh was left."""
    for rendezvous in meetings:
        with joined(rendezvous) as mesh:
            mesh.vote(False)
            ddp = wrapped(nn.Linear(4, 4))
            loss = ddp(torch.ones(1, 4)).sum() + (mistake_in_backward() if mesh.rank == 1 else 0)
            with pytest.raises((RuntimeError, MeshBroken)), mesh.guard():  # noqa: PT012
                loss.backward()
                mesh.vote(False)
        del ddp


def mismatch() -> Tensor:
    return (torch.ones(2, 3) @ torch.ones(2, 3)).sum()


class Unlucky(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, tensor: Tensor) -> Tensor:
        return tensor.clone()

    @staticmethod
    def backward(_: Any, *__: Tensor) -> Tensor:
        raise RuntimeError("a mistake in backward")


def mistake_in_backward() -> Tensor:
    result: Tensor = Unlucky.apply(torch.ones((), requires_grad=True))  # type: ignore[no-untyped-call]
    return result


# Meeting, and meeting again


@pytest.mark.parametrize("world", [1, 2, 3])
def test_everything_a_mesh_does(peers: Peers, world: int) -> None:
    total = world * (world + 1) / 2
    for rank, got in enumerate(peers.run(use_everything, world)):
        assert got["summed"] == [[total] * 3] * 2
        assert got["gathered"] == [[[r, 7]] for r in range(world)]
        assert got["vote"] == (world > 1, [0.5 * world, sum(range(world))])
        if world > 1:
            assert got["received"] == [[float((rank - 1) % world)] * 3, [True, False]]


def test_a_vote_is_one_number_for_all(peers: Peers) -> None:
    """Whoever waits, all leave; and the sums are in double precision."""
    votes = peers.run(vote_twice, 3)
    tiny, large = 3e-300, 3 * 2.0**50 + 3
    assert votes == [[(False, []), (True, [pytest.approx(tiny, rel=1e-12), large])]] * 3


def test_the_same_processes_meet_again_with_others_and_other_ranks(peers: Peers) -> None:
    a, b, c = peers.take(3)
    for members in ([a, b], [b, c, a], [c], [a, c], [c, a, b]):
        for peer, rendezvous in zip(members, peers.rendezvous(len(members)), strict=True):
            peer.start(sum_of_ranks, rendezvous)
        assert results(members) == [sum(range(len(members)))] * len(members)


def test_generations_leave_no_files_and_no_threads_behind(peers: Peers) -> None:
    members = peers.take(2)
    meetings = [peers.rendezvous(2) for _ in range(23)]
    for rank, peer in enumerate(members):
        peer.start(count_what_is_left, [ranks[rank] for ranks in meetings])
    for early, late in results(members):
        assert early == late


# Losing members


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_survivors_of_a_kill_in_backward_are_out_and_meet_again(peers: Peers, victim: int) -> None:
    members = peers.take(3)
    survivors = [peer for rank, peer in enumerate(members) if rank != victim]
    following = dict(zip(survivors, peers.rendezvous(2), strict=True))
    for peer, rendezvous in zip(members, peers.rendezvous(3), strict=True):
        peer.start(train_until_broken, rendezvous, following.get(peer, rendezvous))
    assert [peer.report() for peer in members] == ["training"] * 3
    time.sleep(0.05)
    members[victim].kill()
    for peer in survivors:
        peer.tell("sever")
    for seconds, total in results(survivors):
        assert seconds < SOON
        assert total == 1


def test_members_that_wait_for_one_who_hangs_are_freed(peers: Peers) -> None:
    """Nobody is dead, so nothing but `sever` can end it."""
    *waiting, hanging = members = peers.take(3)
    following = peers.rendezvous(2)
    now = peers.rendezvous(3)
    for peer, rendezvous, later in zip(waiting, now, following, strict=False):
        peer.start(train_until_broken, rendezvous, later)
    hanging.start(idle, now[2])
    for peer in members:
        peer.report()
    time.sleep(0.2)
    for peer in waiting:
        peer.tell("sever")
    for seconds, total in results(waiting):
        assert seconds < SOON
        assert total == 1
    hanging.tell("go")
    hanging.result()


def test_the_sender_of_a_message_that_is_half_sent_is_freed(peers: Peers) -> None:
    """gloo forgets it: it closes the connection, wakes nobody, and leaves no socket to shut down."""
    sender, receiver = members = peers.take(2)
    for peer, rendezvous in zip(members, peers.rendezvous(2), strict=True):
        peer.start(send_much, rendezvous)
    receiver.report()
    receiver.freeze()
    sender.tell("send")
    sender.report()
    time.sleep(0.2)
    receiver.kill()
    time.sleep(0.2)
    sender.tell("sever")
    assert sender.result() < SOON


def test_a_member_that_left_is_noticed(peers: Peers) -> None:
    assert peers.run(leave_first, 3) == ["left", "noticed", "noticed"]


def test_ddp_may_be_dropped_after_the_mesh_was_left(peers: Peers) -> None:
    """Its destructor waits for gloo's threads, which may wait for Python's lock, which it holds."""
    members = peers.take(2)
    meetings = [peers.rendezvous(2) for _ in range(100)]
    for rank, peer in enumerate(members):
        peer.start(keep_ddp, [ranks[rank] for ranks in meetings])
    assert results(members) == [None, None]


# Losing members while joining


def test_waiting_for_one_who_never_comes_ends_when_severed(peers: Peers) -> None:
    members = peers.take(2)
    for peer, rendezvous in zip(members, peers.rendezvous(3), strict=False):
        peer.start(join_in_vain, rendezvous)
        peer.report()
    time.sleep(0.2)
    for peer in members:
        peer.tell("sever")
    assert all(seconds < SOON for seconds in results(members))
    assert peers.run(sum_of_ranks, 2) == [1, 1]  # on the store's connection, which was cut


@pytest.mark.parametrize("place", [0, 1])
def test_waiting_for_the_connection_of_a_dead_member_ends_when_severed(peers: Peers, place: int) -> None:
    """It was there, so the others are past the store; and it never connects. No socket of theirs could be cut off."""
    *waiting, lost = peers.take(3)
    ranks = peers.rendezvous(3)
    lost.start(come_without_connecting, ranks.pop(place))
    for peer, rendezvous in zip(waiting, ranks, strict=True):
        peer.start(join_in_vain, rendezvous)
        peer.report()
    assert lost.report() == "told"
    time.sleep(0.2)
    lost.kill()
    for peer in waiting:
        peer.tell("sever")
    assert all(seconds < SOON for seconds in results(waiting))
    assert peers.run(sum_of_ranks, 2) == [1, 1]


def test_connecting_gives_up_on_its_own(peers: Peers) -> None:
    peer, other = peers.take(2)
    ranks = peers.rendezvous(2)
    other.start(come_without_connecting, ranks[1])
    peer.start(join_short, ranks[0])
    assert peer.result() < SOON
    other.kill()


def test_waiting_for_the_others_has_no_end_of_its_own(peers: Peers) -> None:
    """They may be in a long step, or an evaluation."""
    early, late = peers.take(2)
    ranks = peers.rendezvous(2)
    early.start(sum_in_a_hurry, ranks[0])
    time.sleep(1.0)
    late.start(sum_of_ranks, ranks[1])
    assert results([early, late]) == [1, 1]


def test_there_is_no_store() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(MeshBroken), short_join(0.5):
        Mesh(Rendezvous(generation=1, host=HOST, port=port, rank=0, world=1)).join()


# What sever does, and what it leaves alone


def test_a_severed_mesh_cannot_be_joined(peers: Peers) -> None:
    mesh = Mesh(*peers.rendezvous(1))
    mesh.sever()
    with pytest.raises(MeshBroken):
        mesh.join()
    assert not torch.distributed.is_initialized()
    mesh.leave()


@pytest.mark.parametrize("end", [Mesh.sever, Mesh.leave])
def test_nothing_works_any_more(alone: Mesh, end: Callable[[Mesh], None]) -> None:
    end(alone)
    end(alone)
    one = torch.ones(1)
    for use in (
        lambda: alone.vote(False),
        lambda: alone.all_reduce(one),
        lambda: alone.all_gather(one),
        lambda: alone.send([one], 0),
        lambda: alone.receive([one], 0),
        lambda: alone.wait([]),
        lambda: alone.guard().__enter__(),
        alone.join,
    ):
        with pytest.raises(MeshBroken):
            use()


@pytest.mark.parametrize("collective", ["all_reduce", "all_gather"])
def test_a_collective_that_gloo_has_forgotten_ends_when_severed(
    alone: Mesh, monkeypatch: pytest.MonkeyPatch, collective: str
) -> None:
    forgotten: Any = SimpleNamespace(get_future=Future)
    monkeypatch.setattr(torch.distributed, collective, lambda *_, **__: forgotten)
    threading.Timer(0.2, alone.sever).start()
    with pytest.raises(MeshBroken):
        getattr(alone, collective)(torch.ones(1))


def test_a_backward_pass_whose_gradients_gloo_has_forgotten_ends_when_severed(
    alone: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    ddp = wrapped(nn.Linear(4, 4))
    GradientReducer(ddp, norms=False, coordinates=False, summed=alone.reduced)
    forgotten: Any = SimpleNamespace(get_future=Future)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: forgotten)
    threading.Timer(0.2, alone.sever).start()
    with pytest.raises(MeshBroken), alone.guard():
        ddp(torch.ones(1, 4)).sum().backward()


def test_nothing_holds_a_backward_pass_whose_collective_failed_at_once(
    alone: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its DDP would hear of the next generation's gradients, beside the one of that."""

    def fail() -> weakref.ref[Any]:
        ddp = wrapped(nn.Linear(4, 4))
        GradientReducer(ddp, norms=False, coordinates=False, summed=alone.reduced)
        with pytest.raises(RuntimeError, match="closed by peer"), alone.guard():
            ddp(torch.ones(1, 4)).sum().backward()
        return weakref.ref(ddp)

    monkeypatch.setattr(torch.distributed, "all_reduce", failed)
    assert fail()() is None


def failed(*_: Any, **__: Any) -> Any:
    def fail(_: Future[int]) -> list[Tensor]:
        raise RuntimeError("Connection closed by peer")

    begun: Future[int] = Future()
    future = begun.then(fail)
    begun.set_result(0)
    return SimpleNamespace(get_future=lambda: future)


def test_what_comes_of_a_collective_after_a_sever_is_too_late(alone: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    future: Future[list[Tensor]] = Future()
    work: Any = SimpleNamespace(get_future=lambda: future)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda *_, **__: work)
    promise = alone.reduced(torch.ones(1))
    alone.sever()
    future.set_result([torch.ones(1)])
    with pytest.raises(RuntimeError, match="was severed or left"):
        promise.wait()
    future = Future()  # that of one who comes to it late
    with pytest.raises(RuntimeError, match="was severed or left"):
        alone.reduced(torch.ones(1)).wait()


def test_an_error_of_a_severed_mesh_is_its_own(alone: Mesh) -> None:
    def fail() -> None:
        with alone.guard():
            alone.sever()
            raise RuntimeError("whatever it was")

    with pytest.raises(MeshBroken, match="whatever it was"):
        fail()


def test_sockets_of_others_are_left_alone(alone: Mesh) -> None:
    with (
        socket.create_server((HOST, 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        threads = [threading.Thread(target=alone.sever) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.sendall(b"still here")
        assert accepted.recv(16) == b"still here"
        with socket.create_connection(server.getsockname(), timeout=5):
            server.accept()[0].close()


def test_a_late_sever_of_an_old_generation_leaves_the_new_one_alone(peers: Peers) -> None:
    old = Mesh(*peers.rendezvous(1))
    old.join()
    old.leave()
    with joined(*peers.rendezvous(1)) as new:
        old.sever()
        old.leave()
        assert new.vote(True, 2.0) == (True, [2.0])


def test_a_connection_to_the_store_that_was_cut_as_it_was_made_is_not_kept(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the next generation find it."""
    severed, following = (Mesh(*peers.rendezvous(1)) for _ in range(2))
    connect, connecting, left = module.TCPStore, Queue[threading.Thread](), threading.Event()

    def slowly(*args: Any, **settings: Any) -> Any:
        store = connect(*args, **settings)
        connecting.put(threading.current_thread())
        left.wait()
        return store

    def leave() -> None:
        first = connecting.get()
        severed.leave()
        left.set()
        first.join()

    module._kept.clear()
    monkeypatch.setattr(module, "TCPStore", slowly)
    leaving = threading.Thread(target=leave)
    leaving.start()
    with pytest.raises(MeshBroken):
        severed.join()
    leaving.join()
    following.join()
    following.leave()


def test_a_store_whose_machine_is_gone_without_a_word_is_not_waited_for(alone: Mesh, peers: Peers) -> None:
    """The kernel notices: by what it asks of the other one's, and by what that does not confirm."""
    place = HOST, peers.store.port
    (options,) = {
        tuple(
            connection.socket.getsockopt(level, option)
            for level, option in (
                (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
            )
        )
        for connection in connections()
        if connection.peer == place
    }
    assert options == (1, 10, 25_000)
    assert alone.vote(False) == (False, [])


def test_a_store_in_the_same_process_serves_the_others_on(peers: Peers) -> None:
    assert peers.run(sum_of_ranks, 2) == [1, 1]
    mesh = Mesh(peers.rendezvous(2)[0])
    severing = threading.Timer(0.3, mesh.sever)
    severing.start()
    with pytest.raises(MeshBroken):
        mesh.join()
    severing.join()
    assert peers.run(sum_of_ranks, 2) == [1, 1]  # on the connections that they had


# Whose error it is


@pytest.mark.parametrize(
    ("make", "message"),
    [(mismatch, "RuntimeError: mat1 and mat2"), (mistake_in_backward, "RuntimeError: a mistake in backward")],
)
def test_a_recipes_mistake_stays_one(peers: Peers, make: Callable[[], Tensor], message: str) -> None:
    """And the others, who had to do without that member, see a broken mesh."""
    other, mistaken = peers.run(err, 2, make)
    assert mistaken.startswith(message)
    assert other.startswith("MeshBroken")


def test_errors_that_are_no_runtime_errors_pass(alone: Mesh) -> None:
    with pytest.raises(KeyError), alone.guard():
        raise KeyError("a column")


def test_work_may_take_longer_than_a_rendezvous(peers: Peers) -> None:
    assert peers.run(send_late, 2, 2.0) == [0, 1]


LEAVES_TWICE = """
for generation in (1, 2):
    mesh = Mesh(Rendezvous(generation=generation, host=host, port=port, rank=0, world=1))
    mesh.join()
    mesh.leave()
"""

SEVERED_WHILE_JOINING = """
mesh = Mesh(Rendezvous(generation=1, host=host, port=port, rank=0, world=2))
threading.Timer(0.3, mesh.sever).start()
with contextlib.suppress(MeshBroken):
    mesh.join()
"""


@pytest.mark.parametrize("life", [LEAVES_TWICE, SEVERED_WHILE_JOINING])
def test_the_process_can_end_right_after(peers: Peers, life: str) -> None:
    """With threads of torch just on their way back into the interpreter."""
    preface = "import contextlib, threading\nfrom workers.mesh import Mesh, MeshBroken, Rendezvous\n"
    where = f"host, port = {HOST!r}, {peers.store.port}\n"
    done = subprocess.run([sys.executable, "-c", preface + where + life], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# Where it listens


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
def test_gloo_listens_where_the_store_is_reached(host: str) -> None:
    """Whatever this machine's name resolves to."""
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError:
        pytest.skip(f"this machine has no {host}")
    store = torch.distributed.TCPStore(host, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    before = set(listening())
    with joined(Rendezvous(generation=1, host=host, port=store.port, rank=0, world=1)):
        assert {address for address, _ in set(listening()) - before} == {host}


@pytest.mark.parametrize("dies", [0, 1, 2])
def test_a_vote_comes_to_nothing_if_one_who_voted_dies_before_the_last_has(peers: Peers, dies: int) -> None:
    """Else some would have a result and others not: what the lost one confirmed would be lost with a second one."""
    members = peers.take(4)
    for peer, rendezvous in zip(members, peers.rendezvous(4), strict=True):
        peer.start(vote_late, rendezvous, 3)
    for peer in members:
        peer.report()
    time.sleep(0.3)  # their ballots are on the way
    doomed = members.pop(dies)
    doomed.kill()
    members[-1].tell("vote")
    time.sleep(0.3)
    for peer in members:
        peer.tell("sever")
    assert [peer.result() for peer in members] == ["broken"] * 3
