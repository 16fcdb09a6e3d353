"""The changes of size that one worker goes through, and what of them is still to be told.

The lead of a generation tells, as it begins to train. Whoever trained there under another lead keeps the same words,
and says them if it leads next: the other may have died before anybody heard them.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from api_schemas.dynamics import Horizon, Size
from workers.journal import Journal
from workers.membership import Change


class Changes:
    """Of one worker."""

    def __init__(self, journal: Journal) -> None:
        self.last: Size | None = None  # of the last generation that trained, or was told of
        self._journal = journal
        self._entered: tuple[Change, Size] | None = None  # and not told yet
        self._told: dict[str, Any] | None = None  # by the lead of this generation, which has not trained yet
        self._trained: dict[str, Any] | None = None  # the same, once it has

    def enter(self, change: Change, size: Size) -> None:
        """Become another size."""
        self._entered = change, size

    def tell(self, *, leads: bool, pause_s: float, horizon: Horizon) -> None:
        """Say that the size entered last trains from here on, where this worker `leads`."""
        if self._entered is None:
            return
        (change, size), self._entered = self._entered, None
        told = {"pause_s": pause_s, "horizon": asdict(horizon), **asdict(change)}
        if not leads:
            self._told = told
            return
        print(f"sample {change.samples}: workers {change.workers[1]}, kappa {change.kappa[1]:g}", flush=True)
        for each in (self._trained, told):
            if each:
                self._journal.record("entered", **each)
        self._told = self._trained = None
        self.last = size

    def trains(self, size: Size) -> None:
        """A step at this size was confirmed."""
        self.last = size
        if self._told:
            self._trained, self._told = self._told, None
