"""`create_app`: the HTTP API over a database that is migrated already. It never talks to Ray."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from functools import partial

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig

from api_schemas.events import Event
from api_schemas.jobs import JobPatch, JobSpec, ResizeRequest
from api_schemas.previews import ScalingPreviewRequest
from api_schemas.tokens import TokenRequest
from api_schemas.views import ClusterChanges, JobChanges, LogLines
from service import jobs as job_records
from service import openapi, problems
from service.access import Access
from service.admission import ReadRecipe
from service.channels import Channels
from service.context import Context
from service.db import Database
from service.guard import LOCAL_NAMES, Guard
from service.ids import time_ordered_id
from service.looks import Looks
from service.meters import Meters
from service.reads import Reads
from service.routes import dashboard, files, history, jobs, surroundings, tokens
from service.routes.polls import Polls
from service.settings import MIB, Settings, is_loopback
from service.snapshots import Snapshots

KEPT_BYTES = 4 * MIB
"""Of encoded jobs, whole and as rows each: thousands."""


def create_app(
    settings: Settings,
    database: Database,
    *,
    new_job_id: Callable[[], str] | None = None,
    read_recipe: ReadRecipe | None = None,
    new_request_id: Callable[[], str] = lambda: f"{random.getrandbits(64):016x}",
) -> FastAPI:
    """The application. Job ids are by default in the order of time, by the database's clock.

    Without `read_recipe` the users' own recipes are checked on the nodes alone.
    """
    # asked for at each request, and `Meters` count
    telemetry = TelemetryConfig(tracing=False, metrics=False, logs=False)
    app = FastAPI(title="emascale", version="1", docs_url=None, redoc_url=None, telemetry=telemetry)
    meters = Meters(database)
    app.state.context = Context(
        meters=meters,
        settings=settings,
        database=database,
        new_job_id=new_job_id or (lambda: time_ordered_id(database.now(), secrets.randbits(25))),
        read_recipe=read_recipe,
        revisions=Reads(partial(job_records.revisions, database)),
        texts=Reads(partial(job_records.texts, database)),
        channels=Channels(database, settings.event_poll_s),
        listings=Looks(),
        pictures=Looks(),
        views=Snapshots(KEPT_BYTES),
        rows=Snapshots(KEPT_BYTES),
    )
    for module in (jobs, history, surroundings):
        app.include_router(module.streams)
    for module in (jobs, history, files, surroundings, tokens, dashboard):
        app.include_router(module.router)
    problems.install(app)
    access = Access(database) if settings.auth == "token" else None
    bodies = (JobSpec, JobPatch, ResizeRequest, ScalingPreviewRequest, TokenRequest)
    messages = {"JobChanges": JobChanges, "ClusterChanges": ClusterChanges, "Event": Event, "LogLines": LogLines}
    openapi.describe(app, bodies=bodies, messages=messages, closed=access is not None)
    app.add_middleware(Polls, context=app.state.context)  # within the next one
    app.add_middleware(
        Guard, hosts=_hosts(settings), access=access, answered=meters.answered, new_request_id=new_request_id
    )
    return app


def _hosts(settings: Settings) -> frozenset[str] | None:
    """The names that the Host header may have; None: any.

    Beyond the loopback the service does not know what it is called, and need not: a page that leads a browser here by
    a name of its own has neither a token nor the cookie, which belongs to the name that was signed in at.
    """
    if not is_loopback(settings.host) and not settings.allowed_hosts:
        return None
    return frozenset({*LOCAL_NAMES, settings.host.lower(), *settings.allowed_hosts})
