"""A pause: whoever trains leaves a checkpoint of one step and ends, and the next incarnation goes on from there."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api_schemas.exchange import Launch, Predecessor
from tests.workers.company import Theatre, perform
from tests.workers.crew import STEP
from tests.workers.stage import KAPPA, Stage, allocation, now, play, quicken, spec
from tests.workers.test_restarts import RestartStage
from workers import roll
from workers.chronicle import Chronicle
from workers.membership import Move, Plan, Wish, next_move
from workers.spool import Spool
from workers.status import Phase, Status

FEW = Wish(workers=2, minimum=1, kappa=KAPPA, ends=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


play_restarts = partial(play, kind=RestartStage)


async def pause(stage: Stage) -> dict[str, Any]:
    """As the service asks for it, which has no sizes to tell after a restart; the last event."""
    stage.intent, stage.allocation = "pause", allocation(0, kappa=(1, 1))
    return await stage.finished()


# -- who does what -----------------------------------------------------------------------------------------------------


def trains(generation: int = 1, **changes: Any) -> Status:
    return Status(phase=Phase.TRAINING, generation=generation, samples=STEP, **changes)


def test_those_who_train_end_and_whoever_waits_is_sent_away() -> None:
    plan = Plan(generation=1, members=("w0", "w1"), kappa=KAPPA)
    workers = {"w0": trains(), "w1": trains(), "w2": Status(phase=Phase.WARMING), "w3": Status(phase=Phase.READY)}
    move = next_move(FEW, plan, workers, patient=True)
    assert (move.retire, move.start, move.members) == (True, 0, None)
    assert set(move.dismiss) == {"w2", "w3"}


def test_nobody_ends_before_all_members_train() -> None:
    plan = Plan(generation=2, members=("w0", "w1"), kappa=KAPPA)
    for other in (trains(1), Status(phase=Phase.JOINING, generation=2, samples=STEP)):
        assert next_move(FEW, plan, {"w0": trains(2), "w1": other}, patient=True) == Move()


# -- in place ----------------------------------------------------------------------------------------------------------


def test_a_job_pauses_with_all_that_it_trained_in_a_checkpoint() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        end = await pause(stage)
        assert (end["outcome"], end["code"]) == ("paused", "paused")
        assert end["message"] == f"Paused at sample {stage.crew.checkpoint}, with a checkpoint of it."

    stage = play(script)
    assert stage.heard_of == stage.crew.checkpoint > 0
    assert stage.crew.actors == {}
    assert stage.story() == ["started", "checkpoint_saved", "finished"]
    assert len(stage.crew.plans) == 1


@pytest.mark.parametrize("cold", [True, False], ids=["warming", "none yet"])
def test_a_job_that_has_not_trained_pauses_at_once(cold: bool) -> None:
    async def script(stage: Stage) -> None:
        if cold:
            stage.crew.cold = True
            await stage.until(lambda: stage.report and stage.report.joining == 1)
        assert (await pause(stage))["message"] == "Paused before it trained."

    stage = play(script)
    assert stage.crew.actors == {}
    assert stage.crew.started == (["w0"] if cold else [])


def test_whoever_was_to_join_is_not_waited_for() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.cold = True
        stage.allocation = allocation(4)
        await stage.until(lambda: stage.report and stage.report.joining == 2)
        await pause(stage)

    stage = play(script)
    assert stage.crew.actors == {}
    assert stage.told("resized") == []
    assert stage.heard_of == stage.crew.checkpoint


@pytest.mark.parametrize("size", [1, 3])
def test_the_sample_of_a_resize_is_not_waited_for(size: int) -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.allocation = allocation(size, not_before=10**9)
        await stage.until(lambda: len(stage.crew.plans) == 2)
        await pause(stage)

    stage = play(script)
    assert stage.heard_of == stage.crew.checkpoint


def test_survivors_of_a_loss_leave_the_checkpoint_and_nobody_is_replaced() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.crew.die("w1")
        end = await pause(stage)
        assert end["code"] == "paused"

    stage = play(script)
    assert stage.heard_of == stage.crew.checkpoint
    assert stage.told("rollback") == []
    assert stage.crew.started == ["w0", "w1", "w2"]


def test_with_nobody_left_it_is_paused_at_the_checkpoint_before() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.settle()
        stage.crew.die("w0", "w1")
        assert (await pause(stage))["code"] == "workers_lost"

    assert len(play(script).told("rank_lost")) == 2


def test_a_controller_that_is_started_again_goes_on_with_the_pause() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.intent = "pause"
        await stage.exchange()
        await stage.die()
        stage.begin()
        assert (await pause(stage))["code"] == "paused"

    stage = play(script)
    assert stage.heard_of == stage.crew.checkpoint
    assert stage.crew.started == ["w0", "w1", "w2"]


def test_a_checkpoint_that_was_heard_of_and_not_written_down_is_heard_of_again() -> None:
    """By the next life of the controller, from those who left it: they live until it is durable that they did."""

    async def script(stage: Stage) -> None:
        await stage.train(3)
        await stage.settle()
        stage.shelf.refused = {"write"}
        stage.intent = "pause"
        await stage.exchange()
        async with asyncio.timeout(stage.patience_s):
            while stage.conductor._chronicle.saved < 0 or stage.conductor._roll.workers:
                await asyncio.sleep(0.002)
        await stage.die()
        stage.shelf.refused = set()
        stage.begin()
        assert (await pause(stage))["code"] == "paused"

    stage = play(script)
    assert stage.heard_of == stage.crew.checkpoint
    assert stage.crew.actors == {}


def test_it_is_not_done_before_those_who_left_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that is done ends itself, and nobody else ends them. They wait a while where the storage fails."""
    monkeypatch.setattr(roll, "KEEP_S", 0.1)

    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.shelf.refused = {"write"}
        stage.intent, stage.allocation = "pause", allocation(0, kappa=(1, 1))
        await stage.until(lambda: stage.told("finished"))
        assert not stage.conductor.is_over(stage.acked)
        await stage.until(lambda: stage.report and stage.report.done)
        assert stage.crew.actors == {}
        assert stage.conductor.is_over(stage.acked)

    play(script)


