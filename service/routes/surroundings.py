"""What is around the jobs: scaling rules, recipes, the cluster, and whether the service is well."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import HTMLResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, ConfigDict, Field

from api_schemas.errors import Problem
from api_schemas.jobs import ModuleUrl, RecipeName, RecipeSpec
from api_schemas.previews import ScalingPreview, ScalingPreviewRequest
from api_schemas.views import ClusterView, Health, Page, RecipeInfo
from service import etags, picture, reference, surroundings
from service.context import ContextDep, DatabaseDep
from service.looks import EVERY
from service.openapi import sends, takes
from service.previews import scaling_preview
from service.routes.accept import EventStreamRoute
from service.routes.conditional import TEXT, UNCHANGED, AcceptEncoding, IfNoneMatch, unchanged, whole
from service.routes.parameters import NONE
from service.validation import body_of

LIVE_PICTURE = UNCHANGED | sends("ClusterChanges", "The first has the whole picture.")

router = APIRouter(responses={"default": {"model": Problem}})
streams = APIRouter(tags=["cluster"], route_class=EventStreamRoute, include_in_schema=False)


@router.post("/v1/scaling/preview", tags=["scaling"], openapi_extra=takes(ScalingPreviewRequest), dependencies=NONE)
def preview(
    request: Annotated[ScalingPreviewRequest, Depends(body_of(ScalingPreviewRequest))],
) -> ScalingPreview:
    """What the scaling rules make of base values, a row per kappa."""
    return scaling_preview(request)


@router.get("/v1/recipes", tags=["recipes"], dependencies=NONE)
def recipes(database: DatabaseDep) -> Page[RecipeInfo]:
    """The training tasks that the nodes know, with the schema of their config."""
    return surroundings.recipes(database)


RecipePath = Annotated[RecipeName, Path(description="Of the catalogue, or `package.module:Class`.")]


class Packages(BaseModel):
    """Where a user's own recipe comes from."""

    model_config = ConfigDict(extra="forbid")

    py_modules: list[ModuleUrl] = Field(
        [], max_length=20, description="URLs of its packages, as `recipe.py_modules` of a job."
    )


@router.get("/v1/recipes/{name}", tags=["recipes"])
def recipe(
    name: RecipePath,
    query: Annotated[Packages, Query()],
    context: ContextDep,
) -> RecipeInfo:
    """A recipe of the catalogue, or your own `package.module:Class`, which a process of the service then imports."""
    asked = RecipeSpec(name=name, py_modules=tuple(query.py_modules))
    return surroundings.recipe(context.database, asked, context.read_recipe)


@streams.get("/v1/cluster", response_class=EventSourceResponse)
async def stream(context: ContextDep) -> AsyncIterator[ServerSentEvent]:
    """The same, live."""
    look = partial(context.pictures.at, "", partial(surroundings.cluster, context.database))
    async for message in picture.stream(look, EVERY * context.settings.event_poll_s):
        yield message


@router.get("/v1/cluster", tags=["cluster"], responses=LIVE_PICTURE, response_model=ClusterView, dependencies=NONE)
def cluster(database: DatabaseDep, if_none_match: IfNoneMatch = None, accept_encoding: AcceptEncoding = "") -> Response:
    """Nodes and queue, as the reconciler last saw them. When that was does not count as a change.

    With `Accept: text/event-stream` the same, and then what changes in it.
    """
    view = surroundings.cluster(database)
    tag = etags.of_text(view.model_dump_json(exclude={"seen_at"}), ClusterView)
    return unchanged(tag, if_none_match) or whole(view.model_dump_json().encode(), tag, accept_encoding)


@router.head("/docs", response_class=HTMLResponse, include_in_schema=False)
@router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
def docs(request: Request, response: Response) -> str:
    """The API to read."""
    response.headers["Content-Security-Policy"] = reference.POLICY
    return reference.page(request.app.openapi())


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", tags=["health"])
async def healthz() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", tags=["health"])
def readyz(database: DatabaseDep) -> Health:
    """Whether all that it needs is there: without the cluster `degraded`, without the database 503."""
    return surroundings.readiness(database)


@router.head("/metrics", include_in_schema=False)
@router.get(
    "/metrics",
    tags=["health"],
    response_class=Response,
    responses=TEXT,
)
def metrics(context: ContextDep) -> Response:
    """Jobs, slots, resizes with their pauses, samples, and how fast the API answers, for Prometheus."""
    return Response(context.meters.text(), media_type=CONTENT_TYPE_PLAIN_0_0_4)
