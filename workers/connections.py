"""The TCP connections of this process, and where it listens: libraries that hold some do not tell.

Each socket is looked at through a duplicate of its descriptor, which is closed when the next one is asked for.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

Address = tuple[str, int]

_ESTABLISHED = 1
"""TCP_ESTABLISHED of linux/tcp.h; the state is the first byte of TCP_INFO."""


class Connection(NamedTuple):
    """One that this process has."""

    socket: socket.socket
    local: Address
    peer: Address

    @property
    def is_up(self) -> bool:
        """Established, as far as this end knows: not so once the peer, or this process, has closed it."""
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED

    def keep_alive(self) -> None:
        """Have the kernel ask whether the peer's is there; where nobody answers for 25 s, the connection is down.

        A machine that loses power says nothing, and whoever waits for it to speak would wait on.
        """
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, 10),  # seconds of silence until the first question
            (socket.TCP_KEEPINTVL, 5),
            (socket.TCP_KEEPCNT, 3),
            (socket.TCP_USER_TIMEOUT, 25_000),  # milliseconds, for what was sent and nobody confirms
        ):
            with suppress(OSError):  # not every kernel has them all
                self.socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def shut_down(self) -> None:
        """Whoever waits on it, at either end, waits no longer; no error if it is down already."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


def connections() -> Iterator[Connection]:
    """Of this process, one after the other."""
    for candidate in _sockets():
        with suppress(OSError):  # not connected
            peer = _address(candidate.getpeername())
            yield Connection(candidate, _address(candidate.getsockname()), peer)


def listening() -> Iterator[Address]:
    """Where this process listens."""
    for candidate in _sockets():
        if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            yield _address(candidate.getsockname())


def route(host: str, port: int) -> tuple[str, Address]:
    """The address of this machine that faces a host, and that of the host."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)  # nothing is sent: this only looks up the route
        return _address(probe.getsockname())[0], _address(probe.getpeername())


def _sockets() -> Iterator[socket.socket]:
    """A duplicate of every TCP socket of this process, one after the other."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # closed meanwhile
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with _socket_of(os.dup(int(name))) as duplicate:
                if duplicate.family in (socket.AF_INET, socket.AF_INET6) and duplicate.type == socket.SOCK_STREAM:
                    yield duplicate


def _socket_of(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)
    except OSError:  # it is none any more
        os.close(descriptor)
        raise


def _address(name: tuple[str, int]) -> Address:
    """An IPv4 address looks the same whichever kind of socket it is used with."""
    return name[0].removeprefix("::ffff:"), name[1]
