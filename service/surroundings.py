"""Recipes and cluster as the reconciler wrote them down, and whether the service has what it needs."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select

from api_schemas.errors import NotFound, Unavailable
from api_schemas.jobs import RecipeSpec
from api_schemas.views import ClusterView, Health, Page, RecipeInfo
from service.admission import ReadRecipe
from service.db import Database
from service.own_recipes import Unreadable
from service.tables import ClusterRow, RecipeRow

FRESH = timedelta(seconds=30)
"""How old the cluster's picture may be."""


def recipes(database: Database) -> Page[RecipeInfo]:
    """The whole catalogue, by name; empty until the cluster answered once."""
    with database.reading() as session:
        rows = session.exec(select(RecipeRow).order_by(col(RecipeRow.name))).all()
    return Page(items=[RecipeInfo.model_validate(row.model_dump()) for row in rows])


def recipe(database: Database, recipe: RecipeSpec, read: ReadRecipe | None) -> RecipeInfo:
    """One of the catalogue, or a user's own. Raises NotFound."""
    with database.reading() as session:
        row = session.get(RecipeRow, recipe.name)
    if row is not None:
        return RecipeInfo.model_validate(row.model_dump())
    if read is None or ":" not in recipe.name:
        raise NotFound(f"There is no recipe {recipe.name!r} in the catalogue.")
    try:
        return read(recipe)
    except Unreadable as error:
        raise NotFound(str(error)) from error


def cluster(database: Database) -> ClusterView:
    """The last picture; one that is too old counts as not connected."""
    with database.reading() as session:
        row = session.get(ClusterRow, 1)
    if row is None:
        return ClusterView(connected=False, seen_at=None, nodes=[], queue=[])
    view = ClusterView.model_validate(row.picture | {"seen_at": row.seen_at})
    fresh = database.now() - row.seen_at <= FRESH
    return view.model_copy(update={"connected": view.connected and fresh})


def readiness(database: Database) -> Health:
    """Without the cluster jobs can still be submitted and looked at. Raises Unavailable without the database."""
    try:
        view = cluster(database)
    except SQLAlchemyError as error:
        raise Unavailable("The database does not answer.") from error
    seen = f"last seen at {view.seen_at.isoformat(timespec='seconds')}" if view.seen_at else "never seen"
    checks = {"database": "ok", "cluster": "ok" if view.connected else f"not connected, {seen}"}
    return Health(status="ok" if view.connected else "degraded", checks=checks)
