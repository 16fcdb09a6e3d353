"""A cluster that is about to stop: every job leaves a checkpoint, and goes on in the next one."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from api_schemas.jobs import ResizeRequest
from api_schemas.views import Phase
from service import jobs, resizes
from service.parking import Parking
from tests.service.scene import PACE, Scene, play


def test_jobs_leave_a_checkpoint_and_go_on_from_there(scene: Scene) -> None:
    parking = Parking()

    async def script() -> None:
        scene.submit("a", elasticity={"workers": [1, 2]})
        scene.submit("b", elasticity={"workers": [1, 2]})
        async with scene.reconciling(parking=parking):
            await scene.until_workers("a", 2)
            await scene.until_workers("b", 2)
            scene.controller("a").advance(100)
            await scene.until(lambda: scene.job("a").samples == 100)
            await parking.ask()
        assert all(controller.went for controller in scene.cluster.running.values())
        for job in map(scene.job, ("a", "b")):
            assert (job.phase, job.code, job.message, job.workers) == (Phase.QUEUED, "paused", "It paused.", 0)
        async with scene.reconciling():
            await scene.until_workers("a", 2)
            assert (scene.job("a").samples, scene.job("a").incarnation) == (100, 2)

    play(script())
    (before,) = [launch.before for launch in scene.cluster.launches if (launch.job, launch.incarnation) == ("a", 2)]
    assert before is not None
    assert (before.incarnation, before.samples) == (1, 100)
    phases = [row.payload["phase"] for row in scene.events("a", "phase")]
    assert phases == ["starting", "running", "queued", "starting", "running"]


def test_with_nobody_there_it_is_done_at_once_and_nobody_is_started(scene: Scene) -> None:
    parking = Parking()
    parking.asked = True

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(parking=parking):
            await parking.ask()
            await asyncio.sleep(20 * PACE.tick)

    play(script())
    assert scene.cluster.launches == []


def test_what_was_asked_for_before_comes_first(scene: Scene) -> None:
    """Whoever is cancelled or paused by a user ends so."""
    parking = Parking()

    async def script() -> None:
        for job in ("a", "b"):
            scene.submit(job, elasticity={"workers": [1, 2]})
        async with scene.reconciling(parking=parking):
            await scene.until_workers("a", 2)
            await scene.until_workers("b", 2)
            jobs.cancel(scene.database, "a")
            jobs.pause(scene.database, "b")
            await parking.ask()

    play(script())
    assert (scene.job("a").phase, scene.job("b").phase) == (Phase.CANCELLED, Phase.PAUSED)


def test_a_controller_that_is_found_again_is_told(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
        parking = Parking()
        parking.asked = True
        async with scene.reconciling(parking=parking):
            await parking.ask()
        assert scene.controller("a").went

    play(script())
    assert scene.job("a").phase is Phase.QUEUED


def test_one_that_is_lost_meanwhile_goes_on_from_its_last_checkpoint(scene: Scene) -> None:
    parking = Parking()

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, backoff=3600), parking):
            await scene.until_phase("a", Phase.RUNNING)
            scene.cluster.lose("a")
            await scene.until_phase("a", Phase.RECOVERING)
            await parking.ask()

    play(script())
    job = scene.job("a")
    assert (job.phase, job.code) == (Phase.QUEUED, "controller_lost")
    assert job.message == "Its controller was lost; another one will start from the last checkpoint."


def test_it_is_not_done_before_the_checkpoint_can_be_written(scene: Scene) -> None:
    parking = Parking()

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(parking=parking):
            await scene.until_phase("a", Phase.RUNNING)
            scene.controller("a").stores = False
            asking = asyncio.ensure_future(parking.ask())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(asking), 20 * PACE.tick)
            resizes.ask(scene.database, "a", ResizeRequest(workers=1))  # nor does a change of mind change that
            scene.controller("a").stores = True
            await asking

    play(script())
    assert scene.job("a").phase is Phase.QUEUED
