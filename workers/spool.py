"""A controller's events, kept in the job's storage until the service has committed them.

Object stores cannot append, so events lie in immutable segments named by the sequence number of their first event:
`spool/<incarnation>/<first>.json`. The service may be away for an hour, or the controller die: nothing is lost, and the
sequence numbers make every repetition visible.
"""

from __future__ import annotations

import json
from typing import Any

from workers.storage import Storage


class Spool:
    """The events of one incarnation after the last acknowledged one, in memory and in storage."""

    def __init__(self, storage: Storage, incarnation: int) -> None:
        """Reads what an earlier life of this incarnation's controller left. Raises StorageError."""
        self._storage = storage
        self._folder = f"spool/{incarnation:06d}"
        self._segments: dict[int, str] = {}  # last sequence number -> path
        self._events: list[dict[str, Any]] = []
        self.last = 0
        for path in storage.list(self._folder):
            self._adopt(path)

    def append(self, events: list[dict[str, Any]]) -> None:
        """Make events durable. Each has its `sequence`, ascending from `last` + 1. Raises StorageError."""
        if not events:
            return
        path = f"{self._folder}/{events[0]['sequence']:012d}.json"
        self._storage.write(path, json.dumps(events).encode())
        self._keep(path, events)

    def after(self, acked: int) -> list[dict[str, Any]]:
        """The events beyond `acked`."""
        return [event for event in self._events if event["sequence"] > acked]

    def trim(self, acked: int) -> None:
        """Forget what the service has committed; the newest segment stays, it holds the sequence."""
        self._events = self.after(acked)
        for last in [last for last in self._segments if last <= acked and last != self.last]:
            self._storage.delete(self._segments.pop(last))

    def _adopt(self, path: str) -> None:
        self._keep(path, json.loads(self._storage.read(path)))

    def _keep(self, path: str, events: list[dict[str, Any]]) -> None:
        self._events += events
        self.last = events[-1]["sequence"]
        self._segments[self.last] = path
