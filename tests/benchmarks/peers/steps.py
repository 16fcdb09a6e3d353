"""What a process that trains leaves behind of its steps, however it ends; the standard library alone.

The lead of a group that is made anew for every change keeps its first and its last step (`Log`, `runs`); a process that
lives through changes keeps them all (`Step`). Times are those of `time.monotonic`, which all processes share.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<5d")
_PATTERN = "steps-*"


class Run(NamedTuple):
    """The steps of one process group, as its lead did them."""

    world: float
    first: float  # number of the first step, from 1
    began: float  # when it did
    last: float
    ended: float


class Log:
    """Kept by the lead of a group, from its first step on."""

    def __init__(self, folder: Path, world: int) -> None:
        self._file = os.open(folder / f"steps-{os.getpid()}-{world}", os.O_WRONLY | os.O_CREAT)
        self._world = world
        self._first: tuple[int, float] | None = None

    def add(self, number: int, began: float, ended: float) -> None:
        """A step."""
        self._first = self._first or (number, began)
        os.pwrite(self._file, _RECORD.pack(self._world, *self._first, number, ended), 0)


def runs(folder: Path) -> Iterator[Run]:
    """Of all groups that have done a step."""
    for path in folder.glob(_PATTERN):
        if len(found := path.read_bytes()) == _RECORD.size:
            yield Run(*_RECORD.unpack(found))


class Step(NamedTuple):
    """One attempt at a step."""

    workers: float  # that took part
    number: float  # of committed steps after it
    began: float
    ended: float
    committed: float  # 1 or 0

    def packed(self) -> bytes:
        """To be appended to a file."""
        return _RECORD.pack(*self)


def steps(path: Path, after: float) -> list[Step]:
    """The attempts that ended after a moment."""
    found = path.read_bytes() if path.exists() else b""
    whole = len(found) // _RECORD.size * _RECORD.size
    return [step for step in map(Step._make, _RECORD.iter_unpack(found[:whole])) if step.ended > after]
