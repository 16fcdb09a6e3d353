"""Jobs while they train: one live table on a terminal, plain lines anywhere else."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.live import Live

from api_schemas import display
from api_schemas.events import Event
from api_schemas.picture import Picture, describe

RECENT = 8
"""Sentences that stay in sight below the table."""
TENTHS = 10
"""Plain output has a line of progress for each of so many parts of the training."""


class Board:
    """Shows the jobs that were added, as their events are heard. A context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._pictures: dict[str, Picture] = {}
        self._recent: deque[str] = deque(maxlen=RECENT)
        self._live = Live(console=console, transient=True) if console.is_terminal else None

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def add(self, job: str, name: str) -> None:
        """Show this job from now on."""
        self._pictures[job] = Picture(name=name)

    def picture(self, job: str) -> Picture:
        """A job as it is shown."""
        return self._pictures[job]

    def hear(self, event: Event) -> None:
        """Show what happened to a job that was added."""
        before = self._pictures[event.job]
        after = self._pictures[event.job] = before.after(event)
        said = [f"{event.at:%H:%M:%S}  {after.name}  {line}" for line in _lines(before, after, event)]
        self._recent.extend(said)
        if self._live is not None:
            self._live.update(display.live(list(self._pictures.values()), self._recent), refresh=bool(said))
        else:
            self._console.print(*said, sep="\n", end="\n" if said else "")


def _lines(before: Picture, after: Picture, event: Event) -> Iterator[str]:
    """What to say of an event: its sentence, and the state after each part of the training."""
    if sentence := describe(event):
        yield sentence
    if int(after.share * TENTHS) > int(before.share * TENTHS):
        yield after.sentence()
