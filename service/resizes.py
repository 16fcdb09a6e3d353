"""The size of a job: asking for another, what that would change, and the audit of the changes that happened."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, literal
from sqlmodel import col, select

from api_schemas.errors import Conflict, FieldError
from api_schemas.jobs import JobSpec, ResizeRequest
from api_schemas.views import ClusterView, Page, Phase, Resize, ResizeAnswer, ResizePreview
from service import events, surroundings
from service.allocator import slots
from service.db import Database
from service.decisions import rooms
from service.jobs import changed, found, impossible, locked
from service.previews import about_room, resize_preview
from service.tables import Job, PendingResize, ResizeRow
from service.validation import invalid
from service.views import job_view

MAX_PENDING = 100


def ask(database: Database, job_id: str, request: ResizeRequest) -> ResizeAnswer:
    """Ask for another number of workers, now or later, or take that back. To take back nothing is no error.

    Raises NotFound, Conflict, InvalidRequest, ScalingError.
    """
    now, cluster = database.now(), surroundings.cluster(database)
    with database.writing() as session:
        job = locked(session, job_id)
        spec = _check(job, request)
        warnings = _foreseen(job, spec, request, _slots(cluster, spec))
        if request.workers is not None:
            _wish(job, request.workers, request.at_samples, now)
        elif job.target_workers is not None or job.pending_resizes:
            job.target_workers, job.target_requested_at, job.pending_resizes = None, now, []
        else:
            return ResizeAnswer(**dict(job_view(job)), warnings=warnings)
        events.resize_requested(session, job, request.workers, request.at_samples, now)
        return ResizeAnswer(**dict(changed(session, job)), warnings=warnings)


def preview(database: Database, job_id: str, request: ResizeRequest) -> ResizePreview:
    """What `ask` would change. Raises as it does."""
    with database.reading() as session:
        job = found(session.get(Job, job_id), job_id)
    spec = _check(job, request)
    slots = _slots(surroundings.cluster(database), spec)
    return resize_preview(job, spec, request.workers, request.at_samples, slots)


def page(database: Database, job_id: str, after: int, limit: int) -> Page[Resize]:
    """A page of resizes, oldest first. Raises NotFound."""
    rows = select(ResizeRow).where(ResizeRow.job_id == job_id, col(ResizeRow.id) > literal(after, BigInteger))
    with database.reading() as session:
        found(session.exec(select(Job.id).where(Job.id == job_id)).first(), job_id)
        resizes = session.exec(rows.order_by(col(ResizeRow.id)).limit(limit + 1)).all()
    items = [Resize.model_validate(row.payload) for row in resizes[:limit]]
    return Page(items=items, next=str(items[-1].id) if len(resizes) > limit else None)


def _check(job: Job, request: ResizeRequest) -> JobSpec:
    """The spec of a job that may be resized so. Raises where it may not."""
    if job.phase.is_terminal or job.phase is Phase.CANCELLING:
        raise impossible(job, "It cannot be resized any more")
    spec = JobSpec.model_validate(job.spec)
    low, high = spec.elasticity.workers
    if request.workers is not None and not low <= request.workers <= high:
        message = f"Must be from {low} to {high}, as the job's elasticity.workers says, which can be changed."
        raise invalid([FieldError(pointer="/workers", message=message)])
    if job.total_samples is not None and (request.at_samples or 0) >= job.total_samples:
        message = f"Must be below {job.total_samples}, where the job ends."
        raise invalid([FieldError(pointer="/at_samples", message=message)])
    return spec


def _slots(cluster: ClusterView, spec: JobSpec) -> int | None:
    """How many of the job's workers the cluster would hold if it were empty; None: it was not seen lately."""
    return slots(spec.resources.cpu, spec.resources.gpu, rooms(cluster.nodes)) if cluster.connected else None


def _foreseen(job: Job, spec: JobSpec, request: ResizeRequest, slots: int | None) -> list[str]:
    """What a dry run warns of. Raises ScalingError where no rule covers the size; to take one back needs none."""
    if request.workers is None:
        return list(about_room(spec, None, slots))
    return resize_preview(job, spec, request.workers, request.at_samples, slots).warnings


def _wish(job: Job, workers: int, at_samples: int | None, now: datetime) -> None:
    if at_samples is None or at_samples <= job.samples:
        job.target_workers, job.target_requested_at = workers, now
        return
    resize = PendingResize(workers=workers, at_samples=at_samples, requested_at=now)
    if len(job.pending_resizes) >= MAX_PENDING:
        raise Conflict(f"At most {MAX_PENDING} resizes may wait.")
    waiting = [*job.pending_resizes, resize.model_dump(mode="json")]
    job.pending_resizes = sorted(waiting, key=lambda each: int(each["at_samples"]))
