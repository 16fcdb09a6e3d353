"""The engine that ends all workers at every change of size: the same line of events, the same ledger."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from api_schemas.exchange import Departure
from tests.workers.crew import STEP
from tests.workers.stage import KAPPA, Stage, allocation, now, quicken
from tests.workers.stage import play as on_stage
from tests.workers.troupe import Troupe
from workers import losses
from workers.chronicle import Chronicle
from workers.restarts import Restarts
from workers.spool import Spool
from workers.status import Phase, Status


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


class RestartStage(Stage):
    """The same questions to the other conductor."""

    conductor: Restarts  # type: ignore[assignment]

    def __init__(self, **settings: Any) -> None:
        self.troupe = Troupe()
        super().__init__(**settings)

    def conduct(self, spool: Spool, chronicle: Chronicle) -> Restarts:  # type: ignore[override]
        made = Restarts(self.launch, self.troupe, spool, chronicle, now=now)
        self.troupe.conductor = made
        return made

    def story(self) -> list[str]:
        """Without the checkpoints that all leave by."""
        return [kind for kind in super().story() if kind != "checkpoint_saved"]

    async def trains_on(self, workers: int) -> None:
        """Once a group of so many does, and was told of."""
        await self.until(
            lambda: (
                self.troupe.trains
                and len(self.troupe.groups[-1].members) == workers
                and self.report
                and self.report.workers == workers
                and self.report.generation == self.troupe.groups[-1].generation
                and len(self.told("started") + self.told("resized")) == len(self.troupe.groups)
            ),
            training=False,
        )


play = partial(on_stage, kind=RestartStage)


def test_it_trains_to_the_end() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.troupe.over = True
        assert (await stage.finished())["outcome"] == "succeeded"

    stage = play(script)
    assert stage.troupe.runs == [(1, 2)]
    assert stage.story() == ["started", "exported", "finished"]
    assert stage.told("committed")[-1]["stop"] == stage.troupe.samples


def test_another_size_loses_no_step() -> None:
    async def script(stage: RestartStage) -> None:
        for workers in (2, 3, 1):
            stage.allocation = allocation(workers)
            await stage.trains_on(workers)

    stage = play(script)
    assert stage.troupe.runs == [(1, 2), (1, 3), (1, 1)]
    assert stage.story() == ["started", "resizing", "resized", "resizing", "resized"]
    assert [event["workers"] for event in stage.told("resizing")] == [(2, 3), (3, 1)]
    assert [(event["cause"], event["steps_lost"]) for event in stage.told("resized")] == [("api", 0)] * 2
    assert [plan.members for plan in stage.troupe.groups] == [("w0", "w1"), ("w2", "w3", "w4"), ("w5",)]


def test_other_limits_of_kappa_are_a_new_run_too() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.allocation = allocation(2, kappa=(1.0, 1.5))
        await stage.until(lambda: len(stage.told("resized")) == 1, training=False)

    assert [plan.kappa for plan in play(script).troupe.groups] == [KAPPA, (1.0, 1.5)]


def test_a_deferred_change_waits_for_its_sample() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(1)
        await stage.trains_on(1)
        stage.allocation = allocation(2, not_before=stage.troupe.samples + 20 * STEP)
        await stage.trains_on(2)

    stage = play(script)
    (resized,) = stage.told("resized")
    assert resized["samples"] >= 20 * STEP
    assert stage.story() == ["started", "resizing", "resized"]


def test_a_change_that_is_taken_back_in_time_ends_nobody() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(1)
        await stage.trains_on(1)
        stage.allocation = allocation(2, not_before=10**9)
        await stage.exchange()
        await asyncio.sleep(0.05)
        stage.allocation = allocation(1)
        await stage.exchange()
        await asyncio.sleep(0.05)

    stage = play(script)
    assert stage.story() == ["started"]
    assert len(stage.troupe.runs) == 1


def test_a_death_goes_back_to_the_last_checkpoint() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.allocation = allocation(3)
        await stage.trains_on(3)
        await stage.until(lambda: stage.report and stage.report.samples > stage.troupe.checkpoint, training=False)
        stage.troupe.die(1)
        await stage.until(lambda: len(stage.told("resized")) == 2, training=False)

    stage = play(script)
    assert len(stage.troupe.runs) == 2
    (lost,) = stage.told("rank_lost")
    assert (lost["rank"], lost["reason"]) == (1, "Worker w3 was lost: It was killed.")
    (rollback,) = stage.told("rollback")
    assert rollback["to_samples"] == stage.troupe.checkpoint
    assert stage.told("resized")[-1]["cause"] == "rank_lost"
    assert stage.told("resized")[-1]["samples_lost"] > 0


def test_a_group_of_another_size_that_nobody_asked_for_is_told_as_such() -> None:
    async def script(stage: RestartStage) -> None:
        stage.troupe.room = 1
        stage.allocation = allocation(2)
        await stage.trains_on(1)
        stage.troupe.room = None
        stage.troupe.resize()
        await stage.trains_on(2)

    stage = play(script)
    (resized,) = stage.told("resized")
    assert (resized["cause"], len(stage.troupe.runs)) == ("joined", 1)


def test_a_node_that_is_to_leave_is_left_with_a_checkpoint() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.troupe.node = "there"
        stage.departures = [Departure(node="here", address="10.0.0.1", by=now() + timedelta(hours=1))]
        await stage.until(lambda: len(stage.told("resized")) == 1, training=False)
        await stage.trains_on(2)

    stage = play(script)
    assert stage.story() == ["started", "resizing", "resized"]
    (resized,) = stage.told("resized")
    assert (resized["cause"], resized["workers"], resized["samples_lost"]) == ("drain", (2, 2), 0)
    assert resized["reason"].startswith("Node 10.0.0.1 may be gone by")


def test_nodes_that_go_again_and_again_are_no_reason_to_give_up() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        for number in range(losses.DEATHS + 1):
            begun = len(stage.troupe.groups)
            stage.troupe.die(0, reason=losses.NODE_GONE)
            await stage.until(lambda begun=begun: len(stage.troupe.groups) > begun, training=False)  # type: ignore[misc]
            await stage.until(lambda number=number: len(stage.told("rank_lost")) > number, training=False)  # type: ignore[misc]
        await stage.trains_on(2)

    assert not play(script).told("finished")


def test_what_a_given_up_group_says_is_not_heard() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(1)
        await stage.trains_on(1)
        (old,) = stage.troupe.groups
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        late = Status(phase=Phase.TRAINING, generation=old.generation, members=old.members, samples=10**6)
        assert (await stage.conductor.hear(old.members[0], late)).stale
        await stage.exchange()
        assert stage.report is not None
        assert stage.report.samples < 10**6

    play(script)


def test_a_recipe_that_raises_fails_the_job() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.troupe.fail()
        finished = await stage.finished()
        assert (finished["outcome"], finished["code"]) == ("failed", "recipe_raised")
        assert (finished["traceback"], finished["log_tail"]) == ("Here.", ["last"])

    assert play(script).troupe.killed == 1


@pytest.mark.parametrize("how", ["die", "collapse"])
def test_losses_without_progress_come_to_an_end(how: str) -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        stage.troupe.deaf = True

        def lose() -> bool:
            stage.troupe.die(0) if how == "die" else stage.troupe.collapse()
            return bool(stage.told("finished"))

        await stage.until(lose, training=False)
        finished = await stage.finished()
        assert (finished["outcome"], finished["code"]) == ("failed", "workers_lost")
        assert ("It was killed." if how == "die" else "Ray Train gave up.") in finished["message"]

    play(script)


def test_a_cancel_ends_the_run() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.intent = "cancel"
        assert (await stage.finished())["outcome"] == "cancelled"

    assert play(script).troupe.killed == 1


def test_another_life_of_the_controller_goes_on_from_the_checkpoint() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        await stage.exchange()
        await stage.die()
        stage.begin()
        await stage.until(lambda: len(stage.told("resized")) == 1, training=False)

    stage = play(script)
    (resized,) = stage.told("resized")
    assert (resized["cause"], resized["reason"]) == (
        "rank_lost",
        "The job's controller was lost, and its workers with it.",
    )
    assert stage.troupe.groups[-1].generation > stage.troupe.groups[0].generation
    assert not set(stage.troupe.groups[-1].members) & set(stage.troupe.groups[0].members)


def test_what_another_life_tells_goes_on_behind_what_was_never_stored() -> None:
    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(2)
        await stage.trains_on(2)
        stage.shelf.refused = {"write"}
        heard = len(stage.events)
        await stage.until(lambda: len(stage.events) > heard + 10, training=False)
        await stage.die()
        stage.shelf.refused = set()
        stage.begin()
        await stage.until(lambda: stage.conductor._chronicle.committed > 10 * STEP, training=False, ask=False)
        await stage.until(lambda: len(stage.told("resized")) == 1, training=False)
        stage.troupe.over = True
        await stage.finished()

    stage = play(script)
    assert stage.told("rollback")[0]["to_samples"] == 0
    assert stage.told("committed")[-1]["stop"] == stage.troupe.samples


def test_decide_s_is_from_the_request_to_its_arrival() -> None:
    asked = datetime.fromisoformat("2026-01-01T00:00:00+00:00")

    async def script(stage: RestartStage) -> None:
        stage.allocation = allocation(1)
        await stage.trains_on(1)
        stage.allocation = allocation(2, requested_at=asked)
        await stage.trains_on(2)

    (resized,) = play(script).told("resized")
    assert resized["decide_s"] == pytest.approx((now() - asked).total_seconds(), abs=60)