def test_one_that_has_used_up_its_budget_meanwhile_succeeds() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.finish()
        assert (await pause(stage))["outcome"] == "succeeded"

    play(script)


def test_cancelled_meanwhile() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.hang("w1")
        stage.intent = "pause"
        await stage.until(lambda: stage.conductor._desk.pauses, training=False)
        stage.intent = "cancel"
        assert (await stage.finished())["outcome"] == "cancelled"

    play(script)


# -- with Ray Train ----------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_checkpoint_and_no_other_begins() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        assert (await pause(stage))["code"] == "paused"

    stage = play_restarts(script)
    assert stage.heard_of == stage.troupe.checkpoint > 0
    assert stage.troupe.runs == [(1, 2)]
    assert stage.troupe.killed == 0
    assert stage.story() == ["started", "finished"]


def test_a_group_that_died_is_not_started_again() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.troupe.deaf = True
        stage.troupe.die(1)
        await stage.until(lambda: stage.told("rank_lost"), training=False)
        assert (await pause(stage))["code"] == "workers_lost"

    assert play_restarts(script).troupe.killed == 1


def test_a_run_that_was_never_begun() -> None:
    async def script(stage: RestartStage) -> None:
        assert (await pause(stage))["message"] == "Paused before it trained."

    assert play_restarts(script).troupe.runs == []


# -- what follows ------------------------------------------------------------------------------------------------------


def launch_next(stage: Stage) -> None:
    """The next incarnation is on the stage, as that of a job that was resumed."""
    acked, samples = stage.acked, stage.heard_of
    before = Predecessor(incarnation=1, acked=acked, samples=samples)
    stage.launch = Launch(job="j", incarnation=2, spec=spec((1, 8)), storage="memory://", before=before)
    stage.intent, stage.events, stage.report, stage.crew.started = "train", [], None, []
    spool = Spool(stage.shelf, 2)
    chronicle = Chronicle(stage.launch, spool, now)
    chronicle.inherit(Spool(stage.shelf, 1), acked)
    stage.conductor = stage.conduct(spool, chronicle)
    stage.task = asyncio.create_task(stage.conductor.run())


@pytest.mark.parametrize("trained", [True, False])
def test_a_resumed_job_tells_of_its_pause_if_it_had_trained(trained: bool) -> None:
    rows: list[dict[str, Any]] = []

    async def script(stage: Stage) -> None:
        if trained:
            await stage.train(3)
        await pause(stage)
        paused_at = stage.crew.checkpoint
        await asyncio.sleep(0.2)
        launch_next(stage)
        await stage.train(1, cause="start", reason="All that fit.", requested_at=now() - timedelta(seconds=5))
        await stage.until(lambda: stage.told("committed"))
        assert stage.told("started")[0]["samples"] == paused_at
        rows.extend(stage.told("resized"))
        stage.events = []  # their line goes on where the one before had ended

    play(script)
    assert [(row["cause"], row["samples_lost"]) for row in rows] == ([("resume", 0)] if trained else [])
    assert all(row["pause_s"] > 0.2 and row["decide_s"] >= 5 for row in rows)


# -- real processes, without Ray ---------------------------------------------------------------------------------------


def test_nobody_leaves_before_the_checkpoint_can_be_written(tmp_path: Path) -> None:
    async def script(theatre: Theatre) -> None:
        theatre.allocation = allocation(2)
        await theatre.trains("w0", "w1")
        obstacle = tmp_path / "storage" / "checkpoints"
        obstacle.touch()  # where a folder should be
        theatre.intent = "pause"
        await theatre.until(lambda: len(theatre.told("checkpoint_failed")) > 1)
        assert theatre.awake() == 2
        obstacle.unlink()
        assert (await theatre.finished())["code"] == "paused"

    theatre = perform(script, tmp_path)
    (saved,) = theatre.told("checkpoint_saved")
    assert saved["samples"] == theatre.heard_of
    assert {event["samples"] for event in theatre.told("checkpoint_failed")} == {saved["samples"]}
    theatre.check_replicas()
