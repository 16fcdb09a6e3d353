"""The process group of one generation: joined, used, left; cut off when a peer is gone.

    join    reach the store -> say where one listens, hear where all do -> connect to each (gloo)
    use     collectives, point to point, DDP over torch's default group
    leave   hang up, then destroy the group

A dead peer raises on some survivors at once, but with several gloo operations in flight not on all of them: the others
would sit out the group's timeout. `Mesh.sever` frees them: it shuts down the connections of this generation's group, so
that whatever waits on them raises. It is called from another thread and at any moment. That does not wake everybody: a
joining mesh may wait for a connection that a dead peer never opens, and gloo forgets whoever waits for a message that
was half sent, half received, or about to be sent when its connection broke. So none of these is waited for in gloo: a
meeting and messages have a thread apart, collectives a promise, and a sever leaves the one and breaks the other. What
is left is DDP's own agreement on its buckets, once a generation: whoever is forgotten there is given up (`stalls`).
Listening sockets are left alone (gloo aborts the process if its listener goes), and so are those of others in this
process, Ray for instance: a connection is the group's if one of its ends is where a member listens.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch.distributed import ProcessGroupGloo
from torch.futures import Future

from workers.connections import Address, Connection, connections, listening, route
from workers.group import Group

if TYPE_CHECKING:
    from torch._C._distributed_c10d import PrefixStore, Store, TCPStore  # as below, where a type checker sees none
else:
    from torch.distributed import PrefixStore, Store, TCPStore

PATIENCE = timedelta(days=30)
"""For the others to come: they finish a step first, or an evaluation. Who never comes is noticed by other means."""

JOIN_TIMEOUT = timedelta(seconds=15)
"""For connecting to each other, once all have come."""

WORK_TIMEOUT = timedelta(minutes=30)
"""For collectives: one member may evaluate or export while the others wait. Loss is noticed by other means."""

NOTICE_S = 1.0
"""Between an error of NCCL's and what else shows that a peer is gone: its closed connections, or a sever."""

BACKEND = "mesh"
"""What torch calls the backend: gloo, but listening where the store's machine can reach it, and met beforehand."""

os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
"""torch's: nothing ends a collective of NCCL's that failed, but a sever. By default torch ends the process, and with it
each survivor of a lost peer. Were the communicator aborted alone, the step would go on with what it has."""

BESIDE_NCCL = f"cpu:{BACKEND},cuda:nccl"
"""For members with a GPU each: its tensors go through NCCL. With more than one member this was never tried."""

T = TypeVar("T")


class MeshBroken(Exception):
    """This generation's process group is of no use any more: a peer is gone, or it was severed."""


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """Where and as whom to meet."""

    generation: int
    host: str
    port: int  # of the TCPStore that the controller holds; one for all generations saves connecting to it anew
    rank: int
    world: int


