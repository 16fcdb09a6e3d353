"""Jobs while they train: on a terminal a live table below what happened, anywhere else lines alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from api_schemas import display
from api_schemas.client import Client
from api_schemas.observer import Observer
from api_schemas.views import JobView
from api_schemas.wording import describe, share, stands, state

TENTHS = 10
"""Plain output has a line of progress for each of so many parts of the training."""
News = tuple[str, str, str]
"""When, whose, what."""


class Board:
    """Shows the jobs that were added, whenever it is refreshed. A context manager."""

    def __init__(self, client: Client, console: Console) -> None:
        self._client = client
        self._console = console
        self._observers: list[Observer] = []
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

    def add(self, view: JobView, *, from_start: bool = True) -> None:
        """Show this job from now on: after all that has happened to it, or after how it stands."""
        observer = Observer(self._client, view)
        self._observers.append(observer)
        if not from_start:
            resized = observer.skip()
            view = observer.view
            if resized is not None:
                self._print((f"{resized.at:%H:%M:%S}", view.name, f"last change of size: {describe(resized)}"))
            self._print((f"{view.updated_at:%H:%M:%S}", view.name, f"now {stands(view, observer.loss)}"))

    def refresh(self) -> list[JobView]:
        """Look at every job and show what is new; the jobs as they are now."""
        for observer in self._observers:
            for news in _news(observer, progress=self._live is None):
                self._print(news)
        if self._live is not None:
            shown = [(observer.view, observer.loss) for observer in self._observers]
            self._live.update(display.live(shown), refresh=True)
        return [observer.view for observer in self._observers]

    def _print(self, news: News) -> None:
        self._console.print("  ".join(news) if self._live is None else _in_columns(news))

    def watch(self, *, every_s: float = 0.5, sleep: Callable[[float], None] = time.sleep) -> None:
        """Refresh until every job has ended."""
        while not all(view.status.is_terminal for view in self.refresh()):
            sleep(every_s)


def _news(observer: Observer, *, progress: bool) -> Iterator[News]:
    """What happened since the last look; with `progress`, also the state after each part of the training."""
    name, before = observer.view.name, share(observer.view.progress)
    for event in observer.look():
        if sentence := describe(event):
            yield f"{event.at:%H:%M:%S}", name, sentence
    if sentence := observer.shortage():
        yield f"{observer.view.updated_at:%H:%M:%S}", name, sentence
    if progress and int(share(observer.view.progress) * TENTHS) > int(before * TENTHS):
        yield f"{observer.view.updated_at:%H:%M:%S}", name, state(observer.view, observer.loss)


def _in_columns(news: News) -> Table:
    """A sentence that takes several lines stays beside its name."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_row(*news)
    return table
