"""What can be done with jobs, their sizes apart (`resizes`). Each function is one transaction.

The reconciler acts on what it left behind.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from sqlalchemy import ColumnElement, bindparam, inspect
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from api_schemas.complaints import phrase
from api_schemas.errors import Conflict, EmascaleError, FieldError, NotFound, PreconditionFailed
from api_schemas.jobs import JobPatch, JobSpec, Label
from api_schemas.previews import JobPreview
from api_schemas.views import JobRow, JobView, Phase
from service import etags, events
from service.admission import ReadRecipe, check_recipe, own_recipe
from service.db import Database, lock
from service.ids import AFTER, PageCursor
from service.lifecycle import ACTIVE, Happening
from service.previews import job_preview, possible_sizes
from service.snapshots import Snapshots
from service.storage import Folder
from service.tables import Job
from service.validation import check, invalid
from service.views import job_row, job_view

CANCELLED_AT_ONCE = {
    Phase.QUEUED: "Cancelled on request, before it had workers.",
    Phase.PAUSED: "Cancelled on request, while it was paused.",
}
Value = TypeVar("Value")
_REVISIONS = select(Job.id, Job.revision).where(col(Job.id).in_(bindparam("job_ids", expanding=True)))
_WHOLE = inspect(Job).local_table.select().where(col(Job.id).in_(bindparam("job_ids", expanding=True)))
_LABEL: TypeAdapter[str] = TypeAdapter(Label)
LIGHT = [
    defer(col(column), raiseload=True)  # type: ignore[arg-type]  # SQLAlchemy's own attributes, at class level
    for column in (
        Job.spec,
        Job.values,
        Job.traceback,
        Job.log_tail,
        Job.pending_resizes,
        Job.evaluation,
        Job.artifacts,
    )
]
"""Columns that a list leaves where they are."""


class Listed(NamedTuple):
    """A job's place in a list."""

    id: str
    revision: int
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A page of jobs: the rows as JSON of `JobRow`."""

    listed: list[Listed]
    rows: list[bytes]
    next: str | None

    @property
    def tag(self) -> str:
        """The ETag of the page."""
        return etags.of_text(repr((self.listed, self.next)), JobRow)

    @property
    def text(self) -> bytes:
        """The page as JSON."""
        return b'{"items":[%b],"next":%b}' % (b",".join(self.rows), json.dumps(self.next).encode())


class JobQuery(BaseModel):
    """Which jobs to list, and how many."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=200, description="Most jobs of the page.")
    after: PageCursor | None = Field(None, description=AFTER)
    status: list[Phase] = Field([], max_length=20, description="Phases, as often as needed; none: all of them.")
    recipe: str | None = Field(None, description="The recipe's name, whole.")
    name: str | None = Field(None, description="Whole, or its beginning and a `*`: `digits*`.")
    label: list[str] = Field([], max_length=64, description="`key=value`, as often as needed.")


def submit(
    database: Database, spec: JobSpec, read: ReadRecipe | None, *, job_id: str, storage: str, key: str | None
) -> tuple[JobView, bool]:
    """Take a job, and whether it is new: the same key and spec again are the job of the first time.

    Raises UnknownRecipe, InvalidRequest, ScalingError; Conflict for a key that was used for another spec.
    """
    possible_sizes(spec)
    body = _as_stored(spec)
    job = _new_job(spec, body, job_id, storage, database.now())
    job.idempotency_key = key
    job.body_digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    if known := _known(database, job):
        return known, False
    own = own_recipe(read, spec.recipe)
    try:
        with database.writing() as session:
            check_recipe(session, spec, own)
            session.add(job)
            events.submitted(session, job, job.created_at)
            return job_view(job), True
    except IntegrityError:
        if known := _known(database, job):  # it came twice at once, and the other was faster
            return known, False
        raise


def preview(database: Database, spec: JobSpec, read: ReadRecipe | None) -> JobPreview:
    """What `submit` would take. Raises as it does."""
    _as_stored(spec)
    own = own_recipe(read, spec.recipe)
    with database.reading() as session:
        check_recipe(session, spec, own)
    return job_preview(spec)


