"""Saving beside the training: one background thread that writes the newest snapshot handed to it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from threading import Condition, Thread

from workers import checkpoint
from workers.checkpoint import Snapshot
from workers.storage import Storage, StorageError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A checkpoint is durable."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Failed:
    """A checkpoint could not be written; the one before is still there."""

    name: str
    message: str


class CheckpointWriter:
    """Writes snapshots to `storage`, one at a time, and prunes to the newest `keep` after each (None: keeps all).

    While one is written at most one waits: a newer one takes its place, since whoever restores wants the newest. The
    thread is a daemon, because a process that is killed loses nothing: what is not committed does not count.
    """

    def __init__(self, storage: Storage, keep: int | None = None) -> None:
        self._storage = storage
        self._keep = keep
        self._changed = Condition()
        self._waiting: tuple[str, Snapshot] | None = None
        self._results: list[Saved | Failed] = []
        self._closed = False
        self._thread = Thread(target=self._run, name="checkpoint-writer", daemon=True)
        self._thread.start()

    def submit(self, name: str, snapshot: Snapshot) -> None:
        """Hand over a snapshot, which nobody may change from now on. Returns at once; RuntimeError after `close`."""
        with self._changed:
            if self._closed:
                raise RuntimeError("the checkpoint writer is closed")
            self._waiting = (name, snapshot)
            self._changed.notify()

    def drain(self) -> list[Saved | Failed]:
        """What was written or failed since the last call, in order. A snapshot that was replaced is neither."""
        with self._changed:
            results, self._results = self._results, []
        return results

    def close(self, wait: bool = True) -> None:
        """Accept no more. With `wait`, return when all is written; without, drop what waits and return at once."""
        with self._changed:
            self._closed = True
            if not wait:
                self._waiting = None
            self._changed.notify()
        if wait:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            result = self._write(*job)
            with self._changed:
                self._results.append(result)

    def _next(self) -> tuple[str, Snapshot] | None:
        """Wait for the next snapshot; None when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._closed)
            job, self._waiting = self._waiting, None
            return job

    def _write(self, name: str, snapshot: Snapshot) -> Saved | Failed:
        try:
            size = checkpoint.save(self._storage, name, snapshot)
        except Exception as error:  # whatever it is, training goes on
            return Failed(name, str(error) or type(error).__name__)
        self._prune()
        return Saved(name, size)

    def _prune(self) -> None:
        if self._keep is None:
            return
        try:
            checkpoint.prune(self._storage, self._keep)
        except StorageError as error:
            _log.warning("old checkpoints stay: %s", error, extra={"action": "checkpoint.prune_failed"})
