"""What is read for all who ask at once: nobody hears of a state older than his question, nobody waits for another."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial

import pytest

from api_schemas.errors import NotFound, Unavailable
from service import jobs
from service.db import Database
from service.reads import Reads
from tests.service.scene import Scene, play
from tests.service.world import Clock


class Gate:
    """Holds reads up, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[str]] = []
        self.open = threading.Event()
        self.failing = False
        read = jobs.revisions

        def held(database: Database, job_ids: Sequence[str]) -> dict[str, int]:
            self.asked.append(sorted(job_ids))
            found = read(database, job_ids)
            assert self.open.wait(10)
            if self.failing:
                raise Unavailable("away")
            return found

        monkeypatch.setattr(jobs, "revisions", held)

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(10):
            while len(self.asked) < times:
                await asyncio.sleep(0.001)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def scene(database: Database, clock: Clock) -> Scene:
    scene = Scene(database, clock)
    for job in ("a", "b"):
        scene.submit(job)
    return scene


def test_who_asks_during_a_read_hears_what_was_written_since(scene: Scene, gate: Gate) -> None:
    async def script() -> None:
        revisions = Reads(partial(jobs.revisions, scene.database))
        early = asyncio.create_task(revisions.of("a"))
        await gate.until_asked(1)
        await asyncio.to_thread(jobs.cancel, scene.database, "a")
        late = [asyncio.create_task(revisions.of(job)) for job in ("a", "a", "b")]
        await asyncio.sleep(0)
        gate.open.set()
        assert await early == 1
        assert [await each for each in late] == [scene.job("a").revision] * 2 + [1]
        assert scene.job("a").revision > 1
        assert gate.asked == [["a"], ["a", "b"]]

    play(script())


def test_who_leaves_takes_nothing_from_the_others(scene: Scene, gate: Gate) -> None:
    async def script() -> None:
        revisions = Reads(partial(jobs.revisions, scene.database))
        leaving, staying = (asyncio.create_task(revisions.of("a")) for _ in range(2))
        await gate.until_asked(1)
        leaving.cancel()
        gate.open.set()
        assert await staying == 1
        with pytest.raises(asyncio.CancelledError):
            await leaving

    play(script())


def test_a_failed_read_is_the_trouble_of_those_who_asked_and_of_nobody_later(scene: Scene, gate: Gate) -> None:
    async def script() -> None:
        revisions = Reads(partial(jobs.revisions, scene.database))
        gate.failing = True
        gate.open.set()
        found = await asyncio.gather(revisions.of("a"), revisions.of("b"), return_exceptions=True)
        assert [type(each) for each in found] == [Unavailable, Unavailable]
        gate.failing = False
        assert await revisions.of("a") == 1

    play(script())


def test_a_job_that_is_not_there(scene: Scene, gate: Gate) -> None:
    async def script() -> None:
        gate.open.set()
        revisions = Reads(partial(jobs.revisions, scene.database))
        found = await asyncio.gather(revisions.of("nobody"), revisions.of("a"), return_exceptions=True)
        assert (type(found[0]), found[1]) == (NotFound, 1)

    play(script())