def listing(database: Database, query: JobQuery, kept: Snapshots) -> Listing:
    """A page of jobs, newest first; rows are read and encoded where they are not kept already."""
    chosen = select(Job.id, Job.revision, Job.updated_at).order_by(col(Job.id).desc()).limit(query.limit + 1)
    if query.after is not None:
        chosen = chosen.where(col(Job.id) < query.after)
    if query.status:
        chosen = chosen.where(col(Job.phase).in_(query.status))
    if query.recipe is not None:
        chosen = chosen.where(Job.recipe == query.recipe)
    if query.name is not None:
        chosen = chosen.where(_named(query.name))
    for name, value in map(_label, query.label):
        chosen = chosen.where(col(Job.labels)[name].as_string() == value)
    with database.reading() as session:
        seen = session.exec(chosen).all()
        listed = [Listed(*each) for each in seen[: query.limit]]
        rows = _rows(session, listed, kept)
    return Listing(listed=listed, rows=rows, next=listed[-1].id if len(seen) > query.limit else None)


def _rows(session: Session, listed: Iterable[Listed], kept: Snapshots) -> list[bytes]:
    rows = {each.id: kept.get(each.id, each.revision) for each in listed}
    if missing := [job_id for job_id, row in rows.items() if row is None]:
        for job in session.exec(select(Job).options(*LIGHT).where(col(Job.id).in_(missing))):
            rows[job.id] = row = job_row(job).model_dump_json().encode()
            kept.put(job.id, job.revision, row)
    return [row for row in rows.values() if row is not None]


