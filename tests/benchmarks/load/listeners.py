"""Listeners to live streams of jobs, who note how late they hear what the intake reported."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from tests.benchmarks.load.callers import Tally

QUIET_S = 1.0
"""Without a word for so long, all have heard what had happened before."""
_CLOCK = re.compile(rb'"code":"clock","message":"([0-9.]+)"')


class Listener(asyncio.Protocol):
    """One stream; what is in it before `since` (by `time.time`) is history."""

    def __init__(self, job: str, tally: Tally, since: float) -> None:
        self._request = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        self._tally = tally
        self._since = since
        self._rest = b""
        self.heard = asyncio.Event()
        self.heard_at = 0.0
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self._request.encode())

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if b"data:" in data:  # and not only that the connection lives
            self.heard.set()
            self.heard_at = now
        self._tally.bytes += len(data)
        text = self._rest + data
        whole = text.rfind(b"\n") + 1
        self._rest = text[whole:]
        for said in _CLOCK.findall(text, 0, whole):
            if float(said) >= self._since:
                self._tally.seconds.append(now - float(said))

    def close(self) -> None:
        self.transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        self.lost = True


async def listening(port: int, jobs: list[str], tally: Tally) -> list[Listener]:
    """A listener for each of these jobs, each of whom has heard what had happened before."""
    loop = asyncio.get_running_loop()
    since = time.time()
    made = []
    for job in jobs:
        _, listener = await loop.create_connection(lambda job=job: Listener(job, tally, since), "127.0.0.1", port)
        made.append(listener)
    await asyncio.gather(*(listener.heard.wait() for listener in made))
    while max(listener.heard_at for listener in made) > time.time() - QUIET_S:
        await asyncio.sleep(QUIET_S / 5)
    return made
