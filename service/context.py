"""What the handlers work with, made once by `create_app`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.admission import ReadRecipe
from service.db import Database
from service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Context:
    """The service's surroundings."""

    settings: Settings
    database: Database
    new_job_id: Callable[[], str]
    read_recipe: ReadRecipe | None


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def _database(request: Request) -> Database:
    return _context(request).database


ContextDep = Annotated[Context, Depends(_context)]
DatabaseDep = Annotated[Database, Depends(_database)]