def revisions(database: Database, job_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of their present states, read without the rest; of the jobs that there are."""
    return dict(database.rows(_REVISIONS, {"job_ids": job_ids}))


def texts(database: Database, job_ids: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    """Revision and JSON of `JobView`, of the jobs that there are."""
    rows = database.rows(_WHOLE, {"job_ids": job_ids})
    return {row.id: (row.revision, job_view(cast(Job, row)).model_dump_json().encode()) for row in rows}


def storage(database: Database, job_id: str) -> str:
    """The URL of the job's own folder. Raises NotFound."""
    with database.reading() as session:
        return found(session.exec(select(Job.storage).where(Job.id == job_id)).first(), job_id)


def has_ended(database: Database, job_id: str) -> bool:
    """Whether nothing more comes of the job: it has ended, or is deleted."""
    with database.reading() as session:
        phase = session.exec(select(col(Job.phase)).where(Job.id == job_id)).first()
    return phase is None or phase.is_terminal


def patch(database: Database, job_id: str, change: JobPatch, if_match: str | None = None) -> JobView:
    """Change what may change while a job lives; with `if_match`, ETags, only a job that still has one of them.

    Raises NotFound, PreconditionFailed, Conflict, InvalidRequest, ScalingError.
    """
    now = database.now()
    with database.writing() as session:
        job = locked(session, job_id)
        if if_match is not None and not etags.matches(if_match, etags.of_job(job.revision)):
            raise PreconditionFailed("The job has changed since it was as `If-Match` says: look at it again.")
        asked = change.model_dump(mode="json", exclude_none=True)
        if job.phase.is_terminal and asked.keys() - {"labels"}:
            raise impossible(job, "Only its labels may change")
        elasticity = job.spec["elasticity"] | asked.get("elasticity", {})
        spec = check(JobSpec, job.spec | asked | {"elasticity": elasticity})
        possible_sizes(spec)
        if changes := _changes(JobSpec.model_validate(job.spec), spec):
            _respecify(job, spec)
            events.updated(session, job, changes, now)
        return changed(session, job)


def pause(database: Database, job_id: str) -> JobView:
    """Stop a job so that it can go on later, at once where it has no workers. Again is no error.

    Raises NotFound, Conflict.
    """
    now = database.now()
    with database.writing() as session:
        job = locked(session, job_id)
        if job.phase in (Phase.PAUSING, Phase.PAUSED):
            return job_view(job)
        if job.phase.is_terminal or job.phase is Phase.CANCELLING:
            raise impossible(job, "It cannot be paused any more")
        message = "Its workers leave a checkpoint, and stop."
        if job.phase is Phase.QUEUED:
            message = "Paused on request, while it had no workers."
        events.move(session, job, Happening.PAUSE_REQUESTED, "pause_requested", message, now)
        return changed(session, job)


def resume(database: Database, job_id: str) -> JobView:
    """Let a paused job go on, once there are workers for it. Again is no error. Raises NotFound, Conflict."""
    now = database.now()
    with database.writing() as session:
        job = locked(session, job_id)
        if job.phase is Phase.QUEUED or job.phase in ACTIVE:
            return job_view(job)
        if job.phase is not Phase.PAUSED:
            sentence = "It can be resumed once it is paused"
            raise impossible(job, sentence if job.phase is Phase.PAUSING else "It cannot be resumed any more")
        events.move(session, job, Happening.RESUME_REQUESTED, "resumed", "Waiting for workers.", now)
        return changed(session, job)


def cancel(database: Database, job_id: str) -> JobView:
    """Stop a job, at once where no worker has started. Again is no error. Raises NotFound, Conflict."""
    now = database.now()
    with database.writing() as session:
        job = locked(session, job_id)
        if job.phase in (Phase.CANCELLING, Phase.CANCELLED):
            return job_view(job)
        if job.phase.is_terminal:
            raise impossible(job, "It cannot be cancelled any more")
        job.cancel_requested = True
        message = CANCELLED_AT_ONCE.get(job.phase, "Its workers stop.")
        events.move(session, job, Happening.CANCEL_REQUESTED, "cancel_requested", message, now)
        return changed(session, job)


def delete(database: Database, job_id: str, folder: Callable[[str], Folder]) -> None:
    """Remove a job that has ended, with all that it stored. Raises NotFound, Conflict, Unavailable.

    Storage goes first: where that fails the job is still there, and the request can be repeated.
    """
    with database.reading() as session:
        job = found(session.get(Job, job_id), job_id)
    if not job.phase.is_terminal:
        raise impossible(job, "Cancel it before you delete it")
    folder(job.storage).delete()
    with database.writing() as session:
        session.delete(locked(session, job_id))


def found(value: Value | None, job_id: str) -> Value:
    """The value. Raises NotFound where it is None."""
    if value is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return value


def locked(session: Session, job_id: str) -> Job:
    """The job, locked until the end of the transaction. Raises NotFound."""
    return found(lock(session, Job, job_id), job_id)


def changed(session: Session, job: Job) -> JobView:
    """The view after the change: the flush makes the new revision."""
    session.flush()
    return job_view(job)


def impossible(job: Job, sentence: str) -> EmascaleError:
    """What to raise where the job's phase does not allow what was asked."""
    return Conflict(f"{sentence}: the job is {job.phase}.")


def _as_stored(spec: JobSpec) -> dict[str, Any]:
    """The spec's JSON. Raises InvalidRequest where it could not be read back: a length of 1e400 epochs."""
    body = spec.model_dump(mode="json")
    check(JobSpec, body)
    return body


def _new_job(spec: JobSpec, body: dict[str, Any], job_id: str, storage: str, now: datetime) -> Job:
    return Job(
        id=job_id,
        name=spec.name,
        recipe=spec.recipe.name,
        spec=body,
        labels=spec.labels,
        priority=spec.priority,
        storage=storage,
        since=now,
        code="submitted",
        message="Waiting for workers.",
        created_at=now,
        updated_at=now,
    )


def _known(database: Database, job: Job) -> JobView | None:
    """The job that has this one's key already. Raises Conflict where it is another."""
    if job.idempotency_key is None:
        return None
    with database.reading() as session:
        known = session.exec(select(Job).where(Job.idempotency_key == job.idempotency_key)).first()
    if known is not None and known.body_digest != job.body_digest:
        raise Conflict(f"This Idempotency-Key was used for another spec: that of job {known.id}.")
    return None if known is None else job_view(known)


def _named(name: str) -> ColumnElement[bool]:
    """No name holds a `*`."""
    if name.endswith("*"):
        return col(Job.name).startswith(name[:-1], autoescape=True)
    return col(Job.name) == name


def _label(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=") if "=" in text else text.partition(":")
    if not separator:
        raise invalid([FieldError(pointer="?label", message="Must read key=value.")])
    try:
        return _LABEL.validate_python(name), value
    except ValidationError as error:
        message = f"{name!r} cannot be the key of a label: {phrase(error.errors()[0])}."
        raise invalid([FieldError(pointer="?label", message=message)]) from error


def _changes(before: JobSpec, after: JobSpec) -> dict[str, tuple[Any, Any]]:
    """What a PATCH changed, before and after, by its place in the spec."""
    pairs = {
        "elasticity.workers": (before.elasticity.workers, after.elasticity.workers),
        "elasticity.kappa": (before.elasticity.kappa, after.elasticity.kappa),
        "priority": (before.priority, after.priority),
        "labels": (before.labels, after.labels),
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _respecify(job: Job, spec: JobSpec) -> None:
    """The job with another spec; sizes that were asked for stay within it."""
    job.spec = spec.model_dump(mode="json")
    job.labels, job.priority = spec.labels, spec.priority
    low, high = spec.elasticity.workers
    if job.target_workers is not None:
        job.target_workers = min(max(job.target_workers, low), high)
    job.pending_resizes = [p | {"workers": min(max(p["workers"], low), high)} for p in job.pending_resizes]
