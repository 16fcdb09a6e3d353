"""A worker's output, line by line with its time, in the job's storage: `logs/<worker>/<number>.log`.

Object stores cannot append, so lines are gathered for a moment, and the last segment is written anew with them; once it
is large or old enough the next one begins. So a segment never changes but at its end, and a worker that prints every
second leaves 1,440 of them a day. What another life of the worker left stays: its numbers are counted on.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Self, TextIO

from api_schemas.exchange import Launch
from workers.storage import Storage, StorageError

EVERY_S = 1.0
"""How long lines are gathered."""
SEGMENT_BYTES, SEGMENT_S = 64 * 2**10, 60.0
"""A segment that has reached one of these, in size or age, is not written anew."""
KEPT = 200
"""Lines kept in memory, for the report of a failure; and after a failure to store them, this many times as many."""
LAST_S = 1.5
"""How long the end of a worker waits for its last lines to be stored."""


class Worklog:
    """Collects what is printed in this process from `capture` on."""

    def __init__(self, storage: Storage, worker: str, now: Callable[[], datetime]) -> None:
        self._storage = storage
        self._worker = worker
        self._folder = f"logs/{worker}"
        self._now = now
        self._lock = threading.Lock()
        self._storing = threading.Lock()  # held while the storage is, so that a line is written once
        self._concluding: threading.Thread | None = None
        self._unstored = _unstored()
        self._recent: deque[str] = deque(maxlen=KEPT)
        self._number: int | None = None  # of the last segment; None: the storage was not asked yet
        self._segment = b""
        self._segment_began = now()

    @classmethod
    def of(cls, launch: Launch, worker: str) -> Self:
        """That of a job's worker."""
        return cls(Storage(launch.storage), worker, lambda: datetime.now(UTC))

    def begin(self, job: str, host: str) -> None:
        """`capture`, warnings that are logged too; the first line says where the worker lives."""
        self.capture()
        logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        print(f"worker {self._worker} of job {job}: process {os.getpid()} on {host}", flush=True)

    def capture(self) -> None:
        """Take in stdout and stderr, which go on to where they went; store what comes, until the process ends."""
        sys.stdout = _Tee(sys.stdout, self.add)
        sys.stderr = _Tee(sys.stderr, self.add)
        threading.Thread(target=self._store_forever, name="worklog", daemon=True).start()

    def add(self, line: str) -> None:
        """One more line."""
        stamped = f"{self._now().isoformat(timespec='milliseconds')} {line}"
        with self._lock:
            self._unstored.append(stamped)
            self._recent.append(stamped)

    def tail(self, count: int) -> list[str]:
        """The last lines."""
        with self._lock:
            return list(self._recent)[-count:]

    def store(self) -> None:
        """Write what was gathered; where the storage fails, it is tried again with the next lines."""
        with self._storing:
            with self._lock:
                lines, self._unstored = self._unstored, _unstored()
            if not lines:
                return
            try:
                self._write(lines)
            except StorageError:
                with self._lock:
                    self._unstored = _unstored(*lines, *self._unstored)

    def conclude(self) -> None:
        """`store`, before this process may be ended; returns after LAST_S at most, since storage may hang, and whoever
        asks for it has something to say.
        """
        with self._lock:
            storing = self._concluding
            if storing is None or not storing.is_alive():
                storing = self._concluding = threading.Thread(target=self.store, name="last-lines", daemon=True)
                storing.start()
        storing.join(LAST_S)

    def _write(self, lines: Iterable[str]) -> None:
        if self._number is None:
            self._number = len(self._storage.list(self._folder))
        segment = self._segment + "".join(f"{line}\n" for line in lines).encode()
        self._storage.write(f"{self._folder}/{self._number:06d}.log", segment)
        self._segment = segment
        if len(segment) >= SEGMENT_BYTES or self._now() - self._segment_began >= timedelta(seconds=SEGMENT_S):
            self._number, self._segment, self._segment_began = self._number + 1, b"", self._now()

    def _store_forever(self) -> None:
        wait = threading.Event()
        while not wait.wait(EVERY_S):
            self.store()


def _unstored(*lines: str) -> deque[str]:
    return deque(lines, maxlen=KEPT * KEPT)


class _Tee(io.TextIOBase):
    """A text stream whose lines are also handed on."""

    def __init__(self, stream: TextIO, line: Callable[[str], None]) -> None:
        self._stream = stream
        self._line = line
        self._rest = ""
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Pass on; whole lines are handed on too."""
        with self._lock:
            *whole, self._rest = (self._rest + text).split("\n")
            for line in whole:
                self._line(line)
            return self._stream.write(text)

    def flush(self) -> None:
        """Of the stream itself."""
        self._stream.flush()

    def fileno(self) -> int:
        """Of the stream itself."""
        return self._stream.fileno()

    def isatty(self) -> bool:
        """Never: a log is no terminal."""
        return False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream itself."""
        return self._stream.encoding
