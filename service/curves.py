"""The training curves of a job: read by name and range, thinned, as a model or as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import Session, select

from api_schemas.views import Curves
from service import blocks
from service.db import Database
from service.jobs import found
from service.tables import Job
from service.thinning import thin

MAX_NAMES = 100
DEFAULT_POINTS = 1000


class CurveQuery(BaseModel):
    """Which curves, over which samples, in how many points."""

    model_config = ConfigDict(extra="forbid")

    name: list[str] = Field([], max_length=MAX_NAMES, description="A curve, as often as needed; none: all.")
    start: int = Field(0, ge=0, lt=2**63, alias="from", description="First sample, from the start of the training.")
    stop: int | None = Field(None, ge=0, lt=2**63, alias="to", description="Last sample; none: to the end.")
    points: int | None = Field(
        None, ge=2, le=10_000, description=f"Most points of a curve; none: {DEFAULT_POINTS}, as CSV all."
    )


def read(database: Database, job_id: str, query: CurveQuery) -> Curves:
    """The curves, thinned; one that was asked for by name is there, empty where it has no points. Raises NotFound."""
    with database.reading() as session:
        names = _names(session, job_id, query)
        series = {name: _curve(session, job_id, name, query, query.points or DEFAULT_POINTS) for name in names}
    return Curves(series={name: values for name, values in series.items() if values or name in query.name})


def csv(database: Database, job_id: str, query: CurveQuery) -> Iterator[str]:
    """The curves as lines of `name,samples,value`; a value that is not finite is empty. Raises NotFound at once."""
    with database.reading() as session:
        names = _names(session, job_id, query)
    return _lines(database, job_id, query, names)


def _lines(database: Database, job_id: str, query: CurveQuery, names: Sequence[str]) -> Iterator[str]:
    yield "name,samples,value\r\n"
    for name in names:
        with database.reading() as session:
            values = _curve(session, job_id, name, query, query.points)
        quoted = name.replace('"', '""')
        yield "".join(f'"{quoted}",{samples},{"" if value is None else value}\r\n' for samples, value in values)


def _names(session: Session, job_id: str, query: CurveQuery) -> Sequence[str]:
    found(session.exec(select(Job.id).where(Job.id == job_id)).first(), job_id)
    if query.name:
        return list(dict.fromkeys(query.name))
    return blocks.names(session, job_id, MAX_NAMES)


def _curve(session: Session, job_id: str, name: str, query: CurveQuery, points: int | None) -> blocks.Points:
    """What is not finite has no place in the geometry: it is left out where a curve is thinned."""
    values = points and blocks.outline(session, job_id, name, query.start, query.stop, points)
    if not values:
        values = blocks.measured(session, job_id, name, query.start, query.stop)
    if points is None or len(values) <= points:
        return values
    return list(thin([(samples, value) for samples, value in values if value is not None], points))
