"""What the handlers work with, made once by `create_app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api_schemas.views import ClusterView
from service.admission import ReadRecipe
from service.channels import Channels
from service.db import Database
from service.jobs import Listing
from service.looks import Looks
from service.meters import Meters
from service.reads import Reads
from service.settings import Settings
from service.snapshots import Snapshots


@dataclass(frozen=True, kw_only=True)
class Context:
    """The service's surroundings."""

    settings: Settings
    database: Database
    new_job_id: Callable[[], str]
    read_recipe: ReadRecipe | None
    meters: Meters
    revisions: Reads[int]
    texts: Reads[tuple[int, bytes]]
    """Of `JobView`, with its revision."""
    channels: Channels
    listings: Looks[Listing]
    pictures: Looks[ClusterView]
    views: Snapshots
    """Of `JobView`."""
    rows: Snapshots
    """Of `JobRow`."""


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _database(request: Request) -> Database:
    return (await _context(request)).database


ContextDep = Annotated[Context, Depends(_context)]
DatabaseDep = Annotated[Database, Depends(_database)]
