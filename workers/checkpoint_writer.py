"""Saving beside the training: one background thread that writes the newest snapshot handed to it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread

from workers import checkpoint
from workers.checkpoint import Refusal, Snapshot
from workers.storage import Storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A checkpoint is durable."""

    name: str
    bytes: int
    seconds: float


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

    def __init__(
        self,
        storage: Storage,
        report: Callable[[Saved | Failed], None],
        *,
        keep: int | None = None,
        permit: Callable[[], None] = lambda: None,
        refusal: Refusal = lambda _: None,
    ) -> None:
        """`report` is told what was written or failed, in order, by the thread; of a replaced snapshot neither.

        `permit` is that of `checkpoint.save`, `refusal` that of `checkpoint.prune`.
        """
        self._permit = permit
        self._refusal = refusal
        self._storage = storage
        self._report = report
        self._keep = keep
        self._changed = Condition()
        self._waiting: tuple[str, Snapshot] | None = None
        self._writing = False
        Thread(target=self._run, name="checkpoint-writer", daemon=True).start()

    def submit(self, name: str, snapshot: Snapshot) -> None:
        """Hand over a snapshot, which nobody may change from now on. Returns at once."""
        with self._changed:
            self._waiting = (name, snapshot)
            self._changed.notify_all()

    def flush(self) -> None:
        """Return when all that was handed over is written, replaced or failed, and reported."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._writing)

    def _run(self) -> None:
        while True:
            self._report(self._write(*self._next()))
            with self._changed:
                self._writing = False
                self._changed.notify_all()

    def _next(self) -> tuple[str, Snapshot]:
        """Wait for the next snapshot."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None)
            job, self._waiting, self._writing = self._waiting, None, True
            assert job is not None
            return job

    def _write(self, name: str, snapshot: Snapshot) -> Saved | Failed:
        began = time.monotonic()
        try:
            size = checkpoint.save(self._storage, name, snapshot, self._permit)
        except Exception as error:  # whatever it is, training goes on
            return Failed(name, str(error) or type(error).__name__)
        seconds = time.monotonic() - began
        self._prune()
        return Saved(name, size, seconds)

    def _prune(self) -> None:
        if self._keep is None:
            return
        try:
            checkpoint.prune(self._storage, self._keep, self._refusal)
        except Exception as error:  # whatever it is, the next one is written
            reason = str(error) or type(error).__name__
            _log.warning("old checkpoints stay: %s", reason, extra={"action": "checkpoint.prune_failed"})
