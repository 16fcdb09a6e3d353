"""The append-only record of what happened to each job: taking reports in, writing the service's own, reading since.

Everything here changes a job that the caller has locked, inside the caller's transaction. Event ids of a job
therefore grow in the order of the commits, and a reader that keeps the last id it saw misses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import Row, Table, and_, bindparam, delete, insert, inspect, update
from sqlmodel import Session, col, func, select

from api_schemas.events import (
    Committed,
    Evaluated,
    Metrics,
    PhaseChanged,
    Resized,
    ResizeRequested,
    Rollback,
    ServiceEvent,
    Submitted,
    Updated,
    WorkerEvent,
)
from api_schemas.exchange import Report
from api_schemas.views import Resize
from service import blocks
from service.db import by_name, upsert
from service.folding import State, fold, is_finite
from service.lifecycle import Happening, follow
from service.tables import LONGEST_NAME, EventRow, Job, LedgerRow, MetricRow, ResizeRow

NOT_LISTED = (Committed, Metrics)
"""Events that go to the ledger and the curves alone: they are many."""
_EVENTS = cast(Table, inspect(EventRow).local_table)
_SINCE = (
    _EVENTS.select()
    .where(_EVENTS.c.job_id == bindparam("job_id"), _EVENTS.c.id > bindparam("after"))
    .order_by(_EVENTS.c.id)
    .limit(bindparam("limit"))
)
"""Made once."""


class Taken(NamedTuple):
    """What of an incarnation's history is committed."""

    acked: int  # the last event
    samples: int  # where the line of the job ends with it


class Stale(Exception):
    """The report comes from another incarnation than the job's present one; nothing of it was taken."""


def take_in(session: Session, job: Job, report: Report, now: datetime) -> None:
    """Take what is new in a report: events, ledger, curves and the job's own state, or nothing of it.

    Repeating a report changes nothing. Events beyond a gap in the sequence are left for a later report. After the
    commit, `job.acked` is what the controller may forget. Raises Stale.
    """
    if report.incarnation != job.incarnation:
        raise Stale(f"report of incarnation {report.incarnation}, the job is at {job.incarnation}")
    fresh = _gapless(report.events, job.acked)
    if not fresh:
        return
    for line in _lines(fresh):
        _void(session, job.id, line)
        _write_ledger(session, job.id, line)
        _write_curves(session, job.id, line)
    _write_resizes(session, job, fresh)
    _append(session, list(_fold_all(job, fresh, now)))
    job.acked = fresh[-1].sequence


def launch(session: Session, job: Job, now: datetime) -> int:
    """A new incarnation of the job, which fences off the ones before; returns its number."""
    job.incarnation += 1
    job.acked = 0
    move(session, job, Happening.LAUNCHED, "launched", "Workers are being started.", now)
    return job.incarnation


def move(session: Session, job: Job, happening: Happening, code: str, message: str, now: datetime) -> bool:
    """Move the job as the lifecycle says, with a `phase` event; False where this happening changes nothing."""
    before = job.phase
    _append(session, _move(job, happening, code, message, now))
    return job.phase != before


def submitted(session: Session, job: Job, now: datetime) -> None:
    """Record that the service took the job."""
    _append(session, [Submitted(**_own(job, now), name=job.name)])


def resize_requested(session: Session, job: Job, workers: int | None, at_samples: int | None, now: datetime) -> None:
    """Record that somebody asked for another size, or took that back (None)."""
    _append(session, [ResizeRequested(**_own(job, now), workers=workers, at_samples=at_samples)])


def updated(session: Session, job: Job, changes: Mapping[str, tuple[Any, Any]], now: datetime) -> None:
    """Record what somebody changed, before and after."""
    _append(session, [Updated(**_own(job, now), changes=dict(changes))])


def since(session: Session, job_id: str, after: int, limit: int) -> Sequence[Row[Any]]:
    """The job's next events beyond the cursor, oldest first, with the columns of `EventRow`."""
    return session.connection().execute(_SINCE, {"job_id": job_id, "after": after, "limit": limit}).all()


