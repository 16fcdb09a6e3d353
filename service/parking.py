"""That all jobs leave a checkpoint and end their workers, because their cluster is about to stop."""

from __future__ import annotations

import asyncio


class Parking:
    """Asked for once, of whichever reconciler holds the lease by then."""

    def __init__(self) -> None:
        self.asked = False
        self._done = asyncio.Event()

    async def ask(self) -> None:
        """Returns once no job has a controller. They are queued then, and go on from there at the next start."""
        self.asked = True
        await self._done.wait()

    def done(self) -> None:
        """The reconciler's word that it is so."""
        self._done.set()
