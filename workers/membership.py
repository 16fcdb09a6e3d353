"""Who belongs to the next generation of a job, and who hands state to whom. Pure decisions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A generation as it is announced to every worker that is in it, or leaves with it."""

    generation: int
    members: tuple[str, ...]  # worker ids; the position is the rank, and rank 0 leads
    host: str  # of the store that this generation meets at
    port: int
    not_before: int  # samples seen before which the generation must not begin
    kappa: tuple[float, float]  # limits of the batch multiplier
    cause: str  # api, allocator, rank_lost, ...
    reason: str  # a sentence
    decide_s: float  # from the request to this plan

    def rank_of(self, worker: str) -> int | None:
        """The worker's rank; None where it is left out."""
        return self.members.index(worker) if worker in self.members else None


def next_members(current: Sequence[str], gone: Collection[str], ready: Sequence[str], wanted: int) -> tuple[str, ...]:
    """The members of the next generation: survivors in their order, the newest leaving first, then who is warm.

    So the lead stays the lead while it lives, and a grow never moves a worker that is there.
    """
    survivors = [worker for worker in current if worker not in gone]
    return tuple([*survivors, *(worker for worker in ready if worker not in survivors)][: max(0, wanted)])


def missing(wanted: int, training: int, warming: int) -> int:
    """How many workers to start (above 0), or how many of the warming ones to dismiss (below 0)."""
    return max(wanted - training - warming, -warming)


@dataclass(frozen=True, kw_only=True)
class Transfers:
    """Who has the state of a new generation, and who needs it."""

    sources: tuple[int, ...]  # ranks; never empty
    receivers: tuple[int, ...]
    fresh: bool  # nobody had any: rank 0 restores or begins

    def source_of(self, item: int) -> int:
        """The rank that sends item number `item`: the sources take turns."""
        return self.sources[item % len(self.sources)]


def transfers(standings: Sequence[int]) -> Transfers:
    """From each rank's samples committed (-1: has no state) to who sends to whom.

    Whoever is most advanced is a source: a step that one member took was confirmed by all, so the
    others catch up and nothing is taken back.
    """
    best = max(standings)
    if best < 0:
        return Transfers(sources=(0,), receivers=tuple(range(1, len(standings))), fresh=True)
    sources = tuple(rank for rank, samples in enumerate(standings) if samples == best)
    return Transfers(
        sources=sources, receivers=tuple(r for r in range(len(standings)) if r not in sources), fresh=False
    )


@dataclass(frozen=True, kw_only=True)
class Change:
    """What entering a generation changed: the substance of a Started or Resized event."""

    generation: int
    cause: str
    reason: str
    decide_s: float
    samples: int
    restored: bool  # from a durable checkpoint, or from nothing
    workers: tuple[int, int]  # before, after; the same where there was nothing before
    kappa: tuple[float, float]
    batch: tuple[int, int]
    before: dict[str, Any]  # hyperparameters
    after: dict[str, Any]
    state_factors: dict[str, float]
    warnings: list[str] = field(default_factory=list)
