"""Jobs from submit to weights, through every process that is involved: they resize in place and lose nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from api_schemas.dynamics import Horizon, Size, state_factors, values_at
from api_schemas.views import Phase
from tests.integration.stage import Job, Stage, staged, validated

LONG = {"recipe": {"name": "classify", "config": {"model": "mlp", "hidden": 1024, "depth": 3}}}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data")) as stage:
        yield stage


def elastic(stage: Stage, workers: tuple[int, int], **changes: Any) -> Job:
    mode = changes.pop("mode", "scale")
    return stage.submit(**LONG | {"elasticity": {"workers": workers, "mode": mode}} | changes)


def distance(a: Job, b: Job) -> float:
    """Of the averaged weights, relative."""
    mine, theirs = (torch.cat([tensor.flatten() for tensor in job.weights().values()]) for job in (a, b))
    return float((mine - theirs).norm() / mine.norm())


def assert_equal(values: dict[str, Any], expected: dict[str, Any]) -> None:
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert values[name] == pytest.approx(value), name


def test_a_job_trains_evaluates_and_exports(stage: Stage) -> None:
    job = stage.submit(evaluation={"every": "2 epochs"}, checkpoint={"every": "4 epochs", "keep": 2})
    view = job.ends()
    assert view.evaluation is not None
    assert view.evaluation.ema is not None
    assert (view.evaluation.ema["accuracy"] or 0) > 0.9
    assert view.progress.samples == view.progress.total_samples == 300 * 64
    assert job.weights("model").keys() == job.weights("ema").keys()
    assert len(job.said("evaluated")) == 300 * 64 // (2 * 1437) + 1
    assert [row.samples for row in job.client.checkpoints(job.id).items] == [
        event.samples for event in job.said("checkpoint_saved")[-2:]
    ]
    loss = job.client.metrics(job.id, ["loss"], points=1000).series["loss"]
    assert loss[-1][1] < loss[0][1] / 4  # type: ignore[operator]
    job.assert_exactly_once()


def test_with_the_batch_held_three_resizes_change_nothing(stage: Stage) -> None:
    still = elastic(stage, (1, 1), mode="hold")
    still.ends()
    moved = elastic(stage, (1, 3), mode="hold")
    stage.client.resize(moved.id, 1)
    moved.trains_on(1)
    for workers in (3, 2, 1):
        stage.client.resize(moved.id, workers)
        moved.trains_on(workers)
    moved.ends()
    rows = stage.client.resizes(moved.id).items
    assert [row.workers for row in rows][-3:] == [(1, 3), (3, 2), (2, 1)]
    assert all(row.steps_lost == row.samples_lost == 0 for row in rows)
    assert distance(still, moved) < 1e-4
    moved.assert_exactly_once()


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
        {"name": "adamw", "lr": 1e-3},
        {"name": "rmsprop", "lr": 1e-3, "momentum": 0.5, "centered": True},
    ],
    ids=lambda optimizer: optimizer["name"],
)
def test_the_record_of_a_resize_is_what_the_rules_say(stage: Stage, optimizer: dict[str, Any]) -> None:
    changes = {
        "recipe": {"name": "classify", "config": {"model": "cnn", "hidden": 64, "depth": 3}},
        "optimizer": optimizer,
        "clip": {"norm": 1.0},
        "scaling": {"second_moment": "assume_noise"},
        "elasticity": {"workers": [1, 2]},
    }
    job = stage.submit(**changes)
    job.until(lambda view: view.workers > 0)
    stage.client.resize(job.id, 1)
    job.trains_on(1)
    job.progresses(500)
    stage.client.resize(job.id, 2)
    job.trains_on(2)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    row = stage.client.resizes(job.id).items[-1]
    made = validated(**changes)
    horizon = Horizon.of(made, epoch_size=1437, bn_momentum=0.1)
    before, after = (Size.of(made, workers) for workers in row.workers)
    assert row.kappa == (1.0, 2.0)
    assert_equal(row.before, values_at(made, before, row.samples, horizon))
    assert_equal(row.after, values_at(made, after, row.samples, horizon))
    assert row.state_factors == pytest.approx(state_factors(made, before, after))
    assert {"ema_momentum", "bn_momentum", "clip_norm"} <= row.after.keys()
    job.assert_exactly_once()


def test_any_worker_may_be_killed(stage: Stage) -> None:
    job = elastic(stage, (1, 3), schedule={"budget": "3000 base_steps"})
    job.trains_on(3)
    for victim in ("w1", "w0"):
        job.progresses()
        os.kill(job.ranks()[victim], signal.SIGKILL)
        lost = len(job.said("rank_lost"))
        job.until(lambda _, lost=lost: len(job.said("rank_lost")) > lost)
        job.trains_on(3)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    rows = stage.client.resizes(job.id).items
    assert [(row.cause, row.workers) for row in rows] == [("rank_lost", (3, 2)), ("joined", (2, 3))] * 2
    assert all(row.steps_lost == row.samples_lost == 0 for row in rows)
    job.assert_exactly_once()


def test_a_frozen_worker_is_given_up(stage: Stage) -> None:
    job = elastic(stage, (1, 2), schedule={"budget": "3000 base_steps"}, stall_timeout="10s")
    job.trains_on(2)
    os.kill(job.ranks()["w0"], signal.SIGSTOP)
    job.until(lambda _: bool(job.said("rank_lost")))
    job.until(lambda _: bool(job.said("resized")))
    job.progresses()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    assert "has not answered for 10 s" in job.said("rank_lost")[0].reason
    assert stage.client.resizes(job.id).items[0].steps_lost == 0
    job.assert_exactly_once()


def test_without_a_worker_left_it_goes_on_from_the_last_checkpoint(stage: Stage) -> None:
    job = elastic(stage, (1, 2), schedule={"budget": "2000 base_steps"}, checkpoint={"every": "4 epochs", "keep": 99})
    job.trains_on(2)
    job.leaves_a_checkpoint_behind()
    for process in job.ranks().values():
        os.kill(process, signal.SIGKILL)
    job.until(lambda _: bool(job.said("rollback")))
    job.trains_on(2)
    job.progresses()
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    (row,) = (row for row in stage.client.resizes(job.id).items if row.samples_lost)
    (rollback,) = job.said("rollback")
    assert rollback.to_samples == row.samples
    assert row.samples in [each.samples for each in stage.client.checkpoints(job.id).items]
    job.assert_exactly_once()


def test_the_controller_may_be_killed_and_finds_its_workers_again(stage: Stage) -> None:
    job = elastic(stage, (1, 2), schedule={"budget": "1500 base_steps"})
    job.trains_on(2)
    before = job.ranks()
    os.kill(job.controller(), signal.SIGKILL)
    job.progresses(4000)
    assert job.ranks() == before
    stage.client.resize(job.id, 1)
    job.trains_on(1)
    stage.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    assert {event.incarnation for event in job.events()} == {0, 1}
    assert not job.said("rank_lost")
    job.assert_exactly_once()


def test_the_service_may_be_killed_and_training_never_stops(stage: Stage) -> None:
    job = elastic(stage, (1, 2), schedule={"budget": "800 base_steps"}, evaluation={"every": "4 epochs"})
    job.trains_on(2)
    job.progresses()
    before = job.ranks()
    stage.kill()
    stage.serve()
    assert job.ranks().items() <= before.items()
    job.ends()
    assert {event.incarnation for event in job.events()} == {0, 1}
    assert not job.said("rank_lost")
    assert not stage.client.resizes(job.id).items
    job.assert_exactly_once()
    assert len(job.client.metrics(job.id, ["loss"], points=10_000).series["loss"]) == 400
