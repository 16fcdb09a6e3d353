"""The logs of a job, as its workers stored them: `logs/<worker>/<number>.log`, segments that only grow.

Each line begins with its time, so lines of several workers are put in order by sorting. Who follows is told them as
they come: in order within a worker, and among workers within one look.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from heapq import merge
from itertools import groupby, islice
from typing import NamedTuple, TypeVar
from urllib.parse import quote, unquote

import anyio
from anyio.to_thread import run_sync

from api_schemas.errors import FieldError, NotFound, Unavailable
from service.ids import NO_CURSOR
from service.storage import Folder
from service.validation import invalid

Each = TypeVar("Each")

FOLDER = "logs"
AT_ONCE = 500
"""Lines that are read, and sent, in one go."""
_NOWHERE = "-"
_MARK = r"([\w.~%-]+)/([\w.~%-]*):(\d{1,18})"

Heard = Mapping[str, tuple[str, int]]
"""How far a reader is. Of each worker a segment, and how many bytes of it were heard; those before were, whole."""


class Line(NamedTuple):
    """A line, and where it lies: bytes [start, stop) of its segment. They sort by their time."""

    text: str  # begins with its time
    worker: str
    segment: str
    start: int
    stop: int


class Piece(NamedTuple):
    """Whole lines of a segment: its bytes [start, stop)."""

    path: str
    start: int
    stop: int

    @property
    def worker(self) -> str:
        """Whose lines they are."""
        return self.path.split("/")[1]

    @property
    def segment(self) -> str:
        """Its name, below its worker's."""
        return "/".join(self.path.split("/")[2:])


class News(NamedTuple):
    """Lines for who follows, and how far he is with them."""

    lines: list[str]
    heard: Heard

    @property
    def text(self) -> str:
        """The lines, each with its end."""
        return "".join(f"{line}\n" for line in self.lines)


def read(folder: Folder, rank: str | None, tail: int | None) -> Iterator[str]:
    """The lines stored so far, or the last `tail` of them; `rank` picks a worker (`3` or `w3`).

    Lines of several workers are marked with their worker. Raises NotFound for a worker that left no logs.
    """
    pieces = _pieces(folder, rank)
    _check(rank, pieces)
    return (f"{_shown(line, rank)}\n" for line in _lines(folder, pieces, tail))


def follow(
    folder: Folder,
    rank: str | None,
    tail: int | None,
    ended: Callable[[], bool],
    poll_s: float,
    after: Heard | None = None,
) -> AsyncIterator[News]:
    """The same, and then what comes, until the job has ended and its last segments are read.

    `after`: go on there instead, and not from the tail. Without it something is told at once, if only how far one is.
    Blocks for the first look, which raises Unavailable, and NotFound for a worker that will leave no logs any more.
    Each look, every `poll_s` seconds, lists all segments: behind S3 a request for a thousand of them. Nothing is read
    twice. Later on a storage that does not answer has nothing new.
    """
    over = ended()
    pieces = _pieces(folder, rank)
    if over:
        _check(rank, pieces)
    return _coming(folder, rank, tail, after, pieces, ended, poll_s, over=over)


async def _coming(
    folder: Folder,
    rank: str | None,
    tail: int | None,
    after: Heard | None,
    pieces: list[Piece],
    ended: Callable[[], bool],
    poll_s: float,
    *,
    over: bool,
) -> AsyncIterator[News]:
    """`pieces`: what there was at first, and all there will be where it is `over`."""
    lines, heard = await run_sync(_beginning, folder, pieces, tail, after)
    if after is None:
        yield News([], heard)
    while True:
        try:
            async for news in _in_chunks(lines, heard, rank):
                yield news
                heard = news.heard
            if over:
                return
            await anyio.sleep(poll_s)
            over = await run_sync(ended)
            pieces = await run_sync(_pieces, folder, rank)
            lines = _lines(folder, _unheard(pieces, heard), None)
        except Unavailable:
            over, lines = False, iter(())


