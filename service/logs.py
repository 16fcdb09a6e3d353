"""The logs of a job, as its workers stored them: `logs/<worker>/<number>.log`, segments that never change.

Each line begins with its time, so lines of several workers are put in order by sorting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from heapq import merge
from itertools import groupby, islice

import anyio
from anyio.to_thread import run_sync

from api_schemas.errors import NotFound, Unavailable
from service.storage import Folder, Stored

FOLDER = "logs"

Line = tuple[str, str]
"""The text, which begins with its time, and the worker."""


def read(folder: Folder, rank: str | None, tail: int | None) -> Iterator[str]:
    """The lines stored so far, or the last `tail` of them; `rank` picks a worker (`3` or `w3`).

    Lines of several workers are marked with their worker. Raises NotFound for a worker that left no logs.
    """
    segments = _segments(folder, rank)
    if rank is not None and not segments:
        raise NotFound(f"There are no logs of worker {rank!r}.")
    return _lines(folder, segments, rank, tail)


async def follow(
    folder: Folder, rank: str | None, tail: int | None, ended: Callable[[], bool], poll_s: float
) -> AsyncIterator[str]:
    """The same, and then what comes, until the job has ended and its last segments are read.

    Each look, every `poll_s` seconds, lists all segments: behind S3 a request for a thousand of them. No segment is
    read twice. A storage that does not answer has nothing new; in the first look it raises Unavailable.
    """
    seen: set[str] = set()
    first = True
    while True:
        last = await run_sync(ended)
        try:
            segments = [each for each in await run_sync(_segments, folder, rank) if each.path not in seen]
            lines = await run_sync(_read_all, folder, segments, rank, tail if first else None)
        except Unavailable:
            if first:
                raise
        else:
            first = False
            seen.update(segment.path for segment in segments)
            for line in lines:
                yield line
            if last:
                return
        await anyio.sleep(poll_s)


def _read_all(folder: Folder, segments: Iterable[Stored], rank: str | None, tail: int | None) -> list[str]:
    return list(_lines(folder, segments, rank, tail))


def _segments(folder: Folder, rank: str | None) -> list[Stored]:
    """In order: by worker, then by number."""
    names = None if rank is None else (rank, f"w{rank}")
    return [each for each in folder.files(FOLDER) if names is None or _worker(each) in names]


def _worker(segment: Stored) -> str:
    return segment.path.split("/")[1]


def _lines(folder: Folder, segments: Iterable[Stored], rank: str | None, tail: int | None) -> Iterator[str]:
    workers = {worker: list(parts) for worker, parts in groupby(segments, key=_worker)}
    lines: Iterable[Line] = merge(*(_of_worker(folder, parts, tail) for parts in workers.values()))
    if tail is not None:
        lines = deque(lines, maxlen=tail)
    return (f"{text}\n" if rank is not None else f"[{worker}] {text}\n" for text, worker in lines)


def _of_worker(folder: Folder, segments: list[Stored], tail: int | None) -> Iterator[Line]:
    """All lines, or the last ones; of those no segment is read that has none."""
    if tail is None:
        yield from (line for segment in segments for line in _text(folder, segment))
        return
    backwards = (line for segment in reversed(segments) for line in reversed(_text(folder, segment)))
    yield from reversed(list(islice(backwards, tail)))


def _text(folder: Folder, segment: Stored) -> list[Line]:
    text = folder.read(segment.path).decode(errors="replace")
    return [(line, _worker(segment)) for line in text.removesuffix("\n").split("\n")] if text else []
