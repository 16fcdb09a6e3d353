"""Jobs: hand in, look at, change, stop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field

from api_schemas.errors import FieldError, Problem
from api_schemas.jobs import JobPatch, JobSpec, ResizeRequest
from api_schemas.previews import JobPreview
from api_schemas.views import JobRow, JobView, Page, ResizeAnswer, ResizePreview
from service import changes, etags, jobs, resizes
from service.admission import recipe_errors
from service.context import Context, ContextDep, DatabaseDep
from service.jobs import JobQuery
from service.looks import EVERY
from service.openapi import sends, takes
from service.routes import polls
from service.routes.accept import EventStreamRoute
from service.routes.conditional import UNCHANGED, AcceptEncoding, IfMatch, IfNoneMatch, unchanged, whole
from service.routes.parameters import NONE, RESUMES
from service.storage import Folder
from service.validation import body_of

LIVE = (
    "This cannot change once a job is submitted; what can: elasticity.workers, elasticity.kappa, priority and labels."
)

NOT_NEW: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView | JobPreview, "description": "The job that has this Idempotency-Key; or a dry run."}
}

LIVE_PAGE = UNCHANGED | sends("JobChanges", "The first has the whole page, or what is new since `Last-Event-ID`.")

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], responses={"default": {"model": Problem}})
streams = APIRouter(prefix=router.prefix, tags=["jobs"], route_class=EventStreamRoute, include_in_schema=False)


class DryRun(BaseModel):
    """Whether to look only."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(False, description="Only say what would come of it: nothing happens.")


DryRunQuery = Annotated[DryRun, Query()]
JobId = Annotated[str, Path(max_length=polls.LONGEST_ID, description="The job's id.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Your own name of this request: sent again with the same body it is answered with the same job.",
    ),
]


def _of_recipe(request: Request, data: Any) -> list[FieldError]:
    """What is wrong with the recipe of a body that is no spec either."""
    context: Context = request.app.state.context
    return recipe_errors(context.database, context.read_recipe, data)


@router.post("", status_code=201, responses=NOT_NEW, openapi_extra=takes(JobSpec))
def submit(
    spec: Annotated[JobSpec, Depends(body_of(JobSpec, further=_of_recipe))],
    query: DryRunQuery,
    context: ContextDep,
    request: Request,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobView | JobPreview:
    """Hand in a job (JSON or YAML). With `dry_run` nothing is stored: the answer is the spec and its sizes."""
    if query.dry_run:
        response.status_code = 200
        return jobs.preview(context.database, spec, context.read_recipe)
    job_id = context.new_job_id()
    storage = f"{context.settings.storage_url.rstrip('/')}/{job_id}"
    job, new = jobs.submit(
        context.database, spec, context.read_recipe, job_id=job_id, storage=storage, key=idempotency_key
    )
    request.state.job = job.id
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    response.headers["ETag"] = etags.of_job(job.revision)
    return job


def _cursor(
    query: Annotated[JobQuery, Query()], context: ContextDep, last_event_id: Annotated[str | None, Header()] = None
) -> changes.Cursor | None:
    """Where the stream goes on; a filter that cannot be is found out before it has begun."""
    jobs.listing(context.database, query, context.rows)
    return None if last_event_id is None else changes.cursor(last_event_id, "Last-Event-ID")


@streams.get("", response_class=EventSourceResponse)
async def stream(
    query: Annotated[JobQuery, Query()], context: ContextDep, after: Annotated[changes.Cursor | None, Depends(_cursor)]
) -> AsyncIterator[ServerSentEvent]:
    """The same page, live."""
    look = partial(
        context.listings.at, query.model_dump_json(), partial(jobs.listing, context.database, query, context.rows)
    )
    async for message in changes.stream(context.database, look, after, EVERY * context.settings.event_poll_s):
        yield message


@router.get("", responses=LIVE_PAGE, openapi_extra=RESUMES, response_model=Page[JobRow])
def listing(
    query: Annotated[JobQuery, Query()],
    context: ContextDep,
    if_none_match: IfNoneMatch = None,
    accept_encoding: AcceptEncoding = "",
) -> Response:
    """Jobs, newest first. With `Accept: text/event-stream` the page, and then what changes in it."""
    page = jobs.listing(context.database, query, context.rows)
    tag = page.tag
    return unchanged(tag, if_none_match) or whole(page.text, tag, accept_encoding)


@router.get("/{job_id}", responses=UNCHANGED, response_model=JobView, dependencies=NONE)
async def get(
    job_id: JobId, context: ContextDep, if_none_match: IfNoneMatch = None, accept_encoding: AcceptEncoding = ""
) -> Response:
    """A job, whole. Asking with the ETag of the last answer costs next to nothing while nothing has changed."""
    return await polls.answer(context, job_id, if_none_match, accept_encoding)


@router.patch("/{job_id}", openapi_extra=takes(JobPatch), dependencies=NONE)
def patch(
    job_id: JobId,
    change: Annotated[JobPatch, Depends(body_of(JobPatch, unknown=LIVE))],
    database: DatabaseDep,
    response: Response,
    if_match: IfMatch = None,
) -> JobView:
    """Change what may change while the job lives; with `If-Match` only if nothing has since, of its progress too."""
    job = jobs.patch(database, job_id, change, if_match)
    response.headers["ETag"] = etags.of_job(job.revision)
    return job


@router.post("/{job_id}/resize", openapi_extra=takes(ResizeRequest))
def resize(
    job_id: JobId,
    request: Annotated[ResizeRequest, Depends(body_of(ResizeRequest))],
    query: DryRunQuery,
    database: DatabaseDep,
) -> ResizeAnswer | ResizePreview:
    """Ask for another number of workers. With `dry_run` the answer is every value before and after."""
    if query.dry_run:
        return resizes.preview(database, job_id, request)
    return resizes.ask(database, job_id, request)


@router.post("/{job_id}/pause", dependencies=NONE)
def pause(job_id: JobId, database: DatabaseDep) -> JobView:
    """Stop the job at a step's end, with a checkpoint of it, and free its slots."""
    return jobs.pause(database, job_id)


@router.post("/{job_id}/resume", dependencies=NONE)
def resume(job_id: JobId, database: DatabaseDep) -> JobView:
    """Let a paused job go on from that checkpoint, on as many workers as there are."""
    return jobs.resume(database, job_id)


@router.post("/{job_id}/cancel", dependencies=NONE)
def cancel(job_id: JobId, database: DatabaseDep) -> JobView:
    """Stop the job."""
    return jobs.cancel(database, job_id)


@router.delete("/{job_id}", status_code=204, dependencies=NONE)
def delete(job_id: JobId, database: DatabaseDep) -> None:
    """Remove a job that has ended, with its checkpoints, artifacts and logs."""
    jobs.delete(database, job_id, Folder)
