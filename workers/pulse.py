"""What a worker's training thread does, and since when without progress: told by itself, read by any other thread.

A thread that computes too long hangs; one that waits for its peers may have to wait as long as they take. So a look
tells the two apart: by where the thread's stack ends, and in a backward pass, whose end is out of Python's sight, by
whether all of its gradients are on their way.
"""

from __future__ import annotations

import gc
import inspect
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch.distributed
import torch.futures
from torch import nn
from torch.nn.parallel import distributed

from workers.status import Activity, Doing

STILL_S = 1.0
"""Without progress for less, nobody asks where the thread is."""
FRAMES = 3
"""Of the stack that are told, from the innermost."""
WAITING = (
    *(str(Path(__file__).with_name(name)) for name in ("group.py", "mesh.py")),
    *(str(Path(inspect.getfile(module)).parent) for module in (torch.distributed, torch.futures)),
    distributed.__file__,  # DDP, whose second forward agrees on the order of buckets
)
"""A stack that ends in one of these files, or below these folders, waits for a peer."""
_looking = threading.Lock()


class _Mark(NamedTuple):
    activity: Activity
    sent: bool  # all gradients of this step are on their way: what is left of the backward pass is waiting
    at: float  # of the last progress


class Pulse:
    """Of one training thread."""

    def __init__(self) -> None:
        self._mark = _Mark(Activity.IDLE, sent=False, at=time.monotonic())
        self._nudged_at = self._mark.at

    def does(self, activity: Activity) -> None:
        """The thread turns to something, or made progress in it."""
        self._mark = _Mark(activity, sent=False, at=time.monotonic())

    def beat(self) -> None:
        """It made progress."""
        self.does(self._mark.activity)

    def nudge(self) -> None:
        """From another thread: it was given a reason to get on, and has its time again from now on."""
        self._nudged_at = time.monotonic()

    def sent(self) -> None:
        """All of its gradients are on their way to the others."""
        self._mark = _Mark(self._mark.activity, sent=True, at=time.monotonic())

    @contextmanager
    def of(self, model: nn.Module) -> Iterator[None]:
        """A context in which every forward pass of the model is progress."""
        handle = model.register_forward_hook(lambda *_: self.beat())
        try:
            yield
        finally:
            handle.remove()

    def look(self, thread: int | None) -> Doing:
        """How the thread with this identity is."""
        mark = self._mark
        still_s = time.monotonic() - max(mark.at, self._nudged_at)
        if still_s < STILL_S or mark.activity is Activity.IDLE:
            return Doing(activity=mark.activity, waits=mark.sent, still_s=still_s)
        frame = _frame_of(thread or 0)
        waits = mark.sent or (frame is not None and frame.f_code.co_filename.startswith(WAITING))
        return Doing(activity=mark.activity, waits=waits, still_s=still_s, where=_told(frame))


def _frame_of(thread: int) -> FrameType | None:
    """The innermost frame of a thread. Without a collection meanwhile: in Python 3.11 one that lets go of the
    interpreter's lock, as finalizers may, can bring the whole process to a stop (python/cpython#106883).
    """
    with _looking:
        collects = gc.isenabled()
        gc.disable()
        try:
            return sys._current_frames().get(thread)
        finally:
            if collects:
                gc.enable()


def _told(frame: FrameType | None) -> str:
    """Such as "loss (classify.py:88), _loss (trainer.py:240)"."""
    told: list[str] = []
    while frame is not None and len(told) < FRAMES:
        told.append(f"{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})")
        frame = frame.f_back
    return ", ".join(told)