class Mesh(Group):
    """The group of one generation, made here. All raises MeshBroken when a peer is gone, after `sever` and `leave`."""

    def __init__(self, rendezvous: Rendezvous, *, gpu: bool = False) -> None:
        super().__init__(rank=rendezvous.rank, world=rendezvous.world)
        self.generation = rendezvous.generation
        self._broken = f"generation {self.generation} was severed or left"
        self._rendezvous = rendezvous
        self._over = threading.Event()  # severed or left
        self._cutting = threading.Lock()
        self._awaited: SimpleQueue[Any] = SimpleQueue()  # what comes of a thread apart, or of a sever
        self._promised: dict[int, Future[Any]] = {}  # what will come of collectives, or of a sever; by id
        self._gpu = gpu
        self._gloo: ProcessGroupGloo | None = None
        self._nccl: Any = None  # beside gloo, on a GPU
        self._members: frozenset[Address] = frozenset()  # where they listen
        self._store: Address | None = None  # while joining

    # -- a generation's begin and end ----------------------------------------------------------------------------------

    def join(self) -> None:
        """Meet the others, and be torch's default group from then on. Raises MeshBroken."""
        self.check()
        try:
            met = self._apart(self._meet)
        except (MeshBroken, RuntimeError, OSError) as error:
            self.sever()
            raise MeshBroken(f"generation {self.generation} did not meet: {error}") from error
        self._gloo = met.gloo
        try:
            self._nccl = _make_default(met, self.rank, self.world, gpu=self._gpu)
        except RuntimeError:
            self.check()  # it was severed meanwhile
            raise
        self._store = None
        self.check()

    def leave(self) -> None:
        """Give the group up; safe after any failure, and more than once."""
        self.sever()  # a connection that is still up costs gloo 10 ms to close
        if self._gloo is not None:
            _retired.append(self._gloo)
            self._gloo = None
            if dist.is_initialized():
                dist.destroy_process_group()
        with self._cutting:  # a sever that comes later finds nothing of this generation, and nothing of the next
            self._members, self._store = frozenset(), None

    def sever(self) -> None:
        """Make whatever waits on this group raise. From any thread, any number of times."""
        self._over.set()
        for promise in list(self._promised):
            self._keep(promise, _Lost(self._broken))
        try:
            with self._cutting:
                self._cut()
        finally:
            self._awaited.put(MeshBroken(self._broken))

    # -- use -----------------------------------------------------------------------------------------------------------

    def wait(self, works: Sequence[dist.Work]) -> None:
        """Finish what `send` and `receive` started."""
        remaining = list(reversed(works))

        def finish() -> None:
            while remaining:  # one left behind keeps one message alive, not all of them
                remaining.pop().wait(WORK_TIMEOUT)  # its own would be that of the rendezvous

        with self.guard():
            self._apart(finish)

    def check(self) -> None:
        """Raises MeshBroken once severed or left."""
        if self._over.is_set():
            raise MeshBroken(self._broken)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """A context in which the error that a lost peer causes (in DDP's backward, say) is MeshBroken.

        torch raises the same RuntimeError for it as for a mistake in a recipe. So the connections tell: the error comes
        from there only if one of them is down; else it is passed on as it is.
        """
        self.check()
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, dist.DistBackendError):
                self._over.wait(NOTICE_S)
            if not self._over.is_set() and self._is_whole() and not self._over.is_set():
                raise
            raise MeshBroken(f"generation {self.generation}: {error}") from error

    # -- inside --------------------------------------------------------------------------------------------------------

    def _cut(self) -> None:
        """Shut all connections down: to the members, and while they meet to the store."""
        if self._store is not None:
            _kept.clear()  # the meeting may still be waiting on it
        for connection in connections():
            if self._is_ours(connection) or connection.peer == self._store:
                connection.shut_down()
        if (nccl := self._nccl) is not None:
            self._nccl = None
            nccl.abort()

    def _future(self, work: dist.Work, tensor: torch.Tensor) -> Future[Any]:
        """That of gloo, or a sever; NCCL's own, which is tied to the GPU's stream, and which `abort` ends."""
        future = super()._future(work, tensor)
        if tensor.is_cuda:
            return future
        promise: Future[Any] = Future()
        self._promised[id(promise)] = promise
        future.add_done_callback(lambda done: self._keep(id(promise), _outcome(done)))
        if self._over.is_set():  # since before whoever severs could see it
            self._keep(id(promise), _Lost(self._broken))
        return promise.then(_redeemed)

    def _keep(self, promise: int, outcome: Any) -> None:
        """Once: whoever comes second is too late."""
        if (kept := self._promised.pop(promise, None)) is not None:
            kept.set_result(outcome)

    def _apart(self, function: Callable[[], T]) -> T:
        """What comes of a function in a thread of its own. Raises MeshBroken as soon as severed."""
        outcome: SimpleQueue[T | Exception] = SimpleQueue()
        self._awaited = outcome
        self.check()  # whoever severs from here on finds the queue
        _start(lambda: _put(outcome, function))
        first = outcome.get()
        if isinstance(first, Exception):
            raise first
        return first

    def _meet(self) -> _Met:
        """Runs apart. Whoever severs looks for connections to the addresses that are known by then."""
        at = self._rendezvous
        own, place = route(at.host, at.port)
        self._learn(place, ())
        store = PrefixStore(str(at.generation), self._reach(at.host, at.port, place))
        device, listening = _listen(own)
        self._learn(place, [listening])
        store.set(f"member/{at.rank}", json.dumps(listening))
        members = [f"member/{rank}" for rank in range(at.world)]
        store.wait(members, PATIENCE)
        places = store.multi_get(members)
        self._learn(place, [(host, port) for host, port in map(json.loads, places)])
        gloo = _gloo(PrefixStore("gloo", store), at.rank, at.world, device)
        _start(_retired.clear)
        return _Met(store, gloo)

    def _reach(self, host: str, port: int, place: Address) -> TCPStore:
        """The store, kept for the next meeting. Not so once severed, which is MeshBroken: it may have been cut."""
        if (store := _kept.get((host, port))) is None:
            store = _connect(host, port)
            for connection in connections():
                if connection.peer == place:
                    connection.keep_alive()
        with self._cutting:
            self.check()
            _kept.clear()
            _kept[host, port] = store
        return store

    def _learn(self, store: Address, members: Iterable[Address]) -> None:
        """Where they are whose connections a sever shuts down; nothing any more once severed, which is MeshBroken."""
        with self._cutting:
            self.check()
            self._store, self._members = store, frozenset(members)

    def _is_whole(self) -> bool:
        """Whether the connections to all other members are up."""
        ups = (each for each in connections() if self._is_ours(each) and each.is_up)
        return len({(each.local, each.peer) for each in ups}) == self.world - 1  # a sever may hold a second one of each

    def _is_ours(self, connection: Connection) -> bool:
        return connection.local in self._members or connection.peer in self._members


