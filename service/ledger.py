"""Which samples a job was trained on: the committed ranges, cut into epochs, with proof that none is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlmodel import col, select

from api_schemas.views import Ledger, LedgerEpoch
from service.db import Database
from service.jobs import found
from service.tables import Job, LedgerRow

Range = tuple[int, int, int]
"""Samples [start, stop), and the generation that committed them."""


def read(database: Database, job_id: str) -> Ledger:
    """The job's ledger. Raises NotFound."""
    with database.reading() as session:
        epoch_size = found(session.exec(select(Job.id, Job.epoch_size).where(Job.id == job_id)).first(), job_id)[1]
        columns = select(LedgerRow.start, LedgerRow.stop, LedgerRow.generation)
        rows = session.exec(columns.where(LedgerRow.job_id == job_id).order_by(col(LedgerRow.start))).all()
    return ledger([(start, stop, generation) for start, stop, generation in rows], epoch_size or 0)


def ledger(ranges: Sequence[Range], epoch_size: int) -> Ledger:
    """Ranges in order of their starts as a ledger: positions within each epoch, samples lost and repeated. Pure."""
    _, lost, repeated = _count(ranges)
    epochs: defaultdict[int, list[Range]] = defaultdict(list)
    for start, stop, generation in ranges:
        for epoch in range(start // epoch_size, -(-stop // epoch_size)):
            first = epoch * epoch_size
            part = (max(start, first) - first, min(stop, first + epoch_size) - first, generation)
            epochs[epoch].append(part)
    return Ledger(
        epochs=[
            LedgerEpoch(epoch=epoch, samples=_count(parts)[0], ranges=parts) for epoch, parts in sorted(epochs.items())
        ],
        samples_lost=lost,
        samples_repeated=repeated,
    )


def _count(ranges: Iterable[Range]) -> tuple[int, int, int]:
    """Samples covered, left out below the end, and covered more than once."""
    covered = lost = repeated = cursor = 0
    for start, stop, _ in ranges:
        lost += max(0, start - cursor)
        repeated += max(0, min(cursor, stop) - start)
        covered += max(0, stop - max(cursor, start))
        cursor = max(cursor, stop)
    return covered, lost, repeated
