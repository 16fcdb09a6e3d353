"""The jobs that want workers, as the database has them: what the reconciler reads and writes.

Every write is guarded: it locks the job and does nothing where the job is not any more what the
decision was about. Methods block; each is a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlmodel import Session, col, delete, select

from api_schemas.dynamics import most_workers
from api_schemas.exchange import Launch, Predecessor, Report
from api_schemas.jobs import JobSpec
from api_schemas.views import ClusterView, Phase, RecipeInfo
from service import blocks, events
from service.db import Database, lock, upsert
from service.decisions import Standing
from service.lifecycle import ACTIVE, Happening
from service.tables import ClusterRow, Job, PendingResize, RecipeRow

WAITING = "waiting_for_slots"
LIVE = (Phase.QUEUED, *ACTIVE, Phase.PAUSING, Phase.CANCELLING)


class Roster:
    """The database, as the reconciler uses it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._grown: set[str] = set()  # jobs with curves that no blocks were made of yet

    def now(self) -> datetime:
        """The time that goes into what is written."""
        return self._database.now()

    def live(self) -> list[Job]:
        """Jobs that have not ended, and are not paused, detached."""
        with self._database.reading() as session:
            return list(session.exec(select(Job).where(col(Job.phase).in_(LIVE))))

    def at_rest(self, job_id: str) -> Job | None:
        """The job if it has ended or is paused; None: it lives, or there is no such job."""
        with self._database.reading() as session:
            job = session.get(Job, job_id)
        return job if job and job.phase not in LIVE else None

    def take(self, report: Report) -> events.Taken:
        """Commit a report; what its controller may forget. Raises events.Stale."""
        with self._database.writing() as session:
            job = lock(session, Job, report.job)
            if job is None:
                raise events.Stale(f"job {report.job} was deleted")
            events.take_in(session, job, report, self.now())
            _promote(job)
        self._grown.add(report.job)
        return events.Taken(job.acked, job.samples)

    def condense(self) -> None:
        """Make blocks of what curves have grown by."""
        while self._grown:
            blocks.extend(self._database, self._grown.pop())

    def launch(self, seen: Job) -> Launch | None:
        """Begin a new incarnation; None: the job has moved on meanwhile."""
        with self._database.writing() as session:
            job = _same(session, seen)
            if job is None or job.cancel_requested:
                return None
            before = _predecessor(job)
            incarnation = events.launch(session, job, self.now())
            spec = JobSpec.model_validate(job.spec)
            return Launch(job=job.id, incarnation=incarnation, spec=spec, storage=job.storage, before=before)

    def move(self, seen: Job, happening: Happening, code: str, message: str, traceback: str | None = None) -> bool:
        """Move the job, if it is still where it was seen; whether it moved."""
        with self._database.writing() as session:
            job = _same(session, seen)
            if job is None or not events.move(session, job, happening, code, message, self.now()):
                return False
            if job.phase not in LIVE:
                job.workers, job.traceback = 0, traceback
            return True

    def explain(self, seen: Job, code: str, message: str) -> None:
        """Say why the job is where it is; nothing is written where it says so already."""
        if (seen.code, seen.message) == (code, message):
            return
        with self._database.writing() as session:
            job = _same(session, seen)
            if job is not None and _told(job) == _told(seen):
                job.code, job.message = code, message

    def promote(self, seen: Job) -> None:
        """Make a resize whose sample has come the size that is asked for."""
        with self._database.writing() as session:
            job = _same(session, seen)
            if job is not None:
                _promote(job)

    def write_cluster(self, view: ClusterView) -> None:
        """What GET /cluster shows."""
        row = {"id": 1, "picture": view.model_dump(mode="json"), "seen_at": view.seen_at or self.now()}
        with self._database.writing() as session:
            upsert(session, ClusterRow, [row], update=["picture", "seen_at"])

    def write_recipes(self, recipes: Iterable[RecipeInfo]) -> None:
        """Replace the catalogue."""
        rows = [recipe.model_dump() for recipe in recipes]
        with self._database.writing() as session:
            session.exec(delete(RecipeRow).where(col(RecipeRow.name).not_in([row["name"] for row in rows])))
            upsert(session, RecipeRow, rows, update=["summary", "config_schema", "needs_ema"])


def standing(job: Job) -> Standing:
    """The job as a decision sees it."""
    spec = JobSpec.model_validate(job.spec)
    return Standing(
        id=job.id,
        name=job.name,
        priority=job.priority,
        arrived=job.created_at,
        since=job.since,
        changed=job.updated_at,
        started=job.phase in ACTIVE,
        minimum=spec.elasticity.workers[0],
        maximum=most_workers(spec),
        kappa=spec.elasticity.kappa,
        cpu=spec.resources.cpu,
        gpu=spec.resources.gpu,
        target=job.target_workers,
        target_at=job.target_requested_at,
        pending=PendingResize.model_validate(job.pending_resizes[0]) if job.pending_resizes else None,
        workers=job.workers,
    )


def is_due(job: Job) -> bool:
    """Whether the sample has come that the next pending resize waits for."""
    return bool(job.pending_resizes) and job.samples >= job.pending_resizes[0]["at_samples"]


def _predecessor(job: Job) -> Predecessor | None:
    if not job.incarnation:
        return None
    return Predecessor(incarnation=job.incarnation, acked=job.acked, samples=job.samples)


def _promote(job: Job) -> None:
    while is_due(job):
        resize = PendingResize.model_validate(job.pending_resizes[0])
        job.target_workers, job.target_requested_at = resize.workers, resize.requested_at
        job.pending_resizes = job.pending_resizes[1:]


def _told(job: Job) -> tuple[object, ...]:
    """What is said of the job, and the sizes that it may be said of."""
    return job.code, job.message, job.workers, job.target_workers


def _same(session: Session, seen: Job) -> Job | None:
    """The job, locked, if it is in the phase and the incarnation in which it was seen."""
    job = lock(session, Job, seen.id)
    unchanged = job is not None and (job.phase, job.incarnation) == (seen.phase, seen.incarnation)
    return job if unchanged else None
