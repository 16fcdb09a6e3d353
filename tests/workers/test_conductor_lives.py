"""The conductor's answers to the service, and its next life: nothing is said twice, and nothing is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from tests.workers.stage import Stage, allocation, play, quicken
from workers import desk


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


# -- questions and answers ---------------------------------------------------------------------------------------------


def test_a_question_waits_for_news_and_is_answered_with_them() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        await stage.settle()
        asked = asyncio.create_task(stage.exchange(wait_s=1.0))
        await asyncio.sleep(0.03)
        assert not asked.done()
        stage.crew.step()
        report = await asyncio.wait_for(asked, 0.9)
        assert [event.type for event in report.events] == ["committed"]

    play(script)


def test_a_question_without_news_is_answered_in_its_time() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        await stage.settle()
        began = asyncio.get_running_loop().time()
        report = await stage.exchange(wait_s=0.1)
        assert report.events == []
        assert 0.09 < asyncio.get_running_loop().time() - began < 0.9

    play(script)


def test_events_are_repeated_until_they_are_acknowledged_and_then_forgotten() -> None:
    async def script(stage: Stage) -> None:
        stage.acks = False
        await stage.train(2)
        await stage.until(lambda: len(stage.told("committed")) >= 3)
        await stage.settle()
        (first, second) = (await stage.exchange(), await stage.exchange())
        assert first.events[0].sequence == 1
        assert first.events == second.events[: len(first.events)]
        assert len(stage.shelf.objects) > 3
        stage.acks = True
        assert (await stage.exchange()).events == []
        await stage.exchange()
        assert len(stage.shelf.objects) == 1

    play(script)


def test_a_report_has_its_limit_and_done_waits_for_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "REPORT_LIMIT", 2)

    async def script(stage: Stage) -> None:
        stage.acks = False
        stage.allocation = allocation(2)
        await stage.until(lambda: len(stage.crew.trains) == 2)
        stage.crew.finish()
        await stage.task_done()
        said = []
        while not said or not said[-1].done:
            stage.acks = bool(said)
            said.append(await stage.exchange())
        assert all(len(report.events) <= 2 for report in said)
        assert [report.done for report in said] == [False] * (len(said) - 1) + [True]
        assert len(said) > 1
        last = stage.events[-1]["sequence"]
        assert not stage.conductor.is_over(last - 1)
        assert stage.conductor.is_over(last)

    assert play(script).events[-1]["type"] == "finished"


def test_a_job_that_is_cancelled_before_it_began_is_cancelled() -> None:
    async def script(stage: Stage) -> None:
        stage.intent = "cancel"
        await stage.finished()

    stage = play(script)
    assert stage.story() == ["finished"]
    assert stage.crew.started == []


# -- another life ------------------------------------------------------------------------------------------------------


def test_another_life_goes_on_in_the_middle_of_a_sentence() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.until(lambda: stage.told("committed"))
        await stage.die()
        for _ in range(5):
            stage.crew.step(point=True)
        stage.begin()
        await stage.until(lambda: stage.told("metrics"))
        await stage.until(lambda: stage.report and stage.report.samples >= 40)

    stage = play(script)
    assert stage.story() == ["started"]
    assert len(stage.crew.plans) == 1
    points = [point[0] for event in stage.told("metrics") for point in event["points"]]
    assert len(points) == 5
    assert points == sorted(points)
    assert stage.crew.started == ["w0", "w1"]
    assert stage.crew.killed == []


def test_another_life_grows_and_shrinks_what_it_finds() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.die()
        stage.begin()
        await stage.train(3)
        await stage.train(1)
        await stage.until(lambda: len(stage.told("resized")) == 2)

    stage = play(script)
    assert [plan.generation for plan in stage.crew.plans] == [1, 2, 3]
    assert stage.crew.started == ["w0", "w1", "w2"]
    assert [event["workers"] for event in stage.told("resized")] == [(2, 3), (3, 1)]


def test_a_change_that_was_announced_happens_in_another_life_too() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.allocation = allocation(2)
        await stage.until(lambda: len(stage.crew.plans) == 2, training=False)
        await stage.die()
        stage.begin()
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert stage.crew.trains == ("w0", "w1")
    assert stage.crew.severed == []


def test_one_that_died_while_nobody_looked_is_replaced() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(3)
        await stage.die()
        stage.crew.die("w1")
        stage.begin()
        await stage.until(lambda: len(stage.crew.trains) == 3)
        await stage.until(lambda: stage.told("resized"))

    stage = play(script)
    assert stage.crew.trains == ("w0", "w2", "w3")
    assert stage.told("rollback") == []


@pytest.mark.parametrize("dies", ["before", "after"])
def test_another_life_replaces_the_lost_while_the_service_is_away(dies: str) -> None:
    """It goes on with the last wish that an earlier life heard of, its limits of kappa too."""

    async def script(stage: Stage) -> None:
        await stage.train(3, kappa=(1.0, 2.0))
        await stage.settle()
        await stage.die()
        if dies == "before":
            stage.crew.die("w1")
        stage.begin()
        if dies == "after":
            await stage.until(lambda: stage.conductor._roll.workers, training=False, ask=False)
            stage.crew.die("w1")
        await stage.until(lambda: stage.crew.trains == ("w0", "w2", "w3"), ask=False)
        await stage.until(lambda: len(stage.told("resized")) == 2)

    stage = play(script)
    assert [event["cause"] for event in stage.told("resized")] == ["rank_lost", "joined"]
    assert {plan.kappa for plan in stage.crew.plans} == {(1.0, 2.0)}
    assert stage.told("rollback") == []


def test_another_life_finishes_a_change_that_only_an_earlier_one_heard_of() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold = True
        stage.allocation = allocation(2)
        await stage.until(lambda: stage.told("joining"))
        await stage.die()
        stage.begin()
        stage.crew.warm("w1")
        await stage.until(lambda: stage.crew.trains == ("w0", "w1"), ask=False)
        await stage.until(lambda: stage.told("resized"))

    assert [event["cause"] for event in play(script).told("resized")] == ["api"]


def test_without_the_first_command_of_all_another_life_waits_too() -> None:
    async def script(stage: Stage) -> None:
        await stage.die()
        stage.begin()
        await asyncio.sleep(0.05)
        assert stage.crew.started == []

    play(script)


def test_a_failure_that_nobody_saw_fails_the_job_in_another_life() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.die()
        stage.crew.fail("w1")
        stage.begin()
        await stage.finished()

    assert play(script).events[-1]["code"] == "recipe_raised"


def test_an_end_that_nobody_saw_is_told_in_another_life() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.die()
        stage.crew.finish()
        stage.begin()
        await stage.finished()

    stage = play(script)
    assert stage.story() == ["started", "exported", "finished"]


# -- what does not hold yet --------------------------------------------------------------------------------------------


def test_a_whole_node_that_dies_is_one_loss_for_a_job_that_trains() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(6)
        stage.crew.die("w1", "w2", "w3", "w4", "w5")
        await stage.until(lambda: stage.told("resized") or stage.told("finished"))

    stage = play(script)
    assert stage.told("finished") == []


def test_generations_and_names_are_not_used_again_when_nobody_is_left_to_tell_them() -> None:
    """Controller and workers die together: generation 1 is fenced off, and records of a new w0 count as heard."""

    async def script(stage: Stage) -> None:
        await stage.train(1)
        await stage.train(2)
        await stage.until(lambda: stage.told("resized"))
        await stage.die()
        stage.crew.actors.clear()
        stage.crew.started.clear()
        stage.begin()
        await stage.until(lambda: len(stage.crew.trains) == 2)
        assert stage.crew.plans[-1].generation > 2
        assert {"w0", "w1"}.isdisjoint(stage.crew.started)

    play(script)


def test_the_deaf_are_cut_off_in_another_life_too() -> None:
    """One noticed the loss by itself, so the new controller takes the generation for severed."""

    async def script(stage: Stage) -> None:
        await stage.train(3)
        await stage.die()
        stage.crew.actors["w2"].deaf = True
        stage.crew.die("w1")
        stage.begin()
        for _ in range(50):
            await stage.exchange()
            await asyncio.sleep(0.004)
        assert stage.crew.trains[:2] == ("w0", "w2")

    play(script)


def test_a_finished_job_stays_finished_in_another_life() -> None:
    async def script(stage: Stage) -> None:
        stage.acks = False
        await stage.train(1)
        stage.crew.finish()
        await stage.task_done()
        await stage.die()
        stage.crew.actors.clear()
        stage.crew.started.clear()
        stage.begin()
        for _ in range(20):
            report = await stage.exchange()
            await asyncio.sleep(0.004)
        assert report.done
        assert stage.crew.started == []

    play(script)


@pytest.mark.parametrize("reason", ["it was replaced", "the joiner was tired of waiting"])
def test_a_deferred_grow_that_comes_to_nothing_cuts_off_nobody_who_trains(reason: str) -> None:
    """The joiner waits in a rendezvous that it gives up: after 15 s, or because another plan came."""

    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.allocation = allocation(2, not_before=10_000)
        await stage.until(lambda: len(stage.crew.plans) == 2, training=False)
        if reason == "it was replaced":
            stage.allocation = allocation(2, not_before=20_000)
            await stage.until(lambda: len(stage.crew.plans) == 3, training=False)
        else:
            stage.crew.actors["w1"].fall_out()
        for _ in range(20):
            await stage.exchange()
            await asyncio.sleep(0.004)
        assert stage.crew.severed == []
        assert stage.crew.trains == ("w0",)

    play(script)
