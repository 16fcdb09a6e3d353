"""The second engine on real Ray Train: the same trainer, events, resizes and ledger, through its restarts."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from api_schemas.views import Phase
from tests.integration.stage import Job, Stage, staged


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data")) as stage:
        yield stage


def submit(stage: Stage, workers: tuple[int, int], **changes: Any) -> Job:
    return stage.submit(engine="ray_train", elasticity={"workers": workers}, **changes)


def test_it_resizes_without_a_step_lost_and_goes_back_to_a_checkpoint_after_a_kill(stage: Stage) -> None:
    job = submit(stage, (1, 3), schedule={"budget": "100000 base_steps"}, checkpoint={"every": "100 base_steps"})
    stage.client.resize(job.id, 2)
    job.trains_on(2)
    job.progresses(2000)
    stage.client.resize(job.id, 3)
    job.trains_on(3)
    job.until(lambda _: len(job.said("checkpoint_saved")) > 2)
    os.kill(job.ranks()["w2"], signal.SIGKILL)
    job.until(lambda _: len(job.rows()) == 2)
    job.progresses(2000)
    planned, sudden = job.rows()
    assert (planned.cause, planned.workers, planned.steps_lost) == ("api", (2, 3), 0)
    assert (planned.kappa, planned.before["ema_momentum"]) == ((2, 3), pytest.approx(0.99**2))
    assert planned.after["ema_momentum"] == pytest.approx(0.99**3)
    assert planned.state_factors
    assert (sudden.cause, sudden.workers[1]) == ("rank_lost", 3)
    saved = [event.samples for event in job.said("checkpoint_saved")]
    assert sudden.samples in saved
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()


def test_it_ends_with_an_evaluation_weights_and_checkpoints(stage: Stage) -> None:
    job = submit(stage, (1, 2), checkpoint={"every": "4 epochs", "keep": 2})
    view = job.ends()
    assert view.evaluation is not None
    assert view.evaluation.ema is not None
    assert (view.evaluation.ema["accuracy"] or 0) > 0.9
    assert view.progress.samples == 300 * 64
    assert job.weights("model").keys() == job.weights("ema").keys()
    assert [row.samples for row in job.client.checkpoints(job.id).items] == [
        event.samples for event in job.said("checkpoint_saved")[-2:]
    ]
    job.assert_exactly_once()


def test_a_controller_that_is_killed_goes_on_from_the_last_checkpoint(stage: Stage) -> None:
    job = submit(stage, (1, 1), schedule={"budget": "100000 base_steps"}, checkpoint={"every": "100 base_steps"})
    job.until(lambda _: len(job.said("checkpoint_saved")) > 1)
    os.kill(stage.processes("ray::RestartController")[0], signal.SIGKILL)
    job.until(lambda _: len(job.rows()) == 1)
    job.progresses(1000)
    assert job.rows()[0].samples > 0
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()
