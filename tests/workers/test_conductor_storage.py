"""What a conductor does while the job's storage fails, or hangs: the history waits, the job does not."""

from __future__ import annotations

import asyncio

import pytest

from tests.workers.stage import Stage, play
from workers import desk, losses, roll


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll, "LOOK_S", 0.01)
    monkeypatch.setattr(roll, "KEEP_S", 0.05)
    monkeypatch.setattr(desk, "ROUND_S", 0.01)
    monkeypatch.setattr(desk, "KEEP_S", 0.05)
    monkeypatch.setattr(desk, "TRIM_S", 0.01)
    monkeypatch.setattr(losses, "BACKOFF_S", 0.01)


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
