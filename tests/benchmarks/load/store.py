"""What the service holds while it is measured: many jobs of which some run, and their curves.

One job is brought about as every other is, by a submit and by reports; the rest are copies of it under other ids.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert

from api_schemas.jobs import JobSpec
from api_schemas.views import Phase
from service import jobs
from service.db import Database
from service.ids import time_ordered_id
from service.roster import Roster
from service.tables import EventRow, Job, MetricRow
from tests.benchmarks.load.reports import NAMES, Reporter

SPEC: dict[str, Any] = {
    "name": "digits-sgd",
    "recipe": {"name": "classify", "config": {"dataset": {"name": "digits"}}},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "schedule": {"budget": "1000000 epochs"},
    "ema": {"momentum": 0.99},
    "batch": {"base": 64, "per_worker": 64},
    "elasticity": {"workers": [1, 8]},
    "labels": {"team": "vision"},
}
AT_ONCE = 5000
"""Rows of one insert."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Ids of the jobs, the newest first."""

    running: list[str]
    ended: list[str]


def fill(database: Database, jobs_: int, running: int, points: int) -> Stored:
    """Store so many jobs, and points of curves in all, spread over those that run."""
    ids = [time_ordered_id(datetime.now(UTC), number) for number in range(jobs_)]
    model, *others = sorted(ids, reverse=True)
    jobs.submit(database, JobSpec.model_validate(SPEC), None, job_id=model, storage=f"/jobs/{model}", key=None)
    roster = Roster(database)
    with database.reading() as session:
        roster.launch(session.get_one(Job, model))
    reporter = Reporter(model)
    roster.take(reporter.beginning())
    with database.reading() as session:
        row = session.get_one(Job, model).model_dump()
        history = [each.model_dump(exclude={"id"}) for each in session.query(EventRow).all()]
    ended = row | {"phase": Phase.SUCCEEDED, "workers": 0, "code": "succeeded", "message": "Trained to the end."}
    stored = Stored(running=[model, *others[: running - 1]], ended=others[running - 1 :])
    copies = [_another(row, id_) for id_ in stored.running[1:]] + [_another(ended, id_) for id_ in stored.ended]
    _insert(database, Job, copies)
    _insert(database, EventRow, [each | {"job_id": copy["id"]} for copy in copies for each in history])
    _insert(database, MetricRow, list(_curves(stored.running, points // (running * len(NAMES)))))
    return stored


def _another(row: dict[str, Any], id_: str) -> dict[str, Any]:
    """A job of its own name, team, progress and times."""
    number = random.randrange(1_000_000)
    at = datetime.now(UTC) - timedelta(seconds=random.random() * 1e6)
    times = {name: at + timedelta(seconds=random.random() * 1e4) for name in ("since", "updated_at", "progressed_at")}
    own = {"id": id_, "storage": f"/jobs/{id_}", "name": f"digits-sgd-{number}", "created_at": at} | times
    return row | own | {"samples": number, "revision": number % 1000, "labels": {"team": f"team-{number % 17}"}}


def _curves(running: list[str], points: int) -> Iterator[dict[str, Any]]:
    """Below sample 0 of what reports add: the primary key is taken once."""
    for id_ in running:
        for name in NAMES:
            yield from (
                {"job_id": id_, "name": name, "samples": 64 * step, "value": 1.0 / (1 + step)} for step in range(points)
            )


def _insert(database: Database, table: type[Any], rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), AT_ONCE):
        with database.writing() as session:
            session.execute(insert(table), rows[start : start + AT_ONCE])
