"""The audit of a job's changes of size."""

from __future__ import annotations

from sqlalchemy import BigInteger, literal
from sqlmodel import col, select

from api_schemas.views import Page, Resize
from service.db import Database
from service.jobs import found
from service.tables import Job, ResizeRow


def page(database: Database, job_id: str, after: int, limit: int) -> Page[Resize]:
    """A page of resizes, oldest first. Raises NotFound."""
    rows = select(ResizeRow).where(ResizeRow.job_id == job_id, col(ResizeRow.id) > literal(after, BigInteger))
    with database.reading() as session:
        found(session.exec(select(Job.id).where(Job.id == job_id)).first(), job_id)
        resizes = session.exec(rows.order_by(col(ResizeRow.id)).limit(limit + 1)).all()
    items = [Resize.model_validate(row.payload) for row in resizes[:limit]]
    return Page(items=items, next=str(items[-1].id) if len(resizes) > limit else None)
