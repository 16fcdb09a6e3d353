"""A controller's events, kept in the job's storage until the service has committed them.

Object stores cannot append, so events lie in immutable segments named by the sequence number of their first event:
`spool/<incarnation>/<first>.json`. Each segment also holds notes: where its controller stood when it was written, for
the one that is started in its place. The service may be away for an hour, or the controller die: nothing is lost, and
the sequence numbers make every repetition visible.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

from workers.storage import Storage, StorageError

KEEP_S = 10.0
"""How long workers that are to go live on, at most, until what they told is durable."""

Event = dict[str, Any]


class Spool:
    """The events of one incarnation after the last acknowledged one, in memory and in storage.

    One thread may append while others trim and read.
    """

    def __init__(self, storage: Storage, incarnation: int) -> None:
        """Reads what an earlier life of this incarnation's controller left. Raises StorageError."""
        self._storage = storage
        self._lock = threading.Lock()
        self._folder = f"spool/{incarnation:06d}"
        self._segments: dict[int, str] = {}  # last sequence number -> key
        self._unwritten: list[Event] = []
        self._events: list[Event] = []
        self.notes: dict[str, Any] = {}  # those that another life would find
        self.last = 0
        for key in storage.list(self._folder):
            segment = json.loads(storage.read(key))
            self._keep(key, segment["events"])
            self.notes = segment["notes"]

    def append(self, events: Sequence[Event], notes: dict[str, Any]) -> None:
        """Make events durable, each with its `sequence`, ascending from `last` + 1; and the notes beside them.

        Only then are they given out. Raises StorageError; then they are given out all the same, and written with the
        next ones: a full disk must not silence a job.
        """
        if not events:
            return
        unwritten = [*self._unwritten, *events]
        key = f"{self._folder}/{unwritten[0]['sequence']:012d}.json"
        try:
            self._storage.write(key, json.dumps({"events": unwritten, "notes": notes}).encode())
            self._unwritten = []
            self.notes = notes
            with self._lock:
                self._segments[events[-1]["sequence"]] = key
        except StorageError:
            self._unwritten = unwritten
            raise
        finally:
            with self._lock:
                self._events += events
                self.last = events[-1]["sequence"]

    def skip_to(self, sequence: int) -> None:
        """The next event is numbered above this."""
        with self._lock:
            self.last = max(self.last, sequence)

    def after(self, acked: int, limit: int | None = None) -> list[Event]:
        """The events beyond `acked`, the first `limit` of them."""
        with self._lock:
            return [event for event in self._events if event["sequence"] > acked][:limit]

    def trim(self, acked: int) -> None:
        """Forget what the service has committed; the newest segment stays, for its notes. Raises StorageError."""
        with self._lock:
            self._events = [event for event in self._events if event["sequence"] > acked]
            gone = {last: key for last, key in self._segments.items() if last <= acked and last != max(self._segments)}
        for last, key in gone.items():
            self._storage.delete(key)
            with self._lock:
                self._segments.pop(last, None)

    def _keep(self, key: str, events: list[Event]) -> None:
        self._events += events
        self.last = events[-1]["sequence"]
        self._segments[self.last] = key
