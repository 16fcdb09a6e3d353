"""Rows of the tables as what goes over the wire. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from api_schemas.jobs import JobSpec
from api_schemas.views import Evaluation, JobRow, JobStatus, JobView, Phase, PlannedResize, Progress
from service.tables import Job


def job_view(job: Job) -> JobView:
    """A job, whole."""
    return JobView(
        **_shared(job),
        spec=JobSpec.model_validate(job.spec),
        status=_status(job, traceback=job.traceback, log_tail=job.log_tail),
        target_workers=job.target_workers,
        pending_resizes=[PlannedResize.model_validate(planned) for planned in job.pending_resizes],
        batch=job.batch,
        generation=job.generation,
        values=job.values,
        evaluation=Evaluation.model_validate(job.evaluation) if job.evaluation else None,
        noise_scale=job.noise_scale,
        artifacts={name: artifact_address(job.id, name) for name in job.artifacts},
    )


def job_row(job: Job) -> JobRow:
    """A job in a list: nothing that `jobs.LIGHT` leaves out, so without traceback and log tail."""
    return JobRow(
        **_shared(job),
        recipe=job.recipe,
        status=_status(job),
        priority=job.priority,
        labels=job.labels,
    )


def artifact_address(job_id: str, name: str) -> str:
    """Where the API answers with the file."""
    return f"/v1/jobs/{job_id}/artifacts/{quote(name)}"


def _shared(job: Job) -> dict[str, Any]:
    names = ("id", "name", "workers", "kappa", "created_at", "updated_at", "revision")
    return {name: getattr(job, name) for name in names} | {"progress": _progress(job)}


def _status(job: Job, **failure: Any) -> JobStatus:
    return JobStatus(phase=job.phase, since=job.since, code=job.code, message=job.message, **failure)


def _progress(job: Job) -> Progress:
    epoch = job.samples / job.epoch_size if job.epoch_size else 0.0
    return Progress(samples=job.samples, total_samples=job.total_samples, epoch=epoch, eta_s=_eta_s(job))


def _eta_s(job: Job) -> float | None:
    """At the rate since the last change of size; unknown before the first commit after it."""
    if job.total_samples is None or job.leg_samples is None or job.leg_at is None or job.progressed_at is None:
        return None
    if job.phase is not Phase.RUNNING or job.samples <= job.leg_samples:
        return None
    seconds = (job.progressed_at - job.leg_at).total_seconds()
    left = max(0, job.total_samples - job.samples)
    return left * seconds / (job.samples - job.leg_samples)
