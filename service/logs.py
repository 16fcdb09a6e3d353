"""The logs of a job, as its workers stored them: `logs/<worker>/<number>.log`, segments that only grow.

Each line begins with its time, so lines of several workers are put in order by sorting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from heapq import merge
from itertools import groupby, islice
from typing import NamedTuple

import anyio
from anyio.to_thread import run_sync

from api_schemas.errors import NotFound, Unavailable
from service.storage import Folder

FOLDER = "logs"
AT_ONCE = 500
"""Lines that are read, and sent, in one go."""

Line = tuple[str, str]
"""The text, which begins with its time, and the worker."""


class Piece(NamedTuple):
    """Whole lines of a segment: its bytes [start, stop)."""

    path: str
    start: int
    stop: int

    @property
    def worker(self) -> str:
        """Whose lines they are."""
        return self.path.split("/")[1]


def read(folder: Folder, rank: str | None, tail: int | None) -> Iterator[str]:
    """The lines stored so far, or the last `tail` of them; `rank` picks a worker (`3` or `w3`).

    Lines of several workers are marked with their worker. Raises NotFound for a worker that left no logs.
    """
    pieces = _pieces(folder, rank)
    if rank is not None and not pieces:
        raise NotFound(f"There are no logs of worker {rank!r}.")
    return _lines(folder, pieces, rank, tail)


def follow(
    folder: Folder, rank: str | None, tail: int | None, ended: Callable[[], bool], poll_s: float
) -> AsyncIterator[str]:
    """The same, and then what comes, until the job has ended and its last segments are read.

    Blocks for the first look, which raises Unavailable, and NotFound for a worker that will leave no logs any more.
    Each look, every `poll_s` seconds, lists all segments: behind S3 a request for a thousand of them. Nothing is read
    twice. Later on a storage that does not answer has nothing new.
    """
    if ended():
        return in_chunks(read(folder, rank, tail))
    return _coming(folder, rank, tail, _pieces(folder, rank), ended, poll_s)


async def _coming(
    folder: Folder, rank: str | None, tail: int | None, pieces: list[Piece], ended: Callable[[], bool], poll_s: float
) -> AsyncIterator[str]:
    """`pieces`: what there was at first."""
    async for chunk in in_chunks(_lines(folder, pieces, rank, tail)):
        yield chunk
    read_to = {piece.path: piece.stop for piece in pieces}
    last = False
    while not last:
        await anyio.sleep(poll_s)
        last = await run_sync(ended)
        try:
            found = [each._replace(start=read_to.get(each.path, 0)) for each in await run_sync(_pieces, folder, rank)]
            lines = await run_sync(_read_all, folder, found, rank)
        except Unavailable:
            last = False
            continue
        read_to = {piece.path: piece.stop for piece in found}
        if lines:
            yield "".join(lines)


async def in_chunks(lines: Iterator[str]) -> AsyncIterator[str]:
    """So that no more of a long log is in memory than is sent next; whoever takes one waits for its storage."""
    while chunk := await run_sync(lambda: list(islice(lines, AT_ONCE))):
        yield "".join(chunk)


def _read_all(folder: Folder, pieces: Iterable[Piece], rank: str | None) -> list[str]:
    return list(_lines(folder, pieces, rank, None))


def _pieces(folder: Folder, rank: str | None) -> list[Piece]:
    """Whole segments, in order: by worker, then by number."""
    names = None if rank is None else (rank, f"w{rank}")
    pieces = [Piece(each.path, 0, each.bytes) for each in folder.files(FOLDER)]
    return [piece for piece in pieces if names is None or piece.worker in names]


def _lines(folder: Folder, pieces: Iterable[Piece], rank: str | None, tail: int | None) -> Iterator[str]:
    workers = [list(group) for _, group in groupby(pieces, key=lambda piece: piece.worker)]
    lines: Iterable[Line] = merge(*(_of_worker(folder, group, tail) for group in workers))
    if tail is not None:
        lines = deque(lines, maxlen=tail)
    return (f"{text}\n" if rank is not None else f"[{worker}] {text}\n" for text, worker in lines)


def _of_worker(folder: Folder, pieces: list[Piece], tail: int | None) -> Iterator[Line]:
    """All lines, or the last ones; of those no piece is read that has none."""
    if tail is None:
        yield from (line for piece in pieces for line in _text(folder, piece))
        return
    backwards = (line for piece in reversed(pieces) for line in reversed(_text(folder, piece)))
    yield from reversed(list(islice(backwards, tail)))


def _text(folder: Folder, piece: Piece) -> list[Line]:
    if piece.stop <= piece.start:
        return []
    text = folder.read(piece.path, piece.start, piece.stop).decode(errors="replace")
    return [(line, piece.worker) for line in text.removesuffix("\n").split("\n")]
