"""The roll: everybody is looked at, the silent are given up, and whoever goes is really ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.workers.crew import Ensemble, until
from workers import roll, stalls
from workers.membership import Plan
from workers.roll import Roll
from workers.status import Phase, Status


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll, "LOOK_S", 0.01)


class Office:
    """A roll over an ensemble, and what it said."""

    def __init__(self, crew: Ensemble | None = None, stall_s: float | None = None) -> None:
        self.crew = crew or Ensemble()
        self.statuses: list[tuple[str, Status]] = []
        self.losses: list[tuple[str, str]] = []
        self.heard: dict[str, int] = {}
        self.deaf = False  # what is told is not durable
        self.roll = Roll(
            self.crew,
            cursors=lambda worker: (self.heard.get(worker, 0), 0),
            on_status=self._hear,
            is_kept=lambda *_: not self.deaf,
            on_loss=lambda worker, reason: self.losses.append((worker, reason)),
            stall_s=stall_s,
        )

    def _hear(self, worker: str, status: Status) -> None:
        self.statuses.append((worker, status))
        if status.records:
            self.heard[worker] = status.records[-1][0]

    def phases(self) -> dict[str, Phase]:
        return {worker: status.phase for worker, status in self.roll.workers.items()}

    async def begin(self, *workers: str) -> None:
        for worker in workers:
            await self.roll.start(worker)
        await until(lambda: all(phase is Phase.READY for phase in self.phases().values()))

    async def train(self, *members: str, generation: int = 1) -> None:
        await self.roll.announce(plan(*members, generation=generation))
        await until(lambda: all(self.phases().get(member) is Phase.TRAINING for member in members))


def plan(*members: str, generation: int = 1) -> Plan:
    return Plan(
        generation=generation,
        members=members,
        host="",
        port=0,
        not_before=0,
        kappa=(1, 8),
        cause="",
        reason="",
        decide_s=0,
    )


Script = Callable[[Office], Awaitable[None]]


def play(script: Script, *, stall_s: float | None = None) -> Office:
    async def run() -> Office:
        office = Office(stall_s=stall_s)
        await script(office)
        return office

    return asyncio.run(run())


def test_one_that_has_not_answered_counts_as_warming() -> None:
    async def script(office: Office) -> None:
        office.crew.cold = True
        await office.roll.start("w0")
        assert office.phases() == {"w0": Phase.WARMING}
        office.crew.warm("w0")
        await until(lambda: office.phases() == {"w0": Phase.READY})
        assert office.roll.news.is_set()

    play(script)


def test_everybody_trains_and_every_record_is_heard_once() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0", "w1")
        office.crew.step()
        await until(lambda: office.roll.workers["w1"].samples == 8)

    office = play(script)
    records = [record for _, status in office.statuses for record in status.records]
    assert [(number, record["type"]) for number, record in records] == [(1, "entered")]
    assert office.losses == []


def test_progress_is_seen_without_news() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0")
        await office.train("w0")
        await until(lambda: office.roll.workers["w0"].version == office.crew.actors["w0"].version)
        office.roll.news.clear()
        office.crew.step()
        await until(lambda: office.roll.workers["w0"].samples == 8)
        assert not office.roll.news.is_set()

    play(script)


def test_one_that_dies_is_lost_and_told_of_once() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.roll.news.clear()
        office.crew.die("w1", end="Its node is gone.")
        await until(lambda: office.losses)
        assert list(office.roll.workers) == ["w0"]
        assert office.roll.news.is_set()

    assert play(script).losses == [("w1", "Its node is gone.")]


def test_one_that_does_not_answer_is_given_up_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 0.25)

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.hang("w1")
        await until(lambda: office.crew.killed)
        assert list(office.roll.workers) == ["w0"]

    office = play(script)
    assert office.losses == [("w1", "It has not answered for 0.25 s.")]
    assert office.crew.killed == ["w1"]


def test_one_who_stood_still_itself_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a controller whose machine was stopped for a while."""
    monkeypatch.setattr(stalls, "LEAST_S", 0.25)
    monkeypatch.setattr(roll, "LATE_S", 0.1)

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        for _ in range(3):
            time.sleep(1)  # not a word is heard
            await asyncio.sleep(0.1)
        assert list(office.roll.workers) == ["w0", "w1"]
        office.crew.hang("w1")
        await until(lambda: office.losses)

    assert play(script).losses == [("w1", "It has not answered for 0.25 s.")]


