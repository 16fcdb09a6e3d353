"""A job that is looked at again and again: its state now, and what happened since the last look."""

from __future__ import annotations

from api_schemas.client import Client
from api_schemas.events import Event
from api_schemas.views import JobView


class Observer:
    """Looks at one job; `view` and `loss` (None: not known or not finite) are as of the last look."""

    def __init__(self, client: Client, view: JobView) -> None:
        self.view = view
        self.loss: float | None = None
        self._client = client
        self._cursor: str | None = None
        self._measured_at = 0  # samples seen at the last point of the loss
        self._explained = ""  # why it is smaller than it may be, as `shortage` said last

    def skip(self) -> Event | None:
        """Look at how the job stands, and pass over what happened so far; its last change of size, where it had one."""
        job = self.view.id
        self._cursor = self._client.events(job, newest_first=True, limit=1).last
        self.view = self._client.job(job)  # after the cursor: what happens in between is told twice, and not never
        if self.view.progress.samples:
            self._measure()
        resizes = self._client.events(job, newest_first=True, limit=1, types=["resized"]).items
        return resizes[0] if resizes else None

    def look(self) -> list[Event]:
        """What happened since the last look; at the first look, everything so far that was not passed over.

        The view is asked for first: once it says that the job has ended, all its events are among those returned.
        """
        self.view = self._client.job(self.view.id)
        heard: list[Event] = []
        while True:
            page = self._client.events(self.view.id, after=self._cursor)
            heard += page.items
            self._cursor = page.last or self._cursor
            if page.next is None:
                break
        if self.view.progress.samples:
            self._measure()
        return heard

    def shortage(self) -> str | None:
        """Why it has fewer workers than it may have, where that is new since it was last asked for."""
        status, before = self.view.status, self._explained
        self._explained = status.message if status.falls_short else ""
        return self._explained if self._explained not in ("", before) else None

    def _measure(self) -> None:
        curve = self._client.metrics(self.view.id, ["loss"], start=self._measured_at).series.get("loss", [])
        self._measured_at, self.loss = curve[-1] if curve else (0, None)  # none: what was there was rolled back
