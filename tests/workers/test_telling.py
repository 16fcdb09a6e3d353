"""What a worker is told and does not hear, because its connection broke for a moment, it is told again."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from api_schemas.exchange import Departure
from tests.workers.crew import Ensemble
from tests.workers.stage import Stage, allocation, now, play, quicken
from workers import roll
from workers.membership import Plan
from workers.roll import WorkerGone
from workers.status import Phase


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)
    monkeypatch.setattr(roll, "TELL_S", 0.05)


class Interrupted(Ensemble):
    """A crew that loses words: those of `lost` to a worker, the next so many times. It is looked at undisturbed."""

    def __init__(self, *, late: bool) -> None:
        """`late`: that a word is lost is found out when nobody waits for it any more."""
        super().__init__()
        self.lost: dict[tuple[str, str], int] = {}
        self.told: list[tuple[str, str]] = []  # what reached whom
        self._late = late

    async def announce(self, worker: str, plan: Plan) -> None:
        await self._pass("announce", worker)
        await super().announce(worker, plan)

    async def sever(self, worker: str, generation: int) -> None:
        await self._pass("sever", worker)
        await super().sever(worker, generation)

    async def retire(self, worker: str, generation: int) -> None:
        await self._pass("retire", worker)
        await super().retire(worker, generation)

    async def _pass(self, what: str, worker: str) -> None:
        left = self.lost.get((what, worker), 0)
        if left:
            self.lost[what, worker] = left - 1
            await asyncio.sleep(2 * roll.TELL_S if self._late else 0)
            raise WorkerGone("The actor is temporarily unavailable.")
        self.told.append((what, worker))


class Line(Stage):
    """A stage with such a crew."""

    crew: Interrupted

    def __init__(self, *, late: bool) -> None:
        super().__init__(crew=Interrupted(late=late))

    def lose(self, what: str, worker: str, times: int = 1) -> None:
        self.crew.lost[what, worker] = times

    def heard(self, what: str, worker: str) -> int:
        return self.crew.told.count((what, worker))


play_line: Any = partial(play, kind=Line)
in_time_or_late = pytest.mark.parametrize("late", [False, True], ids=["in time", "late"])


@in_time_or_late
@pytest.mark.parametrize("times", [1, 3])
def test_a_generation(late: bool, times: int) -> None:
    """The others wait for it where they meet, and nobody else would end that."""

    async def script(stage: Line) -> None:
        await stage.train(2)
        stage.lose("announce", "w0", times)
        await stage.train(3)

    stage = play_line(script, late=late)
    assert stage.crew.trains == ("w0", "w1", "w2")
    assert [plan.generation for plan in stage.crew.plans] == [1, 2]
    assert stage.heard("announce", "w0") == 2, "and once it has heard it is left in peace"
    assert stage.told("rank_lost") == []


@in_time_or_late
def test_a_generation_that_it_is_to_leave_with(late: bool) -> None:
    async def script(stage: Line) -> None:
        await stage.train(3)
        stage.lose("announce", "w2")
        await stage.train(2)
        await stage.until(lambda: "w2" not in stage.crew.actors)

    assert play_line(script, late=late).told("rank_lost") == []


@in_time_or_late
def test_that_its_generation_is_broken(late: bool) -> None:
    """It waits in that for one that is gone."""

    async def script(stage: Line) -> None:
        await stage.train(3)
        stage.crew.actors["w2"].deaf = True
        stage.lose("sever", "w2", 2)
        stage.crew.die("w1")
        await stage.until(lambda: stage.crew.trains[:2] == ("w0", "w2"))

    stage = play_line(script, late=late)
    assert stage.crew.severed == [1]
    assert len(stage.told("rank_lost")) == 1


@in_time_or_late
def test_that_the_job_pauses(late: bool) -> None:
    async def script(stage: Line) -> None:
        await stage.train(1)
        await stage.until(lambda: stage.heard_of > 0)
        stage.lose("retire", "w0", 2)
        stage.intent = "pause"
        assert (await stage.finished())["code"] == "paused"

    stage = play_line(script, late=late)
    assert stage.heard_of == stage.crew.checkpoint > 0
    assert stage.heard("retire", "w0") == 1


@in_time_or_late
def test_that_its_node_is_left(late: bool) -> None:
    async def script(stage: Line) -> None:
        await stage.train(1)
        stage.crew.node, stage.crew.cold = "there", True
        stage.lose("retire", "w0", 2)
        stage.departures = [Departure(node="here", address="10.0.0.1", by=now() + timedelta(seconds=1))]
        await stage.until(lambda: stage.told("checkpoint_saved"))

    assert play_line(script, late=late).told("rank_lost") == []


def test_that_the_job_pauses_in_another_life_of_the_controller() -> None:
    """One that died before it was heard, and had noted that it said so."""

    async def script(stage: Line) -> None:
        await stage.train(1)
        await stage.until(lambda: stage.heard_of > 0)
        stage.lose("retire", "w0", 10**6)
        stage.intent = "pause"
        retired = lambda: stage.conductor._chronicle.retired  # noqa: E731
        await stage.until(retired)
        await stage.settle()
        await stage.die()
        stage.crew.lost.clear()
        stage.begin()
        assert stage.conductor._chronicle.retired == 1
        assert (await stage.finished())["code"] == "paused"

    assert play_line(script, late=False).heard_of > 0


def test_one_that_got_out_of_its_generation_is_not_told_again_to_end() -> None:
    """It would end by itself, without the checkpoint that the next generation leaves."""

    async def script(stage: Line) -> None:
        await stage.train(2)
        await stage.until(lambda: stage.heard_of > 0)
        for worker in ("w0", "w1"):
            stage.lose("retire", worker)
        stage.allocation, stage.intent = allocation(2), "pause"
        await stage.until(lambda: not any(stage.crew.lost.values()), training=False)
        stage.crew.die("w1")
        assert stage.crew.actors["w0"].phase is not Phase.LEFT
        assert (await stage.finished())["code"] == "paused"

    stage = play_line(script, late=True)
    assert stage.heard_of == stage.crew.checkpoint > 0
    assert [plan.members for plan in stage.crew.plans] == [("w0", "w1"), ("w0",)]


def test_one_that_is_gone_is_told_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sever = Interrupted.sever

    async def counted(self: Interrupted, worker: str, generation: int) -> None:
        calls.append(worker)
        await sever(self, worker, generation)

    monkeypatch.setattr(Interrupted, "sever", counted)

    async def script(stage: Line) -> None:
        await stage.train(3)
        stage.lose("sever", "w2", 10**6)
        stage.crew.actors["w2"].deaf = True
        stage.crew.die("w1")
        await stage.until(lambda: calls.count("w2") > 2)
        stage.crew.die("w2")
        await stage.until(lambda: "w2" not in stage.conductor._roll.workers)
        before = calls.count("w2")
        await asyncio.sleep(5 * roll.LOOK_S)
        assert calls.count("w2") == before

    play_line(script, late=False)
