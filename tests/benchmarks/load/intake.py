"""Reports of many controllers, committed as the reconciler does: `-m tests.benchmarks.load.intake`, a process apart.

Prints one line of JSON: events taken, seconds, quantiles of the time that one report took, errors.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Annotated

import typer
from sqlmodel import col, select

from api_schemas.errors import Unavailable
from api_schemas.exchange import Report
from service.db import Database, connect
from service.roster import Roster
from service.tables import Job
from tests.benchmarks.load.callers import Tally
from tests.benchmarks.load.reports import Reporter

TALKS = 8
"""Reports under way at once."""


def main(
    url: str,
    jobs: Annotated[int, typer.Option(help="How many jobs report: the newest.")] = 100,
    events: Annotated[int, typer.Option(help="In one report.")] = 200,
    per_s: Annotated[float, typer.Option(help="Events a second in all; 0: as many as go.")] = 0,
    seconds: Annotated[float, typer.Option(help="How long it is paced.")] = 5,
    total: Annotated[int, typer.Option(help="Events in all where it is not paced.")] = 100_000,
) -> None:
    """Report and measure."""
    database = Database(connect(url), lambda: datetime.now(UTC))
    with database.reading() as session:
        known = session.exec(select(Job.id, Job.acked).order_by(col(Job.id).desc()).limit(jobs)).all()
    intake = Intake(Roster(database), [Reporter(job, acked) for job, acked in known], events)
    if per_s:
        intake.pace(per_s, seconds)
    else:
        intake.hurry(total)
    print(json.dumps(intake.result()))


class Intake:
    """Controllers that report, and what it took."""

    def __init__(self, roster: Roster, reporters: list[Reporter], events: int) -> None:
        self._roster = roster
        self._reporters = reporters
        self._events = events
        self._tally = Tally()  # of reports
        self._errors = 0
        self._wall = 0.0

    def hurry(self, total: int) -> None:
        """Take so many events, a job's reports in their order, several jobs at once."""
        rounds = range(total // self._events // len(self._reporters))
        waiting = [[each.more(self._events).model_dump_json() for _ in rounds] for each in self._reporters]
        began = time.perf_counter()
        with ThreadPoolExecutor(TALKS) as talks:
            list(talks.map(lambda texts: [self._take(text) for text in texts], waiting))
        self._wall = time.perf_counter() - began

    def pace(self, per_s: float, seconds: float) -> None:
        """Each job reports once in so much time that all together say `per_s` events a second."""
        gap = self._events / per_s  # between two reports, of whichever jobs
        began = time.perf_counter()
        talks = [ThreadPoolExecutor(1) for _ in range(TALKS)]  # a job's reports come one after the other
        under_way = []
        for number in range(int(seconds / gap)):
            time.sleep(max(began + number * gap - time.perf_counter(), 0))
            job = number % len(self._reporters)
            text = self._reporters[job].more(self._events).model_dump_json()
            under_way.append(talks[job % TALKS].submit(self._take, text))
        for each in under_way:
            each.result()
        self._wall = time.perf_counter() - began

    def result(self) -> dict[str, float]:
        """Events and the time of all, quantiles of a report's, and reports that failed."""
        events = len(self._tally.seconds) * self._events
        return {
            "events": events,
            "events_per_s": round(events / self._wall),
            "p50_ms": self._tally.share(0.5),
            "p99_ms": self._tally.share(0.99),
            "errors": self._errors,
        }

    def _take(self, text: str) -> None:
        began = time.perf_counter()
        try:
            report = Report.model_validate_json(text)
            assert self._roster.take(report).acked == report.events[-1].sequence, "all of it is taken"
        except Unavailable:
            self._errors += 1
        self._tally.seconds.append(time.perf_counter() - began)


if __name__ == "__main__":
    typer.run(main)
