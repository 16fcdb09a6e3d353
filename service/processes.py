"""Processes of this machine, told apart by number and start time: a number alone may belong to another by now."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_M_ARENA_MAX = -8  # malloc.h
_POLL_S = 0.05


class Process(BaseModel):
    """A process, as it can be found again."""

    model_config = ConfigDict(frozen=True)

    pid: int
    started: int  # clock ticks since boot

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this number now; None: none has it, or it has ended."""
        stat = _Stat.read(pid)
        return cls(pid=pid, started=stat.started) if stat and stat.alive else None

    def alive(self) -> bool:
        """Whether it still runs."""
        return Process.of(self.pid) == self


def boot_id() -> str:
    """Of this run of the machine: process numbers mean nothing beyond it."""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def members(leader: Process) -> dict[int, str]:
    """Living processes of the session that this process began, number -> name. It may have ended long ago."""
    first = _Stat.read(leader.pid)
    if first is not None and first.started != leader.started:
        return {}  # the number is another's: it would have stayed taken had any member lived on
    stats = {pid: _Stat.read(pid) for pid in _pids()}
    return {pid: stat.name for pid, stat in stats.items() if stat and stat.alive and stat.session == leader.pid}


def end_session(leader: Process, patience_s: float = 10) -> None:
    """Kill every process of the session, those that it makes meanwhile too. TimeoutError: some would not go."""
    deadline = time.monotonic() + patience_s
    while pids := members(leader):
        for pid in pids:
            _kill(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {sorted(pids)} of session {leader.pid} do not end")
        time.sleep(_POLL_S)


def wait_until(condition: Callable[[], bool], patience_s: float) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + patience_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return met


def end_with(parent: int) -> None:
    """Have this process killed when its parent ends, however that ends. Linux only; elsewhere nothing happens."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the line above
        os._exit(1)


def share_heaps(count: int) -> None:
    """Have all threads of this process share so many heaps, glibc's only: it would give each core eight, which keep
    what they once held."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, count)


class _Stat:
    """What /proc/<pid>/stat says."""

    def __init__(self, text: str) -> None:
        name, _, rest = text.partition("(")[2].rpartition(")")  # a name may hold parentheses
        fields = rest.split()
        self.name = name
        self.alive = fields[0] not in "ZX"  # a zombie has ended; somebody has yet to take note
        self.session = int(fields[3])
        self.started = int(fields[19])

    @classmethod
    def read(cls, pid: int) -> _Stat | None:
        try:
            return cls((_PROC / str(pid) / "stat").read_text())
        except (FileNotFoundError, ProcessLookupError):
            return None


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
