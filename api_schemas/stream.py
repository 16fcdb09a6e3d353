"""Server-sent events that survive a broken connection: what was heard is named on the way back in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from api_schemas.connection import WAITS, Connection
from api_schemas.errors import EmascaleError, ServiceUnreachable, Unavailable

SILENCE_S = 60.0
"""The service sends a comment more often than that; longer silence is a dead connection."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One event of the stream."""

    id: str  # the cursor: what comes after it has not been heard
    data: str


def lines(chunks: Iterable[str]) -> Iterator[str]:
    """Lines as they become whole. Ends of lines are LF and CRLF alone: text may hold Unicode's others."""
    rest = ""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split("\n")
        yield from (line.removesuffix("\r") for line in whole)
    if rest:
        yield rest


def messages(stream: Iterable[str]) -> Iterator[Message]:
    """The messages in the lines of a `text/event-stream`; comments and messages without data are dropped."""
    cursor = ""
    data: list[str] = []
    for line in stream:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line and data:
            yield Message(id=cursor, data="\n".join(data))
            data = []
        elif name == "id":
            cursor = value
        elif name == "data":
            data.append(value)


def follow(
    connection: Connection,
    path: str,
    *,
    after: str | None,
    ended: Callable[[], bool],
    params: Mapping[str, Any] | None = None,
    waits: Callable[[EmascaleError], None] | None = None,
) -> Iterator[Message]:
    """Every message after a cursor, connecting again where the stream breaks off.

    `ended` is asked when a stream closes without a message: true ends the iteration. Raises
    ServiceUnreachable or Unavailable after as many failures in a row as the connection has waits; with `waits`
    it is waited for instead, and that is called once in each outage.
    """
    failures, pauses = 0, connection.waits or WAITS[:1]
    while True:
        heard = False
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
        try:
            with connection.stream(path, params=params, headers=headers, silence_s=SILENCE_S) as response:
                failures = 0
                for message in messages(lines(response.iter_text())):
                    heard, after = True, message.id or after
                    yield message
            if not heard and ended():
                return
        except (ServiceUnreachable, Unavailable) as error:
            failures += 1
            if waits is None and failures > len(connection.waits):
                raise
            if waits is not None and failures == 2:  # a stream that broke off is no outage
                waits(error)
        connection.sleep(pauses[min(max(failures, 1), len(pauses)) - 1])