# -- gloo --------------------------------------------------------------------------------------------------------------


class _Met(NamedTuple):
    store: Store
    gloo: ProcessGroupGloo


def _gloo(store: Store, rank: int, world: int, device: ProcessGroupGloo.Device) -> ProcessGroupGloo:
    """Connected to all others."""
    options = ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [device]
    options._timeout = JOIN_TIMEOUT
    gloo = ProcessGroupGloo(store, rank, world, options)
    gloo._set_default_timeout(WORK_TIMEOUT)
    return gloo


def _make_default(met: _Met, rank: int, world: int, *, gpu: bool) -> Any:
    """Make gloo torch's default group; with `gpu` NCCL beside it, which is returned."""
    hook = sys.excepthook
    _fresh.append(met.gloo)
    backend = BESIDE_NCCL if gpu else BACKEND
    dist.init_process_group(backend, store=met.store, rank=rank, world_size=world, timeout=WORK_TIMEOUT)
    sys.excepthook = hook  # torch would put one more around it in every generation
    return dist.group.WORLD._get_backend(torch.device("cuda")) if gpu and dist.group.WORLD else None


_fresh: list[ProcessGroupGloo] = []
"""The group that is about to become the default: what options torch hands over is NCCL's to say, where it is there."""

dist.Backend.register_backend(BACKEND, lambda *_: _fresh.pop(), extended_api=True, devices=["cpu"])

_retired: list[ProcessGroupGloo] = []
"""The group that was left last. To destroy one is to wait for its threads, which may want Python's lock for a tensor.
DDP holds that lock, so a DDP that outlives the mesh (in the frames of an exception, say) must not be the last owner.
Dropped from here the lock is free. It takes 10 ms: that is done beside the next meeting."""


_threads: WeakSet[threading.Thread] = WeakSet()


def _start(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function, name="mesh", daemon=True)
    _threads.add(thread)
    thread.start()


@atexit.register
def _settle() -> None:
    """A thread that comes back from torch while the interpreter is being taken down would abort the process."""
    _start(_retired.clear)  # apart: a collective that was left behind may still be on one of its threads
    for thread in list(_threads):
        thread.join(timeout=1.0)


class _Lost(NamedTuple):
    """What becomes of a collective that fails. Not the error itself: its traceback leads to whoever had begun the
    collective, a backward pass, say, and what a future of torch's holds no garbage collector finds.
    """

    reason: str


def _outcome(done: Future[T]) -> T | _Lost:
    try:
        return done.value()
    except Exception as error:
        return _Lost(str(error))


def _redeemed(kept: Future[T | _Lost]) -> T:
    outcome = kept.value()
    if isinstance(outcome, _Lost):
        raise RuntimeError(outcome.reason)
    return outcome


def _put(outcome: SimpleQueue[T | Exception], function: Callable[[], T]) -> None:
    try:
        outcome.put(function())
    except Exception as error:
        outcome.put(error)


# -- addresses ---------------------------------------------------------------------------------------------------------


_kept: dict[Address, TCPStore] = {}
"""The store that the controller holds, until it is cut: torch asks the DNS for a name at either end of a new one."""


def _connect(host: str, port: int) -> TCPStore:
    return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=JOIN_TIMEOUT)


def _listen(host: str) -> tuple[ProcessGroupGloo.Device, Address]:
    """A gloo device bound to an address of this machine, and where it listens: gloo keeps that to itself."""
    for _ in range(10):
        before = set(listening())
        device = ProcessGroupGloo.create_device(hostname=host)
        new = set(listening()) - before
        if len(new) == 1:  # else another thread began to listen at the same moment
            return device, new.pop()
    raise RuntimeError(f"cannot tell where gloo listens at {host}")
