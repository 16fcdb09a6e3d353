"""A controller's events, kept in the job's storage until the service has committed them.

Object stores cannot append, so events lie in immutable segments named by the sequence number of their first event:
`spool/<incarnation>/<first>.json`. Each segment also holds notes: where its controller stood when it was written, for
the one that is started in its place. The service may be away for an hour, or the controller die: nothing is lost, and
the sequence numbers make every repetition visible.

A controller that cannot write gives its events out all the same. The next one does not find them, nor how many numbers
they took, until the service asks: what it stores before that is in doubt, and is numbered anew then.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Sequence
from typing import Any

from workers.storage import NotStored, Storage, StorageError

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
        self._segments: dict[str, int] = {}  # key -> last sequence number, the newest at the end
        self._writes = 0
        self._unwritten: list[Event] = []
        self._events: list[Event] = []
        self.notes: dict[str, Any] = {}  # those that another life would find
        self.last = 0
        self.sure: float = 0  # the last number that no earlier life can have given to another event; inf: no doubt
        self._load()
        self._needed: float = self.sure  # what is stored beyond stays, until what was recalled of it is stored anew

    def append(self, events: Sequence[Event], notes: dict[str, Any]) -> None:
        """Make events durable, each with its `sequence`, ascending from `last` + 1; and the notes beside them.

        Only then are they given out. Raises StorageError; then they are given out all the same, and written with the
        next ones: a full disk must not silence a job.
        """
        if not events:
            return
        unwritten = [*self._unwritten, *events]
        key = f"{self._folder}/{unwritten[0]['sequence']:012d}.json"
        sure, writes = self.sure if self.in_doubt else None, self._writes + 1
        segment = {"events": unwritten, "notes": notes, "sure": sure, "writes": writes}
        try:
            self._storage.write(key, json.dumps(segment).encode())
            self._unwritten, self._writes = [], writes
            self.notes = notes
            with self._lock:
                self._segments.pop(key, None)
                self._segments[key] = events[-1]["sequence"]
                self._needed = self.sure
        except StorageError:
            self._unwritten = unwritten
            raise
        finally:
            with self._lock:
                self._events += events
                self.last = events[-1]["sequence"]

    @property
    def in_doubt(self) -> bool:
        """Whether the service may have other events under the numbers of those beyond `sure`."""
        return self.sure < math.inf

    @property
    def is_behind(self) -> bool:
        """Whether something was given out that another life would not find."""
        return bool(self._unwritten)

    def recall(self, acked: int) -> list[Event]:
        """The end of doubt: the service has asked. What was stored in doubt, for `append`, numbered from `last` + 1.

        Not while `append` runs.
        """
        with self._lock:
            doubted = [event for event in self._events if event["sequence"] > self.sure]
            self._events = [event for event in self._events if event["sequence"] <= self.sure]
            self._unwritten = []
            self.last = max(int(self.sure), acked)
            self.sure = math.inf
        return doubted

    def unheard(self, acked: int) -> list[Event]:
        """The events that a service which has all numbers up to `acked` did not hear: none of those in doubt."""
        return [event for event in self._events if event["sequence"] > min(acked, self.sure)]

    def after(self, acked: int, limit: int | None = None) -> list[Event]:
        """The events beyond `acked`, the first `limit` of them; none that is in doubt."""
        with self._lock:
            return [event for event in self._events if acked < event["sequence"] <= self.sure][:limit]

    def trim(self, acked: int) -> None:
        """Forget what the service has committed; the newest segment stays, for its notes. Raises StorageError."""
        with self._lock:
            had = min(acked, self.sure)
            self._events = [event for event in self._events if event["sequence"] > had]
            gone = [key for key, last in list(self._segments.items())[:-1] if last <= min(had, self._needed)]
        for key in gone:
            self._storage.delete(key)
            with self._lock:
                self._segments.pop(key, None)

    def _load(self) -> None:
        """Where segments share numbers, the one written last is right. One that is gone by now the service has."""
        segments: dict[str, Any] = {}
        for key in self._storage.list(self._folder):
            with contextlib.suppress(NotStored):
                segments[key] = json.loads(self._storage.read(key))
        for key, segment in sorted(segments.items(), key=lambda item: (item[1].get("writes", 0), item[0])):
            events, sure = segment["events"], segment.get("sure")
            first, self.last = events[0]["sequence"], events[-1]["sequence"]
            self._events = [event for event in self._events if event["sequence"] < first] + events
            self._segments[key] = self.last
            self.sure = self.last if sure is None else sure
            self.notes, self._writes = segment["notes"], segment.get("writes", 0)