def _beginning(
    folder: Folder, pieces: list[Piece], tail: int | None, after: Heard | None
) -> tuple[Iterator[Line], Heard]:
    """The lines to begin with, and how far one is before them."""
    if after is not None:
        return _lines(folder, _unheard(pieces, after), None), after
    if tail is None:
        return _lines(folder, pieces, None), {}
    heard = {piece.worker: (piece.segment, piece.stop) for piece in pieces}  # that of a worker's last piece stays
    lines = list(_lines(folder, pieces, tail))
    heard |= {line.worker: (line.segment, line.start) for line in reversed(lines)}
    return iter(lines), heard


async def _in_chunks(lines: Iterator[Line], heard: Heard, rank: str | None) -> AsyncIterator[News]:
    """So that no more of a long log is in memory than is sent next; whoever takes one waits for its storage."""
    async for chunk in _chunks(lines):
        heard = {**heard, **{line.worker: (line.segment, line.stop) for line in chunk}}
        yield News([_shown(line, rank) for line in chunk], heard)


async def in_chunks(lines: Iterator[str]) -> AsyncIterator[str]:
    """Of lines that are whole already, the same."""
    async for chunk in _chunks(lines):
        yield "".join(chunk)


async def _chunks(lines: Iterator[Each]) -> AsyncIterator[list[Each]]:
    while chunk := await run_sync(lambda: list(islice(lines, AT_ONCE))):
        yield chunk


def place(heard: Heard) -> str:
    """How far a reader is, as text: a cursor."""
    marks = (f"{quote(worker)}/{quote(segment, safe='')}:{count}" for worker, (segment, count) in heard.items())
    return ",".join(marks) or _NOWHERE


def heard_at(place: str, name: str) -> Heard:
    """What `place` made a text of. Raises InvalidRequest, with the name of where it came from."""
    if place == _NOWHERE:
        return {}
    marks = [re.fullmatch(_MARK, mark, re.ASCII) for mark in place.split(",")]
    if not all(marks):
        raise invalid([FieldError(pointer=name, message=NO_CURSOR)])
    return {unquote(mark[1]): (unquote(mark[2]), int(mark[3])) for mark in marks if mark}


def _unheard(pieces: Iterable[Piece], heard: Heard) -> Iterator[Piece]:
    """What of these is beyond."""
    for piece in pieces:
        segment, count = heard.get(piece.worker, ("", 0))
        if piece.segment >= segment:
            yield piece._replace(start=count if piece.segment == segment else 0)


def _check(rank: str | None, pieces: list[Piece]) -> None:
    if rank is not None and not pieces:
        raise NotFound(f"There are no logs of worker {rank!r}.")


def _shown(line: Line, rank: str | None) -> str:
    return line.text if rank is not None else f"[{line.worker}] {line.text}"


def _pieces(folder: Folder, rank: str | None) -> list[Piece]:
    """Whole segments, in order: by worker, then by number."""
    names = None if rank is None else (rank, f"w{rank}")
    pieces = [Piece(each.path, 0, each.bytes) for each in folder.files(FOLDER)]
    return [piece for piece in pieces if names is None or piece.worker in names]


def _lines(folder: Folder, pieces: Iterable[Piece], tail: int | None) -> Iterator[Line]:
    """In order of time. Blocks at once where there is a tail to find."""
    workers = [list(group) for _, group in groupby(pieces, key=lambda piece: piece.worker)]
    lines = merge(*(_of_worker(folder, group, tail) for group in workers))
    return lines if tail is None else iter(deque(lines, maxlen=tail))


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
    lines, start = [], piece.start
    for line in folder.read(piece.path, piece.start, piece.stop).removesuffix(b"\n").split(b"\n"):
        stop = start + len(line) + 1
        lines.append(Line(line.decode(errors="replace"), piece.worker, piece.segment, start, stop))
        start = stop
    return lines
