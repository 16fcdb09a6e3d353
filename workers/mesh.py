"""The process group of one generation: joined, used, left; cut off when a peer is gone.

A dead peer raises on some survivors at once, but with several gloo operations in flight not on all
of them: the others would sit out the group's timeout. `Mesh.sever` frees them: it shuts down the
sockets that this generation's group opened, so that whatever waits on them raises. It is called
from another thread and at any moment, during the rendezvous too (which waits on the store's socket).
Listening sockets are left alone (gloo aborts the process if its listener goes), and so is every
socket that is not the group's: those of Ray, for instance.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

JOIN_TIMEOUT = timedelta(seconds=15)
"""How long a rendezvous may take once every member was told of it; all members are warm by then."""

WORK_TIMEOUT = timedelta(minutes=30)
"""For collectives: one member may evaluate or export while the others wait. Loss is noticed by other means."""


class MeshBroken(Exception):
    """This generation's process group is of no use any more: a peer is gone, or it was severed."""


@dataclass(frozen=True, kw_only=True)
class Rendezvous:
    """Where and as whom to meet."""

    generation: int
    host: str
    port: int  # of the TCPStore that the controller holds for this generation alone
    rank: int
    world: int


class Mesh:
    """The group of one generation. Collectives raise MeshBroken when a peer is gone."""

    def __init__(self, rendezvous: Rendezvous) -> None:
        self.generation = rendezvous.generation
        self.rank = rendezvous.rank
        self.world = rendezvous.world
        self._rendezvous = rendezvous
        self._severed = threading.Event()
        self._ports: frozenset[int] = frozenset()  # the listening ports of this group's members

    def join(self) -> None:
        """Meet the others. Raises MeshBroken."""
        listening = set(_listening_ports())
        at = self._rendezvous
        with _breaking(self):
            store = dist.TCPStore(at.host, at.port, is_master=False, wait_for_workers=False, timeout=JOIN_TIMEOUT)
            dist.init_process_group("gloo", store=store, rank=at.rank, world_size=at.world, timeout=JOIN_TIMEOUT)
            own = next(iter(set(_listening_ports()) - listening), 0)
            self._ports = frozenset(int(port) for port in self.all_gather(torch.tensor([own])).flatten())
            _set_timeout(WORK_TIMEOUT)
        if self._severed.is_set():
            self.sever()  # it came while the ports were not known yet
            raise MeshBroken("severed while joining")

    def leave(self) -> None:
        """Give the group up; safe after any failure."""
        with suppress(RuntimeError, ValueError, AssertionError):
            dist.destroy_process_group()

    def sever(self) -> None:
        """Make whatever waits on this group raise. From any thread, any number of times."""
        self._severed.set()
        for connection in _connections():
            with connection:
                local, peer = connection.getsockname()[1], connection.getpeername()[1]
                if peer == self._rendezvous.port or local in self._ports or peer in self._ports:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def vote(self, waiting: bool, loss: float) -> tuple[bool, float]:
        """The commit gate of a step: whether a new generation waits for any member, and the sum of `loss`.

        One small all-reduce carries both; what it confirmed is stepped by all members.
        """
        ballot = torch.tensor([float(waiting), loss], dtype=torch.float64)
        self.all_reduce(ballot)
        return bool(ballot[0] > 0), float(ballot[1])

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """SUM over the members, in place."""
        with _breaking(self):
            dist.all_reduce(tensor)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stack every member's tensor: (world, *shape)."""
        gathered = [torch.empty_like(tensor) for _ in range(self.world)]
        with _breaking(self):
            dist.all_gather(gathered, tensor)
        return torch.stack(gathered)

    def send(self, tensors: Sequence[torch.Tensor], to: int) -> list[dist.Work]:
        """Start sending contiguous tensors to one member, numbered by tags from 0; `wait` finishes it."""
        with _breaking(self):
            return [_started(dist.isend(tensor, to, tag=tag)) for tag, tensor in enumerate(tensors)]

    def receive(self, tensors: Sequence[torch.Tensor], source: int, *, first_tag: int = 0) -> list[dist.Work]:
        """Start receiving into contiguous tensors what one member sent, from its message number `first_tag` on."""
        with _breaking(self):
            return [_started(dist.irecv(tensor, source, tag=first_tag + i)) for i, tensor in enumerate(tensors)]

    def wait(self, works: Sequence[dist.Work]) -> None:
        """Finish what `send` and `receive` started."""
        with _breaking(self):
            for work in works:
                work.wait()

    def guard(self) -> _breaking:
        """A context in which an error of the backend (DDP's backward, say) is MeshBroken."""
        return _breaking(self)


class _breaking:  # noqa: N801 (reads as a statement: `with _breaking(mesh):`)
    """Turns the errors of torch.distributed into MeshBroken."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    def __enter__(self) -> None:
        if self._mesh._severed.is_set():
            raise MeshBroken(f"generation {self._mesh.generation} was severed")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError):  # DistBackendError and DistNetworkError among them
            raise MeshBroken(f"generation {self._mesh.generation}: {error}") from error


def _started(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this process belongs to the group"
    return work


def _set_timeout(timeout: timedelta) -> None:
    """A longer timeout for work than for the rendezvous; torch has no public name for it yet."""
    group = dist.group.WORLD
    assert group is not None
    group._get_backend(torch.device("cpu"))._set_default_timeout(timeout)


def _sockets() -> Iterator[socket.socket]:
    """A duplicate of every TCP socket of this process."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                duplicate = socket.socket(fileno=os.dup(int(name)))
                if duplicate.family in (socket.AF_INET, socket.AF_INET6) and duplicate.type == socket.SOCK_STREAM:
                    yield duplicate
                else:
                    duplicate.close()


def _listening_ports() -> Iterator[int]:
    for candidate in _sockets():
        with candidate:
            if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                yield candidate.getsockname()[1]


def _connections() -> Iterator[socket.socket]:
    for candidate in _sockets():
        try:
            candidate.getpeername()
        except OSError:
            candidate.close()
        else:
            yield candidate
