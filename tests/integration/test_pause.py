"""Pause and resume on real Ray: the slots are free meanwhile, no step is lost, and another size goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api_schemas.views import JobView, Phase
from service.processes import wait_until
from tests.integration.stage import PATIENCE_S, Job, Stage, staged

pytestmark = pytest.mark.timeout(400)
ENGINES = ["in_place", "ray_train"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data")) as stage:
        yield stage


def elastic(stage: Stage, budget: str = "1000000 base_steps", **changes: Any) -> Job:
    return stage.submit(schedule={"budget": budget}, elasticity={"workers": [1, 3]}, **changes)


def paused(job: Job) -> JobView:
    """Ask for it, and wait for it; all that was trained is in the newest checkpoint then, and nobody lives."""
    job.client.pause(job.id)
    view = job.until(lambda view: view.status.phase is Phase.PAUSED)
    assert (view.workers, view.status.code) == (0, "paused"), job.story()
    assert job.client.checkpoints(job.id).items[-1].samples == view.progress.samples
    assert wait_until(lambda: not job.processes(), PATIENCE_S)
    return view


def folder(job: Job) -> Path:
    return job.stage.data_folder / "jobs" / job.id


@pytest.mark.parametrize("engine", ENGINES)
def test_others_have_the_slots_meanwhile_and_it_goes_on_at_another_size(stage: Stage, engine: str) -> None:
    job = elastic(stage, "3000 base_steps", engine=engine)
    job.trains_on(3)
    job.progresses()
    there = paused(job).progress.samples
    other = stage.submit(name="other", schedule={"budget": "1000000 base_steps"}, elasticity={"workers": [3, 3]})
    other.trains_on(3)
    stage.client.resize(job.id, 2)
    stage.client.resume(job.id)
    job.until(lambda view: view.status.code == "waiting_for_slots")
    stage.client.cancel(other.id)
    assert job.ends().progress.samples == 3000 * 64
    job.assert_exactly_once()
    assert not job.said("rollback")
    row = job.rows()[-1]
    assert (row.cause, row.samples, row.workers, row.kappa) == ("resume", there, (3, 2), (3, 2))
    assert (row.steps_lost, row.samples_lost) == (0, 0)
    assert row.before["ema_momentum"] == pytest.approx(0.99**3)
    assert row.after["ema_momentum"] == pytest.approx(0.99**2)
    assert row.state_factors
    assert {event.incarnation for event in job.events()} == {0, 1, 2}


def test_a_job_that_has_just_lost_a_worker_pauses_with_what_the_others_have(stage: Stage) -> None:
    job = elastic(stage)
    job.trains_on(3)
    job.progresses()
    os.kill(job.ranks()["w1"], signal.SIGKILL)
    paused(job)
    assert not job.said("rollback")
    stage.client.resume(job.id)
    job.trains_on(3)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()
    assert not any(row.samples_lost for row in job.rows())


@pytest.mark.parametrize("engine", ENGINES)
def test_nobody_leaves_before_the_checkpoint_can_be_written(stage: Stage, engine: str) -> None:
    """Not even where the controller dies meanwhile, in the engine whose workers outlive it."""
    job = elastic(stage, engine=engine)
    job.trains_on(3)
    job.progresses()
    place, aside = folder(job) / "checkpoints", folder(job) / "aside"
    place.mkdir(exist_ok=True)
    place.rename(aside)
    place.touch()
    stage.client.pause(job.id)
    job.until(lambda view: view.status.code == "checkpoint_failed")
    if engine == "in_place":
        os.kill(job.controller(), signal.SIGKILL)
    told = len(job.said("checkpoint_failed"))
    job.until(lambda _: len(job.said("checkpoint_failed")) > told)
    assert job.view.status.phase is Phase.PAUSING
    assert len(job.processes()) == 3
    place.unlink()
    aside.rename(place)
    paused(job)
    assert not job.said("rollback")
    stage.client.cancel(job.id)
    assert job.ends(Phase.CANCELLED).status.message == "Cancelled on request, while it was paused."
    job.assert_exactly_once()


def test_the_service_may_be_away_meanwhile(stage: Stage) -> None:
    job = elastic(stage)
    job.trains_on(3)
    stage.client.pause(job.id)
    stage.kill()
    stage.serve()
    paused(job)
    stage.client.resume(job.id)
    job.trains_on(3)
    job.progresses()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()
    assert not job.said("rollback")
