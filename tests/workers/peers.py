"""Real processes beside a TCPStore that the test holds: they run functions of the test, report, and can be killed."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from workers.mesh import Rendezvous

PATIENCE = 60.0
"""Seconds after which a silent peer fails the test."""

HOST = "127.0.0.1"


class PeerFailed(Exception):
    """A function raised in its process; the text is the traceback from there."""


class Link:
    """What a function that runs in a peer has to talk to the test with; its first argument."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._words: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def report(self, value: object) -> None:
        """For `Peer.report`."""
        self._connection.send(("report", value))

    def word(self) -> Any:
        """The next word that `Peer.tell` was given; waits for it."""
        return self._words.get(timeout=PATIENCE)


class Peer:
    """A process that runs one function after the other."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_live, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def is_alive(self) -> bool:
        return self._process.is_alive()

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Run function(link, *args) there; `result` or `report` wait for what comes of it."""
        self._connection.send(("run", (function, args)))

    def tell(self, word: object = None) -> None:
        """For `Link.word`."""
        self._connection.send(("word", word))

    def report(self) -> Any:
        """What the function passed to `Link.report` next. Raises PeerFailed."""
        return self._receive("report")

    def result(self) -> Any:
        """What the function returned. Raises PeerFailed."""
        return self._receive("result")

    def freeze(self) -> None:
        """SIGSTOP: it is there, and does nothing any more."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _receive(self, wanted: str) -> Any:
        if not self._connection.poll(PATIENCE):
            raise TimeoutError(f"no {wanted} from the peer")
        kind, value = self._connection.recv()
        if kind == "failed":
            raise PeerFailed(value)
        assert kind == wanted, f"a {kind} instead of a {wanted}: {value}"
        return value


class Peers:
    """As many processes as the tests need, and the store at which they meet."""

    def __init__(self) -> None:
        self.store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
        self._generation = 0
        self._living: list[Peer] = []

    def take(self, number: int) -> list[Peer]:
        """So many living processes; new ones only where there are too few."""
        self._living = [peer for peer in self._living if peer.is_alive]
        self._living += [Peer() for _ in range(number - len(self._living))]
        return self._living[:number]

    def rendezvous(self, world: int) -> list[Rendezvous]:
        """The next generation, rank by rank."""
        self._generation += 1
        return [
            Rendezvous(generation=self._generation, host=HOST, port=self.store.port, rank=rank, world=world)
            for rank in range(world)
        ]

    def run(self, function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
        """The results of function(link, rendezvous, *args) on a new generation, rank by rank."""
        peers = self.take(world)
        for peer, rendezvous in zip(peers, self.rendezvous(world), strict=True):
            peer.start(function, rendezvous, *args)
        return results(peers)

    def close(self) -> None:
        for peer in self._living:
            if peer.is_alive:
                peer.kill()


def results(peers: Sequence[Peer]) -> list[Any]:
    """Of all of them, in order; raises the first failure once each has ended."""
    outcomes = [_outcome(peer) for peer in peers]
    for outcome in outcomes:
        if isinstance(outcome, PeerFailed):
            raise outcome
    return outcomes


@contextmanager
def gathered() -> Iterator[Peers]:
    """Peers that are gone at the end."""
    peers = Peers()
    try:
        yield peers
    finally:
        peers.close()


def _outcome(peer: Peer) -> Any:
    try:
        return peer.result()
    except PeerFailed as error:
        return error


def _live(connection: Connection) -> None:
    torch.set_num_threads(1)
    link = Link(connection)
    work: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, link, work), daemon=True).start()
    while (job := work.get()) is not None:
        function, args = job
        try:
            connection.send(("result", function(link, *args)))
        except BaseException:  # a failed `pytest.raises` too
            connection.send(("failed", traceback.format_exc()))


def _listen(connection: Connection, link: Link, work: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            kind, value = connection.recv()
        except EOFError:
            return work.put(None)
        (work if kind == "run" else link._words).put(value)