def test_long_steps_allow_long_silence_and_a_limit_of_the_jobs_own_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 0.05)
    monkeypatch.setattr(stalls, "STEPS", 100)

    async def script(office: Office) -> None:
        await office.begin("w0")
        office.crew.actors["w0"].step_s = 0.004
        await until(lambda: office.roll.workers["w0"].step_s > 0)
        office.crew.hang("w0")
        await until(lambda: office.losses)

    assert play(script).losses == [("w0", "It has not answered for 0.4 s.")]
    assert play(script, stall_s=0.1).losses == [("w0", "It has not answered for 0.1 s.")]


def test_one_that_answers_with_an_error_is_given_up_like_a_silent_one() -> None:
    """Nobody would look at it again, and everybody would wait for it."""

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.actors["w1"].raises = IndexError("pop from an empty deque")
        await until(lambda: office.crew.killed)
        assert list(office.roll.workers) == ["w0"]

    assert play(script).losses == [("w1", "It answered with IndexError: pop from an empty deque")]


def test_one_that_starts_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may wait for resources, longer than anybody who lives may be silent."""
    monkeypatch.setattr(stalls, "LEAST_S", 0.0)

    async def script(office: Office) -> None:
        living = asyncio.Event()
        poll = office.crew.poll

        async def later(worker: str, **cursors: Any) -> Status:
            await living.wait()
            monkeypatch.setattr(stalls, "LEAST_S", 5.0)
            return await poll(worker, **cursors)

        monkeypatch.setattr(office.crew, "poll", later)
        await office.roll.start("w0")
        await asyncio.sleep(0.05)
        assert office.losses == []
        living.set()
        await until(lambda: office.phases() == {"w0": Phase.READY})

    play(script)


def test_a_dismissed_worker_is_gone_at_once_killed_and_not_lost() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.roll.dismiss("w1")
        assert list(office.roll.workers) == ["w0"]
        await office.roll.dismiss_all()
        await asyncio.sleep(0.05)
        assert office.roll.workers == {}

    office = play(script)
    assert office.crew.killed == ["w1", "w0"]
    assert office.losses == []


@pytest.mark.parametrize("turns", range(4))
def test_one_that_is_dismissed_while_its_answer_arrives_does_not_come_back(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script(office: Office) -> None:
        await office.begin("w0")
        loop, poll = asyncio.get_running_loop(), office.crew.poll

        def dismiss(after: int) -> None:
            if after:
                loop.call_soon(dismiss, after - 1)
            else:
                tasks.append(asyncio.create_task(office.roll.dismiss("w0")))

        async def answer(worker: str, **cursors: Any) -> Status:
            monkeypatch.setattr(office.crew, "poll", poll)
            status = await poll(worker, **cursors)
            dismiss(turns)
            return status

        tasks: list[asyncio.Task[None]] = []
        monkeypatch.setattr(office.crew, "poll", answer)
        await until(lambda: office.crew.killed)
        await asyncio.sleep(0.03)
        assert office.roll.workers == {}

    assert play(script).losses == []


def test_one_that_left_is_really_killed() -> None:
    """By its own watch, which must not cancel itself before the kill."""

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0", "w1")
        await office.roll.announce(plan("w0", generation=2))
        office.crew.step()
        await until(lambda: office.crew.killed)
        assert list(office.roll.workers) == ["w0"]

    office = play(script)
    assert office.crew.killed == ["w1"]
    assert office.losses == []
    assert ("w1", Phase.LEFT) in [(worker, status.phase) for worker, status in office.statuses]


def test_one_that_has_left_is_not_lost() -> None:
    """It lives on until what it told is durable, and is on the roll no longer."""

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0", "w1")
        office.deaf = True
        office.crew.actors["w1"].record("left")
        await office.roll.announce(plan("w0", generation=2))
        office.crew.step()
        await until(lambda: "w1" not in office.roll.workers)
        await office.roll.give_up("w1", "It answers with an error.")
        assert office.crew.killed == []
        office.deaf = False
        await until(lambda: office.crew.killed == ["w1"])

    assert play(script).losses == []


def test_those_who_are_warm_are_told_and_nobody_else() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0")
        office.crew.cold = True
        await office.roll.start("w1")
        await office.train("w0")
        assert office.crew.actors["w1"].next is None
        await office.roll.sever(1)
        assert (office.crew.actors["w0"].broken, office.crew.actors["w1"].broken) == (1, 0)

    play(script)


def test_one_that_got_warm_while_a_plan_was_made_without_it_stays_for_the_next() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0")
        assert office.crew.actors["w1"].phase is Phase.READY
        await office.roll.announce(plan("w0", "w1", generation=2))
        office.crew.step()
        await until(lambda: office.phases() == {"w0": Phase.TRAINING, "w1": Phase.TRAINING})

    play(script)


def test_an_adopted_one_that_a_plan_leaves_out_is_told() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0", "w1")
        heir = Office(office.crew)
        await heir.roll.adopt()
        await heir.roll.announce(plan("w0", generation=2))
        office.crew.step()
        await until(lambda: list(heir.roll.workers) == ["w0"])

    play(script)


def test_neither_the_dead_nor_the_silent_hold_up_an_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roll, "TELL_S", 0.05)

    async def script(office: Office) -> None:
        await office.begin("w0", "w1", "w2")
        office.crew.hang("w0")
        office.crew.actors["w1"].end = "The process ended."
        await office.roll.announce(plan("w2"))
        await until(lambda: office.phases().get("w2") is Phase.TRAINING)

    play(script)


@pytest.mark.parametrize("what", ["announce", "sever"])
def test_one_that_cannot_do_as_it_is_told_is_given_up(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")

        async def told(worker: str, *arguments: Any) -> None:
            if worker == "w0":
                raise OSError("too many open files")
            await tell(worker, *arguments)

        tell = getattr(office.crew, what)
        monkeypatch.setattr(office.crew, what, told)
        await (office.roll.announce(plan("w0", "w1")) if what == "announce" else office.roll.sever(1))
        assert list(office.roll.workers) == ["w1"]

    office = play(script)
    assert office.losses == [("w0", "It answered with OSError: too many open files")]
    assert office.crew.killed == ["w0"]


def test_one_that_is_lost_already_need_not_be_given_up() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.actors["w1"].end = "The process ended."
        await until(lambda: office.losses)
        await office.roll.give_up("w1", "It hangs.")

    assert play(script).losses == [("w1", "The process ended.")]


# -- another life ------------------------------------------------------------------------------------------------------


def test_those_who_live_are_adopted_with_what_they_have_to_say() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        await office.train("w0", "w1")
        heir = Office(office.crew)
        await heir.roll.adopt()
        assert heir.phases() == {"w0": Phase.TRAINING, "w1": Phase.TRAINING}
        assert [status.generation for status in heir.roll.workers.values()] == [1, 1]

    play(script)


def test_a_dead_one_among_the_adopted_is_lost() -> None:
    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.actors["w0"].end = "The process ended."
        heir = Office(office.crew)
        await heir.roll.adopt()
        assert list(heir.roll.workers) == ["w1"]
        assert heir.losses == [("w0", "The process ended.")]

    play(script)


def test_a_silent_one_among_the_adopted_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 0.25)

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.hang("w0")
        heir = Office(office.crew)
        async with asyncio.timeout(5):
            await heir.roll.adopt()
        assert list(heir.roll.workers) == ["w1"]
        assert [worker for worker, _ in heir.losses] == ["w0"]

    play(script)


def test_an_adopted_one_that_waits_for_resources_holds_up_nobody_and_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stalls, "LEAST_S", 0.05)

    async def script(office: Office) -> None:
        await office.begin("w0", "w1")
        office.crew.hang("w1")
        office.crew.queued = {"w1"}
        heir = Office(office.crew)
        async with asyncio.timeout(5):
            await heir.roll.adopt()
        await asyncio.sleep(0.2)
        assert heir.phases() == {"w0": Phase.READY, "w1": Phase.WARMING}
        assert not heir.losses

    play(script)
