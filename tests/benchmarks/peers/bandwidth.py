"""How fast gloo moves state between two processes of this machine, sent as our own hand-over sends it."""

from __future__ import annotations

import time

import torch

from tests.workers.peers import Link, gathered
from workers.mesh import Mesh, Rendezvous

TENSORS, ELEMENTS = 12, 8_000_000
"""384 MB, as twelve tensors in flight together."""
TIMES = 7


def measure() -> list[float]:
    """Bytes per second, each time; the first, which opens the way, left out."""
    with gathered() as peers:
        _, received = peers.run(move, 2)
    return [4 * TENSORS * ELEMENTS / seconds for seconds in received[1:]]


def move(_: Link, at: Rendezvous) -> list[float]:
    """Runs in a peer: rank 0 sends, rank 1 measures."""
    mesh = Mesh(at)
    mesh.join()
    tensors = [torch.ones(ELEMENTS) for _ in range(TENSORS)]
    seconds = []
    for _ in range(TIMES):
        mesh.vote(False)
        began = time.monotonic()
        mesh.wait(mesh.receive(tensors, 0) if mesh.rank else mesh.send(tensors, 1))
        seconds.append(time.monotonic() - began)
    mesh.leave()
    return seconds
