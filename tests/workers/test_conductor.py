"""The conductor: sizes, losses and ends of a job, with workers that live in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tests.workers.stage import Stage, allocation, now, play, quicken
from workers import conductor, losses, stalls
from workers.status import Activity, Doing, Phase


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_job_starts_and_says_so() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.until(lambda: stage.told("committed"))
        assert stage.report is not None
        assert (stage.report.workers, stage.report.joining, stage.report.generation) == (2, 0, 1)
        assert not stage.report.done

    stage = play(script)
    assert stage.story() == ["started"]
    (started,) = stage.told("started")
    assert (started["workers"], started["samples"], started["values"]) == (2, 0, {"lr": 0.2})
    (plan,) = stage.crew.plans
    assert (plan.members, plan.cause, plan.port) == (("w0", "w1"), "api", 1)
    assert all(event["generation"] == 1 for event in stage.told("committed"))


def test_nothing_happens_before_the_first_command() -> None:
    async def script(stage: Stage) -> None:
        await asyncio.sleep(0.05)
        assert stage.crew.started == []

    play(script)


def test_a_grow_and_a_shrink_keep_those_who_stay() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        await stage.train(3, requested_at=now() - timedelta(seconds=5))
        await stage.train(2)
        await stage.until(lambda: len(stage.told("resized")) == 2 and len(stage.crew.actors) == 2)

    stage = play(script)
    assert [plan.members for plan in stage.crew.plans] == [("w0",), ("w0", "w1", "w2"), ("w0", "w1")]
    assert stage.story() == ["started", "joining", "resizing", "resized", "resizing", "resized"]
    assert [event["workers"] for event in stage.told("resizing")] == [(1, 3), (3, 2)]
    assert stage.told("joining")[0]["workers"] == 2
    assert [event["generation"] for event in stage.told("resized")] == [2, 3]
    assert 5 <= stage.told("resized")[0]["decide_s"] < 15
    assert stage.told("resized")[1]["decide_s"] < 5
    assert stage.crew.killed == ["w2"], "the newest left, and was really ended"
    assert stage.told("rank_lost") == []
    assert stage.crew.severed == []


def test_those_who_train_do_not_wait_for_those_who_warm_up() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold = True
        stage.allocation = allocation(3)
        await stage.until(lambda: stage.report and stage.report.joining == 2)
        stage.crew.warm("w1")
        trained = stage.crew.samples
        await stage.until(lambda: stage.crew.samples >= trained + 80)
        assert len(stage.crew.plans) == 1
        stage.crew.warm("w2")
        await stage.until(lambda: len(stage.crew.trains) == 3)

    stage = play(script)
    assert len(stage.crew.plans) == 2


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "PATIENCE_S", 0.1)

    async def script(stage: Stage) -> None:
        stage.crew.cold = True
        stage.allocation = allocation(3)
        await stage.until(lambda: len(stage.crew.actors) == 3)
        stage.crew.warm("w1", "w2")
        await stage.until(lambda: stage.crew.trains == ("w1", "w2"))

    play(script)


def test_less_than_the_minimum_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor, "PATIENCE_S", 0.0)

    async def script(stage: Stage) -> None:
        stage.crew.cold = True
        stage.allocation = allocation(3)
        await stage.until(lambda: len(stage.crew.actors) == 3)
        stage.crew.warm("w0")
        for _ in range(20):
            await stage.exchange()
            await asyncio.sleep(0.002)
        assert stage.crew.plans == []
        stage.crew.warm("w2")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2"))

    play(script, workers=(2, 4))


def test_other_limits_of_kappa_are_a_generation_of_the_same_workers() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.allocation = allocation(2, kappa=(1.0, 1.0))
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert [plan.members for plan in stage.crew.plans] == [("w0", "w1"), ("w0", "w1")]
    assert stage.crew.plans[1].kappa == (1.0, 1.0)


def test_a_deferred_shrink_happens_at_its_sample() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        at = stage.crew.samples + 80
        stage.allocation = allocation(1, not_before=at)
        await stage.until(lambda: len(stage.crew.plans) == 2)
        assert stage.told("resizing") == [], "it does not happen yet"
        await stage.until(lambda: stage.told("resized"))
        assert stage.told("resized")[0]["samples"] >= at

    play(script)


# -- losses ------------------------------------------------------------------------------------------------------------


def test_a_lost_member_is_replaced_and_nothing_that_was_trained_is_lost() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.crew.cold = True
        stage.crew.die("w1", end="Its node is gone.")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2"))
        await stage.until(lambda: "w3" in stage.crew.actors)
        stage.crew.warm("w3")
        await stage.until(lambda: len(stage.told("resized")) == 2)

    stage = play(script)
    assert stage.crew.trains == ("w0", "w2", "w3")
    (lost,) = stage.told("rank_lost")
    assert (lost["rank"], lost["reason"]) == (1, "Worker w1 was lost: Its node is gone.")
    first, second = stage.told("resized")
    assert (first["cause"], first["workers"], first["samples_lost"]) == ("rank_lost", (3, 2), 0)
    assert first["reason"] == lost["reason"]
    assert (second["cause"], second["workers"]) == ("joined", (2, 3))
    assert stage.told("rollback") == []
    assert stage.crew.severed == [1]


def test_the_next_oldest_leads_when_the_lead_is_lost() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.crew.die("w0")
        await stage.until(lambda: stage.crew.trains[:2] == ("w1", "w2"))
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert stage.told("rank_lost")[0]["rank"] == 0
    assert stage.told("rollback") == []


def test_survivors_who_do_not_notice_are_cut_off() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.crew.actors["w2"].deaf = True
        stage.crew.die("w1")
        await stage.until(lambda: stage.crew.trains[:2] == ("w0", "w2"))

    assert play(script).crew.severed == [1]


def test_when_all_are_lost_training_goes_on_from_the_checkpoint() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.until(lambda: stage.report and stage.report.samples > 40)
        stage.crew.checkpoint = 16
        stage.crew.die("w0", "w1")
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert [event["to_samples"] for event in stage.told("rollback")] == [16]
    assert stage.told("resized")[0]["samples_lost"] > 0
    assert stage.crew.plans[1].members == ("w2", "w3")


def test_a_loss_before_the_second_plan_is_entered_is_answered() -> None:
    """w1 dies between the announcement and the boundary."""

    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.allocation = allocation(3)
        await stage.until(lambda: len(stage.crew.plans) == 2, training=False)
        stage.crew.die("w1")
        await stage.until(lambda: stage.crew.trains[:2] == ("w0", "w2"))

    play(script)


def test_a_joiner_that_dies_stops_nobody() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold = True
        stage.allocation = allocation(2)
        await stage.until(lambda: "w1" in stage.crew.actors)
        stage.crew.die("w1")
        await stage.until(lambda: "w2" in stage.crew.actors)
        stage.crew.warm("w2")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2"))

    stage = play(script)
    assert len(stage.told("rank_lost")) == 1
    assert stage.crew.severed == []


def test_one_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 0.25)

    async def script(stage: Stage) -> None:
        await stage.train(3)
        stage.crew.hang("w2")
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert stage.told("rank_lost")[0]["reason"] == "Worker w2 was lost: It has not answered for 0.25 s."
    assert "w2" in stage.crew.killed


def test_one_whose_training_hangs_is_given_up_and_those_who_wait_for_it_are_not() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        waits = Doing(activity=Activity.STEP, waits=True, still_s=99.0)
        stage.crew.actors["w0"].doing = stage.crew.actors["w2"].doing = waits
        stage.crew.actors["w1"].doing = Doing(activity=Activity.STEP, still_s=98.0, where="loss (mine.py:1)")
        await stage.until(lambda: stage.told("rank_lost"), training=False)
        await stage.until(lambda: len(stage.crew.trains) == 3)

    stage = play(script)
    assert stage.crew.trains == ("w0", "w2", "w3")
    assert stage.crew.killed == ["w1"]
    (lost,) = stage.told("rank_lost")
    told = "Worker w1 was lost: Its training hangs: no progress for 98 s in a step, at loss (mine.py:1)."
    assert lost["reason"] == told
    assert stage.told("rollback") == []


def stick(stage: Stage) -> None:
    """Whoever trains waits for the others, and has done so for long."""
    for name in stage.crew.trains:
        stage.crew.actors[name].doing = Doing(activity=Activity.STEP, waits=True, still_s=99.0)


def test_a_generation_in_which_everybody_waits_is_made_anew_with_the_same_workers() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stick(stage)
        await stage.until(lambda: stage.told("resized"), training=False)

    stage = play(script)
    assert stage.crew.severed == [1]
    assert stage.crew.killed == []
    assert [plan.members for plan in stage.crew.plans] == [("w0", "w1")] * 2
    assert stage.told("resized")[0]["cause"] == "stalled"
    assert [event["code"] for event in stage.told("warning")] == ["stalled"]


def test_generations_that_get_stuck_at_the_same_sample_again_and_again_fail_the_job() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        while not stage.told("finished"):
            stick(stage)
            await stage.exchange()
            await asyncio.sleep(0.002)

    stage = play(script)
    assert len(stage.told("warning")) == losses.DEATHS
    assert (stage.events[-1]["outcome"], stage.events[-1]["code"]) == ("failed", "stalled")


# -- failures ----------------------------------------------------------------------------------------------------------


def test_a_member_that_fails_fails_the_job_and_says_why() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.fail("w1", "recipe_raised", "The recipe raised ValueError: no.")
        await stage.finished()

    stage = play(script)
    end = stage.events[-1]
    assert (end["outcome"], end["code"]) == ("failed", "recipe_raised")
    assert end["message"] == "The recipe raised ValueError: no."
    assert (end["traceback"], end["log_tail"]) == ("Traceback: here", ["last", "words"])
    assert sorted(stage.crew.killed) == ["w0", "w1"]


def test_the_first_workers_that_fail_to_warm_up_fail_the_job() -> None:
    async def script(stage: Stage) -> None:
        stage.crew.cold = True
        stage.allocation = allocation(2)
        await stage.until(lambda: len(stage.crew.actors) == 2)
        stage.crew.fail("w0", "recipe_config_invalid", "No such recipe.")
        await stage.finished()

    assert play(script).events[-1]["code"] == "recipe_config_invalid"


def test_a_joiner_that_fails_stops_nobody() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold = True
        stage.allocation = allocation(2)
        await stage.until(lambda: "w1" in stage.crew.actors)
        stage.crew.fail("w1", message="It has no disk.")
        await stage.until(lambda: stage.crew.trains == ("w0",) and "w2" in stage.crew.actors)
        stage.crew.warm("w2")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2"))

    stage = play(script)
    assert stage.told("rank_lost")[0]["reason"] == "Worker w1 was lost: It has no disk."
    assert stage.told("finished") == []


def test_a_joiner_that_fails_on_its_way_in_stops_nobody() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold = True
        stage.allocation = allocation(2)
        await stage.until(lambda: "w1" in stage.crew.actors)
        joiner = stage.crew.actors["w1"]
        joiner.plan = replace(stage.crew.plans[-1], generation=2, members=("w0", "w1"))
        stage.crew.fail("w1", message="It has no memory.")
        await stage.until(lambda: stage.crew.trains == ("w0",) and "w2" in stage.crew.actors)
        stage.crew.warm("w2")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2"))

    stage = play(script)
    assert stage.told("rank_lost")[0]["reason"] == "Worker w1 was lost: It has no memory."
    assert stage.told("finished") == []


def test_workers_that_die_one_after_the_other_end_the_job() -> None:
    async def script(stage: Stage) -> None:
        stage.crew.cold = True
        for number in range(losses.DEATHS):
            name = f"w{number}"
            await stage.until(lambda name=name: name in stage.crew.actors)  # type: ignore[misc]
            stage.crew.die(name, end="Out of memory.")
        await stage.finished()

    stage = play(script)
    end = stage.events[-1]
    assert (end["outcome"], end["code"]) == ("failed", "workers_lost")
    assert "Out of memory." in end["message"]
    assert len(stage.told("rank_lost")) == losses.DEATHS


def test_deaths_with_progress_in_between_end_nothing() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        for number in range(1, 2 + losses.DEATHS):
            reached = stage.crew.samples
            await stage.until(lambda at=reached: stage.report and stage.report.samples > at)  # type: ignore[misc]
            stage.crew.die(f"w{number}")
            await stage.until(lambda: len(stage.crew.trains) == 2)

    assert play(script).told("finished") == []


def test_what_goes_wrong_in_the_controller_fails_the_job() -> None:
    async def script(stage: Stage) -> None:
        stage.crew.refuses = RuntimeError("no such resource")
        await stage.finished()

    end = play(script).events[-1]
    assert (end["code"], end["message"]) == (
        "controller_failed",
        "The controller failed: RuntimeError: no such resource",
    )
    assert "no such resource" in end["traceback"]


# -- ends --------------------------------------------------------------------------------------------------------------


def test_a_cancelled_job_ends_with_everybody_gone() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.intent = "cancel"
        await stage.finished()
        assert stage.crew.actors == {}
        assert stage.conductor.is_over(stage.acked)

    stage = play(script)
    assert (stage.events[-1]["outcome"], stage.events[-1]["code"]) == ("cancelled", "cancelled")


def test_a_job_succeeds_with_its_export_and_only_then() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.finish(exported=False)
        for _ in range(20):
            await stage.exchange()
            await asyncio.sleep(0.002)
        assert "finished" not in stage.story()
        stage.crew.actors["w0"].record("exported", artifacts={"model.safetensors": "/m"})
        await stage.finished()

    stage = play(script)
    assert stage.story()[-2:] == ["exported", "finished"]
    assert stage.events[-1]["outcome"] == "succeeded"
    assert stage.crew.actors == {}


def test_those_who_are_done_live_until_it_is_durable_what_they_told() -> None:
    """Another life of the controller would begin the end anew if nobody could tell it of the export."""
    durable: list[bool] = []

    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.before_kill = lambda: durable.append(stage.conductor._chronicle._spool.notes["exported"])
        stage.crew.finish()
        await stage.finished()

    play(script)
    assert durable == [True, True]


def test_one_that_dies_at_the_very_end_does_not_spoil_it() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.finish()
        stage.crew.actors["w0"].phase = Phase.TRAINING  # it writes its last file
        stage.crew.die("w1")
        await stage.finished()

    assert play(script).events[-1]["outcome"] == "succeeded"


def test_events_are_in_the_order_of_what_happened() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.step(point=True)
        await stage.until(lambda: stage.told("metrics"))
        await stage.train(2)
        stage.crew.finish()
        await stage.finished()

    stage = play(script)
    assert stage.story() == ["started", "joining", "resizing", "resized", "exported", "finished"]
    kinds = [event["type"] for event in stage.events]
    assert kinds.index("committed") < kinds.index("metrics") < kinds.index("resized")
    last = max(i for i, kind in enumerate(kinds) if kind == "committed")
    assert last < kinds.index("exported")
    times: list[Any] = [event["at"] for event in stage.events]
    assert times == sorted(times)
