"""The members of a generation as torch's default process group: what they do together, whoever made the group."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch.futures import Future


class Group:
    """Collectives and messages of torch's default group, which exists already. A lost peer raises RuntimeError."""

    def __init__(self, *, rank: int, world: int) -> None:
        self.rank = rank
        self.world = world

    def vote(self, waiting: bool, *amounts: float) -> tuple[bool, list[float]]:
        """The commit gate of a step: whether a new generation waits for any member, and the sums of the amounts.

        One small all-reduce carries them all; what it confirmed is stepped by all members.
        """
        ballot = torch.tensor([float(waiting), *amounts], dtype=torch.float64)
        self.all_reduce(ballot)
        return bool(ballot[0] > 0), ballot[1:].tolist()

    def all_reduce(self, tensor: torch.Tensor) -> None:
        """SUM over the members, in place."""
        with self.guard():
            self.reduced(tensor).wait()

    def reduced(self, tensor: torch.Tensor) -> Future[list[torch.Tensor]]:
        """Start a SUM over the members, in place."""
        return self._future(_started(dist.all_reduce(tensor, async_op=True)), tensor)

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Stack every member's tensor: (world, *shape)."""
        gathered = [torch.empty_like(tensor) for _ in range(self.world)]
        with self.guard():
            self._future(_started(dist.all_gather(gathered, tensor, async_op=True)), tensor).wait()
        return torch.stack(gathered)

    def send(self, tensors: Sequence[torch.Tensor], to: int, *, first_tag: int = 0) -> list[dist.Work]:
        """Start sending contiguous tensors to one member, numbered by tags from `first_tag`; `wait` finishes it."""
        with self.guard():
            return [_started(dist.isend(tensor, to, tag=tag)) for tag, tensor in enumerate(tensors, first_tag)]

    def receive(self, tensors: Sequence[torch.Tensor], source: int, *, first_tag: int = 0) -> list[dist.Work]:
        """Start receiving into contiguous tensors what one member sent, from its message number `first_tag` on."""
        with self.guard():
            return [_started(dist.irecv(tensor, source, tag=tag)) for tag, tensor in enumerate(tensors, first_tag)]

    def wait(self, works: Sequence[dist.Work]) -> None:
        """Finish what `send` and `receive` started."""
        for work in works:
            work.wait()

    def check(self) -> None:
        """Raise where the group is known to be of no use any more: here that is never known."""

    def guard(self) -> AbstractContextManager[None]:
        """A context around whatever uses the group (DDP's backward, say): here it changes nothing."""
        return nullcontext()

    def _future(self, work: dist.Work, _tensor: torch.Tensor) -> Future[list[torch.Tensor]]:
        """Of what becomes of a collective that has started on the tensor."""
        future: Future[list[torch.Tensor]] = work.get_future()
        return future


def _started(work: dist.Work | None) -> dist.Work:
    assert work is not None, "this process belongs to the group"
    return work
