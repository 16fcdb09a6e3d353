"""What a job lost, and what follows: how long to wait before another worker is started, and when to give up."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from workers.status import Status

DEATHS = 4
"""Times in a row that workers may be lost, or generations get stuck, without a sample trained in between."""
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 60.0
"""Before another worker is started after a loss without progress; doubles, up to the second."""
CAUSE_LENGTH = 500
NODE_GONE = "Its node is gone."
UNREACHABLE = "It cannot be reached: its node is gone, or the network."
WENT_WITH_NODE = (NODE_GONE, UNREACHABLE)
"""Causes of death that say nothing about the job."""


class Losses:
    """Those that went together count once: a node takes all its workers along."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.at = now()  # the last one
        self.cause, self.reason = "rank_lost", "Workers were lost while nobody looked after them."
        self.generation = 0  # the last one that lost somebody who had a state
        self._now = now
        self._count = 0  # in a row without progress
        self._counted = 0  # workers below this number
        self._committed = -1  # samples, at the last one that counted
        self._stuck = 0  # generations in a row, at the same sample
        self._stuck_at = -1

    def add(
        self, number: int, reason: str, status: Status, *, named: int, committed: int, with_node: bool = False
    ) -> None:
        """Worker `number` of the `named` so far is gone, after the job had committed so many samples.

        One that went `with_node` is no reason to give the job up.
        """
        self.at, self.cause, self.reason = self._now(), "rank_lost", reason
        if status.samples >= 0:
            self.generation = max(self.generation, status.generation)
        progressed = status.samples >= 0 and committed > self._committed
        if not progressed and (with_node or number < self._counted):
            return
        self._count = 1 if progressed else self._count + 1
        self._counted, self._committed = named, committed

    def add_stuck(self, generation: int, reason: str, *, committed: int) -> None:
        """In this generation everybody waited for everybody; nobody is gone."""
        self.at, self.cause, self.reason = self._now(), "stalled", reason
        self.generation = max(self.generation, generation)
        self._stuck = self._stuck + 1 if committed == self._stuck_at else 1
        self._stuck_at = committed

    def add_departure(self, reason: str) -> None:
        """Everybody leaves a checkpoint and ends, before their nodes are gone: nobody is lost."""
        self.at, self.cause, self.reason = self._now(), "drain", reason

    @property
    def in_vain(self) -> bool:
        """Whether generations get stuck again and again at the same sample."""
        return self._stuck >= DEATHS

    @property
    def too_many(self) -> bool:
        """Whether to start more would be in vain."""
        return self._count >= DEATHS

    @property
    def backoff_s(self) -> float:
        """How long after the last loss no worker is started."""
        return min(BACKOFF_S * (2.0 ** max(0, self._count - 1) - 1), LONGEST_BACKOFF_S)

    @property
    def since_s(self) -> float:
        """Seconds since the last loss."""
        return (self._now() - self.at).total_seconds()


def cause_of_death(error: Exception) -> str:
    """Why Ray says that an actor died, in one sentence: its own text has a page of possible reasons."""
    text = " ".join(str(error).split())
    if hung := re.search(r"hanging for ([\d.]+) seconds", text):
        return f"It has not answered for {hung[1]} s."
    if "node" in text and "died" in text.partition("node")[2][:40]:
        return NODE_GONE
    if "temporarily unavailable" in text:
        return UNREACHABLE
    if "connection error" in text or "died unexpectedly" in text:
        return "Its process ended unexpectedly: it was killed, or it crashed."
    return text if len(text) <= CAUSE_LENGTH else f"{text[:CAUSE_LENGTH]}..."
