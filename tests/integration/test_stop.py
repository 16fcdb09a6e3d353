"""A service that is stopped, and its own cluster with it: its jobs go on in the next one from where they were."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from api_schemas.views import Phase
from service.processes import wait_until
from tests.integration.stage import PATIENCE_S, Job, Stage, staged

pytestmark = pytest.mark.timeout(400)


def endless(stage: Stage, name: str) -> Job:
    elasticity = {"workers": [1, 2]}
    return stage.submit(name=name, schedule={"budget": "1000000 base_steps"}, elasticity=elasticity)


def test_nothing_is_lost(tmp_path: Path) -> None:
    with staged(tmp_path, slots=2, grace_s=60) as stage:
        job = endless(stage, "first")
        job.trains_on(2)
        job.progresses()
        waiting = stage.submit(name="second", elasticity={"workers": [2, 2]})
        waiting.until(lambda view: view.status.code == "waiting_for_slots")
        stage.tell(signal.SIGINT)
        stopped = job.until(lambda view: view.status.phase is Phase.QUEUED)  # the API answers until all have left
        stage.stop()
        there = stopped.progress.samples
        assert stopped.status.message == f"Paused at sample {there}, with a checkpoint of it."
        stage.serve()
        job.trains_on(2)
        job.progresses()
        assert not job.said("rollback")
        row = job.rows()[-1]
        assert (row.cause, row.samples, row.samples_lost) == ("resume", there, 0)
        stage.client.cancel(job.id)
        job.ends(Phase.CANCELLED)
        job.assert_exactly_once()
        waiting.trains_on(2)


def test_another_signal_stops_at_once(tmp_path: Path) -> None:
    with staged(tmp_path, slots=2, grace_s=3600) as stage:
        job = endless(stage, "first")
        job.trains_on(2)
        job.progresses()
        place = tmp_path / "jobs" / job.id / "checkpoints"
        place.mkdir(exist_ok=True)
        place.rmdir()
        place.touch()  # no checkpoint can be written there
        stage.tell(signal.SIGTERM)
        assert wait_until(lambda: "jobs leave a checkpoint" in log(stage), PATIENCE_S), log(stage)
        job.until(lambda _: bool(job.said("checkpoint_failed")))
        stage.stop()


def log(stage: Stage) -> str:
    return (stage.data_folder / "service.log").read_text()