def news(session: Session, cursors: Mapping[str, int], limit: int) -> Sequence[Row[Any]]:
    """As `since`, of several jobs, each beyond its own cursor: job by job, in the order of their ids; `limit` in all.

    One statement: with one for each job, live streams of a hundred jobs kept a processor half busy.
    """
    asked, parameters = by_name(session, cursors)
    beyond = _EVENTS.join(asked, and_(_EVENTS.c.job_id == asked.c.key, _EVENTS.c.id > asked.c.value))
    ordered = _EVENTS.select().select_from(beyond).order_by(_EVENTS.c.job_id, _EVENTS.c.id).limit(limit)
    return session.connection().execute(ordered, parameters).all()


def listed(
    session: Session, job_id: str, after: int | None, limit: int, *, newest_first: bool, types: Sequence[str]
) -> Sequence[Row[Any]]:
    """The job's events beyond the cursor, or from the end where there is none, of these types where there are any."""
    wanted = _EVENTS.select().where(_EVENTS.c.job_id == job_id)
    if types:
        wanted = wanted.where(_EVENTS.c.type.in_(types))
    if after is not None:
        wanted = wanted.where(_EVENTS.c.id < after if newest_first else _EVENTS.c.id > after)
    order = _EVENTS.c.id.desc() if newest_first else _EVENTS.c.id
    return session.connection().execute(wanted.order_by(order).limit(limit)).all()


def _gapless(events: Iterable[WorkerEvent], acked: int) -> list[WorkerEvent]:
    fresh: list[WorkerEvent] = []
    for event in sorted(events, key=lambda event: event.sequence):
        if event.sequence == acked + len(fresh) + 1:
            fresh.append(event)
    return fresh


def _lines(events: Iterable[WorkerEvent]) -> Iterator[list[WorkerEvent]]:
    """Cut before each rollback: what precedes it must be in the tables before it is voided."""
    line: list[WorkerEvent] = []
    for event in events:
        if isinstance(event, Rollback):
            yield line
            line = []
        line.append(event)
    yield line


def _fold_all(job: Job, fresh: Iterable[WorkerEvent], now: datetime) -> Iterator[ServiceEvent | WorkerEvent]:
    """Change the job event by event; yields what is to be listed, phase changes where they follow."""
    draft = _Draft(job)
    for event in fresh:
        folded = fold(event, cast(State, draft))
        draft.changes.update(folded.changes)
        if not isinstance(event, NOT_LISTED):
            yield event
        if folded.happening:
            draft.apply()
            yield from _move(job, folded.happening, folded.code, folded.message, now)
    draft.apply()


class _Draft:
    """A job with changes that it does not have yet: its columns are slow to set, and most events set the same ones."""

    def __init__(self, job: Job) -> None:
        self.changes: dict[str, Any] = {}
        self._job = job

    def __getattr__(self, name: str) -> Any:
        return self.changes[name] if name in self.changes else getattr(self._job, name)

    def apply(self) -> None:
        """Give the job what has changed."""
        for name, value in self.changes.items():
            setattr(self._job, name, value)
        self.changes.clear()


def _move(job: Job, happening: Happening, code: str, message: str, now: datetime) -> list[ServiceEvent]:
    phase = follow(job.phase, happening)
    if phase is None:
        return []
    moved = phase is not job.phase
    job.phase, job.code, job.message = phase, code, message
    if not moved:
        return []
    job.since = now
    return [PhaseChanged(**_own(job, now), phase=phase, code=code, message=message)]


def _own(job: Job, now: datetime) -> dict[str, Any]:
    """What every event of the service begins with; takes the next sequence number."""
    job.service_sequence += 1
    return {
        "job": job.id,
        "incarnation": 0,
        "generation": job.generation,
        "sequence": job.service_sequence,
        "at": now,
    }


