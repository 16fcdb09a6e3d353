"""Long curves in blocks, so that one is drawn without reading all of it.

Of each 16 points that follow each other a block keeps the lowest and the highest; of each 8 such blocks the next level
has one, and so on. Whoever draws takes the coarsest level that still has enough, and chooses among its points: so no
peak is lost (Van Der Donckt et al., MinMaxLTTB, IEEE VIS 2023, there with buckets of the reader's own).
Blocks are made behind the intake, which knows nothing of them but that a rollback voids those that reach beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import insert
from sqlmodel import Session, col, delete, func, select

from service.db import Database, lock
from service.tables import BlockRow, Job, MetricRow

SIZES = (16, 8, 8, 8, 8)
"""Of how many points, or blocks of the level before, a block of each level is made. The last level: 65,536 points."""
AT_ONCE = 4096
"""Rows of a curve that one transaction reads: it holds the job meanwhile."""

Points = list[tuple[int, float | None]]


class Block(NamedTuple):
    """Points from the sample `start` to `stop`: the lowest, and the highest. Without a finite value both are None."""

    start: int
    stop: int
    low_at: int
    low: float | None
    high_at: int
    high: float | None

    @classmethod
    def of(cls, samples: int, value: float | None) -> Block:
        """A single point."""
        return cls(samples, samples, samples, value, samples, value)


def extend(database: Database, job_id: str) -> None:
    """Make the blocks that the job's curves have become long enough for."""
    with database.reading() as session:
        found = names(session, job_id)
    for name in found:
        for level in range(len(SIZES)):
            if not _grow(database, job_id, name, level):
                break  # the levels above are made of this one


def void(session: Session, job_id: str, beyond: int) -> None:
    """Forget the blocks that reach beyond this sample."""
    session.execute(delete(BlockRow).where(col(BlockRow.job_id) == job_id, col(BlockRow.stop) > beyond))


def outline(session: Session, job_id: str, name: str, start: int, stop: int | None, points: int) -> Points | None:
    """A curve from `start` to `stop` in at least so many points, the peaks among them; None: it is not long enough."""
    for level in reversed(range(len(SIZES))):
        blocks = _blocks(session, job_id, name, level, start, stop)
        if 2 * len(blocks) >= points:
            before = measured(session, job_id, name, start, blocks[0].start - 1)
            after = measured(session, job_id, name, blocks[-1].stop + 1, stop)
            return [*before, *_extremes(blocks), *after]
    return None


def names(session: Session, job_id: str, limit: int | None = None) -> Sequence[str]:
    """The job's curves, in order: each is found by the one before, without reading their points."""
    first = select(func.min(MetricRow.name).label("name")).where(MetricRow.job_id == job_id)
    found = first.cte("names", recursive=True)
    following = first.where(MetricRow.name > found.c.name).scalar_subquery()
    found = found.union_all(select(following).where(found.c.name.is_not(None)))
    return session.exec(select(found.c.name).where(found.c.name.is_not(None)).limit(limit)).all()


def measured(
    session: Session, job_id: str, name: str, start: int, stop: int | None, limit: int | None = None
) -> Points:
    """The points of a curve from `start` to `stop`, both included."""
    rows = select(MetricRow.samples, MetricRow.value).where(MetricRow.job_id == job_id, MetricRow.name == name)
    rows = rows.where(MetricRow.samples >= start)
    if stop is not None:
        rows = rows.where(MetricRow.samples <= stop)
    return [(samples, value) for samples, value in session.exec(rows.order_by(col(MetricRow.samples)).limit(limit))]


def cut(parts: Sequence[Block], size: int) -> list[Block]:
    """A block of each `size` parts, as far as they go. Pure."""
    whole = len(parts) // size * size
    return [_merged(parts[at : at + size]) for at in range(0, whole, size)]


def _grow(database: Database, job_id: str, name: str, level: int) -> int:
    """Make what a level lacks; how many blocks that were."""
    made = 0
    while new := _extend(database, job_id, name, level):
        made += new
    return made


def _extend(database: Database, job_id: str, name: str, level: int) -> int:
    """Make the next blocks of a level; how many they are."""
    with database.writing() as session:
        if lock(session, Job, job_id) is None:
            return 0
        here = (BlockRow.job_id == job_id, BlockRow.name == name, BlockRow.level == level)
        last = session.exec(select(func.max(BlockRow.stop)).where(*here)).one()
        beyond = 0 if last is None else last + 1
        if level:
            parts = _blocks(session, job_id, name, level - 1, beyond, None, AT_ONCE)
        else:
            parts = [Block.of(*point) for point in measured(session, job_id, name, beyond, None, AT_ONCE)]
        blocks = cut(parts, SIZES[level])
        if blocks:
            key = {"job_id": job_id, "name": name, "level": level}
            session.execute(insert(BlockRow), [key | block._asdict() for block in blocks])
        return len(blocks)


def _blocks(
    session: Session, job_id: str, name: str, level: int, start: int, stop: int | None, limit: int | None = None
) -> list[Block]:
    """Those of a level that lie between `start` and `stop`."""
    rows = select(BlockRow).where(BlockRow.job_id == job_id, BlockRow.name == name, BlockRow.level == level)
    rows = rows.where(BlockRow.start >= start)
    if stop is not None:
        rows = rows.where(BlockRow.stop <= stop)
    columns = rows.with_only_columns(*(col(getattr(BlockRow, field)) for field in Block._fields))
    return [Block(*row) for row in session.execute(columns.order_by(col(BlockRow.start)).limit(limit))]


def _merged(parts: Sequence[Block]) -> Block:
    some = [part for part in parts if part.low is not None]
    low = min(some, key=lambda part: part.low or 0.0, default=parts[0])
    high = max(some, key=lambda part: part.high or 0.0, default=parts[0])
    return Block(parts[0].start, parts[-1].stop, low.low_at, low.low, high.high_at, high.high)


def _extremes(blocks: Iterable[Block]) -> Iterator[tuple[int, float | None]]:
    """The points that blocks keep, in their order."""
    for block in blocks:
        yield from sorted({(block.low_at, block.low), (block.high_at, block.high)}, key=lambda point: point[0])
