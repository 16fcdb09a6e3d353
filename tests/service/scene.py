"""A reconciler on a real database and a cluster of words, and the words to write its tests in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from sqlmodel import select

from api_schemas.exchange import Allocation
from api_schemas.jobs import JobSpec
from api_schemas.views import ClusterView, Phase
from service import jobs
from service.conversation import Pace
from service.db import Database
from service.fake_cluster import FakeCluster, FakeController
from service.parking import Parking
from service.reconciler import Reconciler
from service.roster import Roster
from service.tables import ClusterRow, EventRow, Job
from tests.service.world import Clock, spec

PATIENCE_S = 10
NEVER = 3600
PACE = Pace(
    tick=0.005, nodes=0.01, poll=0.01, rest=0.001, answer=5, absence=0.05, silence=60, launch=5, cancel=60,
    backoff=0.001, sweep=0.02, catalogue=5,
)  # fmt: skip


class Scene:
    """A database, a cluster, and what a test asks of them."""

    def __init__(self, database: Database, clock: Clock, *cpus: float) -> None:
        self.database = database
        self.clock = clock
        self.cluster = FakeCluster(clock, *cpus)
        self.roster = Roster(database)

    def submit(self, job: str, **changes: Any) -> None:
        made = JobSpec.model_validate(spec(name=f"the {job}", **changes))
        jobs.submit(self.database, made, None, job_id=job, storage=f"/jobs/{job}", key=None)

    def job(self, job: str) -> Job:
        with self.database.reading() as session:
            found = session.get(Job, job)
        assert found is not None
        return found

    def controller(self, job: str) -> FakeController:
        return self.cluster.running[job]

    def last(self, job: str) -> Allocation:
        return self.controller(job).commands[-1].allocation

    def view(self) -> ClusterView:
        with self.database.reading() as session:
            row = session.get(ClusterRow, 1)
        nothing = {"connected": False, "seen_at": None, "nodes": [], "queue": []}
        return ClusterView.model_validate(row.picture if row else nothing)

    def events(self, job: str, *kinds: str) -> list[EventRow]:
        with self.database.reading() as session:
            rows = session.exec(select(EventRow).where(EventRow.job_id == job).order_by(EventRow.id)).all()
        return [row for row in rows if not kinds or row.type in kinds]

    @asynccontextmanager
    async def reconciling(self, pace: Pace = PACE, parking: Parking | None = None) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(Reconciler(self.roster, self.cluster, pace=pace, parking=parking).run())
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.002)

    async def until_phase(self, job: str, *phases: Phase) -> None:
        await self.until(lambda: self.job(job).phase in phases)

    async def until_workers(self, job: str, workers: int) -> None:
        await self.until(lambda: self.job(job).workers == workers)


def play(script: Coroutine[Any, Any, None]) -> None:
    asyncio.run(script)
