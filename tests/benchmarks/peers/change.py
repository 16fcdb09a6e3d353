"""What the resize benchmark asks of everybody who trains, and what it learns."""

from __future__ import annotations

from typing import NamedTuple, Protocol

EVENTS = ("shrink", "grow", "kill", "freeze")


class Change(NamedTuple):
    """What one event cost."""

    pause_s: float
    decide_s: float | None  # None: nobody tells
    steps_lost: int


class Peer(Protocol):
    """A running training of three workers. Each method returns once it trains again as many as it should."""

    def settle(self) -> None:
        """Wait until three train."""

    def shrink(self) -> Change:
        """To two workers, as planned."""

    def grow(self) -> Change:
        """Back to three."""

    def kill(self) -> Change:
        """SIGKILL to the newest worker; its place is taken again."""

    def freeze(self) -> Change:
        """SIGSTOP to the newest worker; its place is taken again."""