def _append(session: Session, listed: Sequence[ServiceEvent | WorkerEvent]) -> None:
    rows = [
        event.model_dump(include={"incarnation", "generation", "sequence", "type", "at"})
        | {"job_id": event.job, "payload": event.model_dump(mode="json")}
        for event in listed
    ]
    if rows:
        session.flush()  # the job's own row first
        session.connection().execute(insert(_EVENTS), rows)


def _void(session: Session, job_id: str, line: Sequence[WorkerEvent]) -> None:
    """Where the line begins with a rollback: cut the ledger there, and drop the points beyond."""
    if not (line and isinstance(line[0], Rollback)):
        return
    to = line[0].to_samples
    start, stop = col(LedgerRow.start), col(LedgerRow.stop)
    ledger = col(LedgerRow.job_id) == job_id
    session.execute(delete(LedgerRow).where(ledger, start >= to))
    session.execute(update(LedgerRow).where(ledger, stop > to).values(stop=to))
    session.execute(delete(MetricRow).where(col(MetricRow.job_id) == job_id, col(MetricRow.samples) > to))
    blocks.void(session, job_id, to)


def _write_ledger(session: Session, job_id: str, line: Iterable[WorkerEvent]) -> None:
    """Append committed ranges; one that continues the last of its generation lengthens it."""
    ranges = list(_ranges(line))
    if not ranges:
        return
    newest = select(LedgerRow).where(col(LedgerRow.job_id) == job_id).order_by(col(LedgerRow.id).desc())
    last = session.exec(newest.limit(1).execution_options(populate_existing=True)).first()
    for whose, start, stop in ranges:
        if last and last.stop == start and (last.incarnation, last.generation) == whose:
            last.stop = stop
            continue
        last = LedgerRow(job_id=job_id, start=start, stop=stop, incarnation=whose[0], generation=whose[1])
        session.add(last)
    session.flush()


def _ranges(line: Iterable[WorkerEvent]) -> Iterator[tuple[tuple[int, int], int, int]]:
    """(incarnation, generation), start and stop of what was committed; what continues is one range."""
    whose, start, stop = (0, 0), 0, 0
    for event in line:
        if not isinstance(event, Committed):
            continue
        if (event.incarnation, event.generation) != whose or event.start != stop:
            if stop > start:
                yield whose, start, stop
            whose, start = (event.incarnation, event.generation), event.start
        stop = event.stop
    if stop > start:
        yield whose, start, stop


def _write_curves(session: Session, job_id: str, line: Iterable[WorkerEvent]) -> None:
    points = {(name[:LONGEST_NAME], samples): value for event in line for samples, name, value in _points(event)}
    rows = [
        {"job_id": job_id, "name": name, "samples": samples, "value": value if is_finite(value) else None}
        for (name, samples), value in points.items()
    ]
    upsert(session, MetricRow, rows, update=["value"])


def _points(event: WorkerEvent) -> Iterator[tuple[int, str, float | None]]:
    """What an event adds to the curves. Evaluations are curves too: `evaluation/target/<score>`, `.../ema/<score>`."""
    if isinstance(event, Metrics):
        for samples, values in event.points:
            yield from ((samples, name, value) for name, value in values.items())
    if isinstance(event, Evaluated):
        for weights, scores in (("target", event.target), ("ema", event.ema or {})):
            yield from ((event.samples, f"evaluation/{weights}/{name}", value) for name, value in scores.items())


def _write_resizes(session: Session, job: Job, fresh: Iterable[WorkerEvent]) -> None:
    resized = [event for event in fresh if isinstance(event, Resized)]
    if not resized:
        return
    last = session.exec(select(func.max(ResizeRow.id)).where(col(ResizeRow.job_id) == job.id)).one() or 0
    for number, event in enumerate(resized, start=last + 1):
        row = Resize.model_validate({"id": number} | event.model_dump())
        payload = row.model_dump(mode="json")
        session.add(ResizeRow(job_id=job.id, id=number, samples=event.samples, payload=payload))
