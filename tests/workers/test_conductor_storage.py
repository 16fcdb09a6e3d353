"""What a conductor does while the job's storage fails, or hangs: the history waits, the job does not."""

from __future__ import annotations

import asyncio

import pytest

from api_schemas.exchange import Departure
from tests.workers.crew import STEP, until
from tests.workers.stage import Stage, allocation, now, play, quicken
from workers import desk, roll


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)
    monkeypatch.setattr(roll, "KEEP_S", 0.05)
    monkeypatch.setattr(desk, "KEEP_S", 0.05)
    monkeypatch.setattr(desk, "TRIM_S", 0.01)


def test_storage_that_fails_does_not_silence_the_job() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.shelf.refused = {"write", "delete"}
        await stage.train(3)
        stage.crew.finish()
        await stage.finished()

    assert play(script).events[-1]["outcome"] == "succeeded"


def test_storage_that_hangs_holds_up_neither_resizes_nor_recoveries() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.shelf.open.clear()
        await stage.train(3)
        stage.crew.die("w1")
        await stage.until(lambda: "w3" in stage.crew.trains)
        assert stage.told("rank_lost") == [], "nothing is given out that is not durable"
        stage.shelf.open.set()
        await stage.until(lambda: len(stage.told("resized")) == 3)

    stage = play(script)
    assert len(stage.told("rank_lost")) == 1


def test_storage_that_hangs_does_not_hold_up_the_answers() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        await stage.settle()
        stage.shelf.open.clear()
        for _ in range(20):  # more than there are threads for
            stage.crew.step()
            await asyncio.wait_for(stage.exchange(wait_s=0.02), 5.0)
        stage.shelf.open.set()
        await stage.settle()

    play(script)


def test_the_workers_of_a_job_that_ends_are_not_kept_for_storage_that_hangs() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.shelf.open.clear()
        stage.intent = "cancel"
        await stage.until(lambda: not stage.crew.trains)
        assert not (await stage.exchange()).done, "it has not said yet how it ended"
        stage.shelf.open.set()
        await stage.finished()

    stage = play(script)
    assert stage.events[-1]["outcome"] == "cancelled"
    assert stage.story().count("finished") == 1


@pytest.mark.parametrize("broken", range(3))
def test_a_write_that_cannot_be_fails_the_job_or_comes_too_late_for_that(broken: int) -> None:
    """Once, at each of its first writes: not for want of storage, which is tried again."""

    async def script(stage: Stage) -> None:
        stage.shelf.breaks_at = broken
        stage.allocation = allocation(2)
        await stage.until(lambda: len(stage.crew.trains) == 2 or (stage.report and stage.report.done))
        stage.crew.finish()
        await stage.finished()
        assert stage.shelf.breaks_at < 0, "it came to that"

    stage = play(script)
    end = stage.events[-1]
    assert stage.story().count("finished") == 1
    assert end["outcome"] in ("failed", "succeeded")
    assert end["outcome"] == "succeeded" or "cannot be written" in end["message"]
    assert stage.crew.killed == stage.crew.started


async def outage(stage: Stage) -> None:
    """The service has events that are not in the storage; then the controller is lost, and the storage is back."""
    await stage.train(2)
    await stage.settle()
    stage.shelf.refused = {"write"}
    heard = stage.heard_of
    await stage.until(lambda: stage.heard_of > heard + 20 * STEP)
    await stage.settle()
    await stage.die()
    stage.shelf.refused = set()


async def end_unasked(stage: Stage) -> None:
    """The controller is there again, and its job comes to its end, before the service has asked."""
    stage.begin()
    await until(lambda: stage.conductor._roll.workers)
    stage.crew.finish()
    await stage.task_done()


@pytest.mark.parametrize("steps", [3, 60], ids=["fewer events than the service has", "more"])
def test_what_another_life_says_before_it_is_asked_goes_on_behind_what_was_never_stored(steps: int) -> None:
    async def script(stage: Stage) -> None:
        await outage(stage)
        stage.begin()
        for _ in range(steps):
            said = stage.conductor._chronicle.committed
            stage.crew.step()
            await until(lambda said=said: stage.conductor._chronicle.committed > said)  # type: ignore[misc]
        await stage.settle()

    assert play(script).story() == ["started"]  # and `play` looks at the line


def test_an_end_that_came_before_another_life_was_asked_is_told() -> None:
    async def script(stage: Stage) -> None:
        await outage(stage)
        await end_unasked(stage)
        had = stage.acked
        await stage.exchange()
        assert not stage.conductor.is_over(had)
        await stage.finished()

    assert play(script).story() == ["started", "exported", "finished"]


def test_a_first_question_may_come_while_the_end_is_written() -> None:
    async def script(stage: Stage) -> None:
        await outage(stage)
        write, asked = stage.shelf.write, list[str]()
        loop = asyncio.get_running_loop()

        def ask_meanwhile(key: str, data: bytes) -> None:
            if b'"finished", "outcome"' in data and not asked:
                asked.append(key)
                asyncio.run_coroutine_threadsafe(stage.exchange(), loop).result(10)
            write(key, data)

        stage.shelf.write = ask_meanwhile  # type: ignore[method-assign]
        await end_unasked(stage)
        assert asked
        await stage.finished()

    assert play(script).story() == ["started", "exported", "finished"]


def test_what_was_said_before_the_first_question_outlives_that_life_too() -> None:
    async def script(stage: Stage) -> None:
        await outage(stage)
        await end_unasked(stage)
        for _ in range(2):
            await stage.die()
            stage.crew.actors.clear()
            stage.begin()
        await stage.finished()

    assert play(script).story() == ["started", "exported", "finished"]


def test_a_controller_does_not_move_while_another_life_would_not_find_what_it_gave_out() -> None:
    async def script(stage: Stage) -> None:
        stage.crew.node = "elsewhere"
        await stage.train(2)
        await stage.settle()
        stage.departures = [Departure(node="here", address="10.0.0.1", by=now())]
        await stage.exchange()
        assert stage.conductor.is_stranded("here")
        stage.shelf.refused = {"write"}
        stage.crew.step()
        await stage.settle()
        assert not stage.conductor.is_stranded("here")
        stage.shelf.refused = set()
        stage.crew.step()
        await stage.settle()
        assert stage.conductor.is_stranded("here")

    play(script)
