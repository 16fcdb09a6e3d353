"""The server of the database goes and comes back: requests are refused meanwhile, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from itertools import islice

import httpx
import pytest
from sqlmodel import col, select

from api_schemas.views import Phase
from service.db import Database
from service.lease import Lease, Term, reign
from service.reconciler import Reconciler
from service.tables import LedgerRow
from tests.postgres import PostgresServer
from tests.service.scene import PACE, Scene, play
from tests.service.test_event_stream import listening
from tests.service.test_logs import following, line
from tests.service.test_meters import scraped
from tests.service.world import Clock, World, finished, problem, resized, spec

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
QUICK = Term(term=1.0, margin=0.4, renew=0.1, look=0.05)


def test_requests_are_refused_during_it_and_go_on_after_it(world: World, postgres: PostgresServer) -> None:
    job = world.submit()
    with postgres.stopped():
        for path in ("/v1/jobs", f"/v1/jobs/{job}", f"/v1/jobs/{job}/events", "/v1/cluster", "/readyz"):
            problem(world.http.get(path), 503, "unavailable")
        problem(world.http.post("/v1/jobs", json=spec()), 503, "unavailable")
        problem(world.http.post(f"/v1/jobs/{job}/cancel"), 503, "unavailable")
        assert world.get("/healthz")["status"] == "ok"
    assert world.job(job)["status"]["phase"] == "queued"
    assert [row["id"] for row in world.get("/v1/jobs")["items"]] == [job]
    assert world.http.post("/v1/jobs", json=spec()).status_code == 201


def test_monitoring_does_not_go_blind_with_it(world: World, postgres: PostgresServer) -> None:
    world.submit()
    with postgres.stopped():
        found = scraped(world.http)
    assert found["emascale_database_up",] == 0
    assert found["emascale_http_request_seconds_count", "POST", "/v1/jobs", "201"] == 1
    assert scraped(world.http)["emascale_database_up",] == 1


def test_one_that_nobody_noticed_costs_no_request(world: World, postgres: PostgresServer) -> None:
    job = world.submit()
    with postgres.stopped():
        pass
    assert world.job(job)["id"] == job


def test_a_live_stream_waits_for_it_to_end(world: World, wire: httpx.Client, postgres: PostgresServer) -> None:
    controller = world.run()
    with listening(wire, controller.job) as stream:
        assert len(list(islice(stream, 4))) == 4
        with postgres.stopped():
            time.sleep(0.2)
        controller.report(resized(64, (2, 3)), finished("succeeded"))
        said = [message.data for message in stream]
    assert '"type":"resized"' in said[0]
    assert '"phase":"succeeded"' in said[-1]


def test_lines_are_told_on_while_nobody_knows_whether_the_job_has_ended(
    world: World, wire: httpx.Client, postgres: PostgresServer
) -> None:
    controller = world.run()
    world.store(controller.job, "logs/w0/000001.log", line(1, "one"))
    with following(wire, controller.job) as said:
        assert next(said).endswith("one")
        with postgres.stopped():
            world.store(controller.job, "logs/w0/000002.log", line(2, "two"))
            assert next(said).endswith("two")
        controller.report(finished("succeeded"))
        assert list(said) == []


@pytest.mark.parametrize("outage_s", [0, 2 * QUICK.term], ids=["within the term", "beyond the term"])
def test_jobs_train_on_and_what_they_say_is_kept(
    database: Database, clock: Clock, postgres: PostgresServer, outage_s: float
) -> None:
    scene = Scene(database, clock, 4)
    lease = Lease(database, "a", time.monotonic, QUICK)

    async def script() -> None:
        scene.submit("a")
        reigning = asyncio.create_task(reign(lease, lambda: Reconciler(scene.roster, scene.cluster, pace=PACE).run()))
        await scene.until_phase("a", Phase.RUNNING)
        controller = scene.controller("a")
        controller.advance(100)
        with postgres.stopped():
            for _ in range(5):
                controller.advance(100)
                await asyncio.sleep(outage_s / 5)
        controller.advance(100)
        controller.finish("succeeded")
        await scene.until_phase("a", Phase.SUCCEEDED)
        reigning.cancel()
        await asyncio.gather(reigning, return_exceptions=True)

    play(script())
    with database.reading() as session:
        rows = session.exec(select(LedgerRow).order_by(col(LedgerRow.start))).all()
    assert [(row.start, row.stop) for row in rows] == [(0, 700)]
    assert [launch.incarnation for launch in scene.cluster.launches] == [1], "nothing was started anew"
