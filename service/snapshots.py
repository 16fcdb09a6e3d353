"""Answers as they are sent, kept for whoever asks next."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock


class Snapshots:
    """One text a job, that of the revision it was made from; those that nobody asked for longest make room."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._lock = Lock()

    def get(self, job_id: str, revision: int) -> bytes | None:
        """The text of just this revision, if it is here."""
        with self._lock:
            kept = self._kept.get(job_id)
            if kept is None or kept[0] != revision:
                return None
            self._kept.move_to_end(job_id)
            return kept[1]

    def put(self, job_id: str, revision: int, text: bytes) -> None:
        """Keep it, unless a newer one is here."""
        with self._lock:
            kept = self._kept.get(job_id)
            if kept is not None and kept[0] > revision:
                return
            self._bytes += len(text) - (len(kept[1]) if kept else 0)
            self._kept[job_id] = (revision, text)
            self._kept.move_to_end(job_id)
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._kept.popitem(last=False)
                self._bytes -= len(dropped)
