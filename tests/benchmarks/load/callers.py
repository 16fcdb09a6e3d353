"""Clients that ask over connections of their own and wait for each answer, as cheaply as Python can.

`asyncio` protocols instead of an HTTP library: who measures shares the cores with what is measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

Request = tuple[str, str]
"""An address, and an ETag to ask with (empty: none)."""
_BLANK = b"\r\n\r\n"


@dataclass
class Tally:
    """What came back."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    bytes: int = 0  # of bodies

    def share(self, part: float) -> float:
        """The quantile, in milliseconds."""
        ordered = sorted(self.seconds) or [float("nan")]
        return round(1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)], 3)


class Chooser(Protocol):
    """What to ask for, and what is learned from the answer."""

    def __call__(self, number: int, /) -> Request: ...
    def answered(self, path: str, head: bytes) -> None: ...


class Caller(asyncio.Protocol):
    """One connection: `ask` sends and waits for the answer."""

    def __init__(self, extra: str = "") -> None:
        self._extra = extra
        self._buffer = b""
        self._transport: Any = None
        self._answer: asyncio.Future[tuple[int, bytes, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, body = self._buffer.partition(_BLANK)
        if not blank or self._answer is None or self._answer.done():
            return
        if len(body) >= _length(head):
            self._buffer = b""
            self._answer.set_result((int(head[9:12]), head, body))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())

    async def ask(self, request: Request) -> tuple[int, bytes, bytes]:
        """Status, head and body."""
        path, tag = request
        condition = f"If-None-Match: {tag}\r\n" if tag else ""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{self._extra}{condition}\r\n".encode())
        return await self._answer

    def close(self) -> None:
        self._transport.close()


async def connected(port: int, extra: str = "") -> Caller:
    """A caller whose connection is up; `extra` are header lines."""
    _, caller = await asyncio.get_running_loop().create_connection(lambda: Caller(extra), "127.0.0.1", port)
    return caller


async def closed_loop(callers: list[Caller], seconds: float, choose: Callable[[int], Request]) -> tuple[Tally, float]:
    """Each caller asks again as soon as it was answered; what came back, and how long it took."""
    tally = Tally()
    began = time.perf_counter()

    async def run(number: int, caller: Caller) -> None:
        while time.perf_counter() - began < seconds:
            await _one(caller, choose(number), tally)

    await asyncio.gather(*(run(number, caller) for number, caller in enumerate(callers)))
    return tally, time.perf_counter() - began


async def paced(callers: list[Caller], per_s: float, seconds: float, choose: Chooser) -> Tally:
    """So many a second in all, each caller in its turn; latency counts from when a request was due."""
    tally = Tally()
    began = time.perf_counter()
    gap = len(callers) / per_s

    async def run(number: int, caller: Caller) -> None:
        due = began + number / per_s
        while due - began < seconds:
            await asyncio.sleep(max(due - time.perf_counter(), 0))
            request = choose(number)
            choose.answered(request[0], await _one(caller, request, tally, due))
            due += gap

    await asyncio.gather(*(run(number, caller) for number, caller in enumerate(callers)))
    return tally


async def _one(caller: Caller, request: Request, tally: Tally, since: float | None = None) -> bytes:
    since = since or time.perf_counter()
    status, head, body = await caller.ask(request)
    tally.seconds.append(time.perf_counter() - since)
    tally.statuses[status] = tally.statuses.get(status, 0) + 1
    tally.bytes += len(body)
    return head


def etag(head: bytes) -> str:
    """The ETag among the header lines."""
    return _header(head, b"\netag:").decode()


def _length(head: bytes) -> int:
    return int(_header(head, b"\ncontent-length:") or 0)


def _header(head: bytes, name: bytes) -> bytes:
    at = head.lower().find(name)
    return head[at + len(name) : head.find(b"\r", at) if b"\r" in head[at + 1 :] else None].strip() if at >= 0 else b""
