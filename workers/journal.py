"""What a worker has to report, kept until the controller has it.

Curve points are kept by every worker, alike: whoever leads is asked for them, and when the lead dies the next one has
them too. Records (an evaluation, a checkpoint) are written by the lead alone.
"""

from __future__ import annotations

import math
import threading
from typing import Any

Record = tuple[int, dict[str, Any]]
"""Its number, and the event's type and fields."""

Point = tuple[int, dict[str, float | None]]
"""Samples seen, and values by name; what is not finite is None, as JSON has no NaN."""


class Journal:
    """Records, numbered from 1, and curve points in ascending order of samples. Safe between threads.

    `version` grows with everything that a reader should hear of at once: records and `nudge`, not points.
    """

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._records: list[Record] = []
        self._written = 0
        self._points: list[Point] = []
        self.version = 0

    def record(self, kind: str, **payload: Any) -> None:
        """Add a record: the event type and its fields."""
        with self._news:
            self._written += 1
            self._records.append((self._written, {"type": kind, **payload}))
        self.nudge()

    def point(self, samples: int, values: dict[str, float]) -> None:
        """Add a point of the curves; one at samples already there replaces it and what came after it."""
        with self._news:
            while self._points and self._points[-1][0] >= samples:
                self._points.pop()
            self._points.append((samples, finite(values)))

    def rewind(self, samples: int) -> None:
        """Drop the points after `samples`: training goes on from there."""
        with self._news:
            self._points = [point for point in self._points if point[0] <= samples]

    def records(self, after: int) -> list[Record]:
        """The records numbered above `after`; those up to it are dropped, the reader has them."""
        with self._news:
            self._records = [record for record in self._records if record[0] > after]
            return list(self._records)

    def points(self, after: int) -> list[Point]:
        """The points beyond `after` samples; those up to it are dropped, the reader has them."""
        with self._news:
            self._points = [point for point in self._points if point[0] > after]
            return list(self._points)

    def wait(self, version: int, timeout_s: float) -> None:
        """Wait until there is something that whoever saw `version` has not seen."""
        with self._news:
            self._news.wait_for(lambda: self.version > version, timeout_s)

    def nudge(self) -> None:
        """Something else changed that the reader should hear of."""
        with self._news:
            self.version += 1
            self._news.notify_all()


def finite(values: dict[str, float]) -> dict[str, float | None]:
    """The same values, with None for those that are not finite."""
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
