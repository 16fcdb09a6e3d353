"""Nodes that are to leave: when it becomes urgent, and how a job gets off them without losing anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from api_schemas.exchange import Departure
from tests.workers.stage import Stage, allocation, now, play, quicken
from workers.departures import HASTE_S, HASTE_TIMES, sentence, urgent
from workers.status import Phase

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quicken(monkeypatch)


def departure(node: str = "here", in_s: float | None = None, at: datetime = NOON) -> Departure:
    return Departure(node=node, address="10.0.0.1", by=None if in_s is None else at + timedelta(seconds=in_s))


def leave(stage: Stage, in_s: float | None = 3600) -> None:
    """`here` is to leave; who starts from now on lives elsewhere."""
    stage.crew.node = "there"
    stage.departures = [departure(in_s=in_s, at=now())]


# -- when and why ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("last_s", [0.0, 1.0, HASTE_S])
def test_it_becomes_urgent_in_time_for_some_steps(last_s: float) -> None:
    haste = max(HASTE_S, HASTE_TIMES * last_s)
    due, not_yet, open_end = departure("a", haste - 1), departure("b", haste + 1), departure("c")
    assert urgent([due, not_yet, open_end], NOON, last_s) == {"a"}


def test_a_deadline_that_has_passed_is_urgent() -> None:
    assert urgent([departure("a", -100)], NOON, 0.0) == {"a"}


def test_the_reason_names_the_node_and_its_time() -> None:
    both = [departure("a", 5), departure("b")]
    assert sentence(both, {"a"}) == "Node 10.0.0.1 may be gone by 12:00:05 UTC."
    assert sentence(both, {"a", "b"}) == "Node 10.0.0.1 may be gone by 12:00:05 UTC, and node 10.0.0.1 is to leave."


# -- a job ---------------------------------------------------------------------------------------------------------


def test_whoever_lives_there_is_replaced_once_another_is_warm() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.node = "there"
        await stage.train(2)
        stage.crew.cold = True
        leave(stage)
        await stage.until(lambda: "w2" in stage.crew.actors)
        trained = stage.crew.samples
        await stage.until(lambda: stage.crew.samples >= trained + 80)
        assert stage.crew.trains == ("w0", "w1")
        stage.crew.warm("w2")
        await stage.until(lambda: len(stage.told("resized")) == 2)
        await stage.until(lambda: "w0" not in stage.crew.actors)

    stage = play(script)
    assert stage.crew.plans[-1].members == ("w1", "w2")
    assert [stage.told("resized")[-1][name] for name in ("cause", "workers")] == ["drain", (2, 2)]
    assert "10.0.0.1 may be gone by" in stage.told("resized")[-1]["reason"]
    assert not stage.told("rank_lost")
    assert not stage.told("rollback")


def test_a_node_that_may_be_gone_at_any_moment_is_left_at_once() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.node = "there"
        await stage.train(2)
        stage.crew.cold = True
        leave(stage, in_s=HASTE_S - 1)
        await stage.until(lambda: stage.crew.trains == ("w1",))
        stage.crew.warm("w2")
        await stage.until(lambda: stage.crew.trains == ("w1", "w2"))
        await stage.until(lambda: len(stage.told("resized")) == 3)

    stage = play(script)
    assert [event["cause"] for event in stage.told("resized")] == ["api", "drain", "joined"]
    assert not stage.told("rank_lost")


def test_the_only_worker_hands_over_and_the_batch_stays_what_it_was() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        leave(stage)
        await stage.until(lambda: stage.crew.trains == ("w1",))
        await stage.until(lambda: len(stage.told("resized")) == 2)

    stage = play(script, workers=(1, 1))
    first, handover, last = stage.crew.plans
    assert [plan.members for plan in stage.crew.plans] == [("w0",), ("w0", "w1"), ("w1",)]
    assert (handover.kappa, first.kappa, last.kappa) == ((1.0, 1.0), stage.allocation.kappa, stage.allocation.kappa)
    assert [event["cause"] for event in stage.told("resized")] == ["drain", "drain"]
    assert not stage.told("rollback")


def test_without_room_elsewhere_the_job_shrinks_off_the_node() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.node = "there"
        await stage.train(3)
        leave(stage)
        await stage.train(1, cause="capacity", reason="The cluster went from 3 to 1 slots.")
        await stage.until(lambda: len(stage.told("resized")) == 2)

    stage = play(script)
    assert stage.crew.plans[-1].members == ("w2",)
    assert (stage.told("resized")[-1]["cause"], stage.told("resized")[-1]["workers"]) == ("drain", (3, 1))


@pytest.mark.parametrize("moves", [False, True], ids=["its controller stays", "its controller is started again"])
def test_with_nobody_elsewhere_all_leave_a_checkpoint_and_the_next_go_on_from_it(moves: bool) -> None:
    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.crew.cold = True
        leave(stage, in_s=HASTE_S + 1)
        await stage.until(lambda: "w3" in stage.crew.actors)
        stage.crew.queued = {"w2", "w3"}  # nowhere is room for them
        for worker in stage.crew.queued:
            stage.crew.actors[worker].node = ""
        assert stage.crew.trains == ("w0", "w1")
        stage.departures = [departure(in_s=HASTE_S - 1, at=now())]
        await stage.until(lambda: not {"w0", "w1"} & stage.crew.actors.keys())
        left_at = stage.crew.checkpoint
        assert left_at > 0
        if moves:
            await stage.until(lambda: stage.told("warning"), training=False)
            await stage.die()
            stage.departures = []
            stage.begin()
        stage.crew.queued = set()
        stage.crew.warm("w2", "w3")
        await stage.until(lambda: stage.crew.trains == ("w2", "w3"))
        await stage.until(lambda: len(stage.told("resized")) == 2)
        assert stage.told("resized")[-1]["samples"] == left_at

    stage = play(script)
    assert [stage.told("resized")[-1][name] for name in ("cause", "samples_lost")] == ["drain", 0]
    assert "10.0.0.1 may be gone by" in stage.told("resized")[-1]["reason"]
    assert not stage.told("rank_lost")
    assert not stage.told("rollback")


def test_the_controller_does_not_go_while_the_job_ends() -> None:
    """Another life would not know of it, and begin anew."""
    stranded: list[bool] = []

    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.departures = [departure("elsewhere")]
        await stage.until(lambda: stage.conductor.is_stranded("elsewhere"))
        stage.crew.before_kill = lambda: stranded.append(stage.conductor.is_stranded("elsewhere"))
        stage.crew.finish()
        await stage.finished()

    play(script)
    assert stranded == [False, False]


def test_the_controller_does_not_go_while_workers_are_on_the_way_to_a_generation() -> None:
    """They meet at a store that it holds."""

    async def script(stage: Stage) -> None:
        await stage.train(2)
        stage.departures = [departure("elsewhere")]
        await stage.until(lambda: stage.conductor.is_stranded("elsewhere"))
        stage.allocation = allocation(3)
        await stage.until(lambda: "w2" in stage.crew.actors and stage.crew.actors["w2"].phase is Phase.JOINING)
        assert not stage.conductor.is_stranded("elsewhere")
        stage.crew.hang("w2")
        await stage.until(lambda: stage.crew.actors["w0"].phase is Phase.JOINING)
        assert not stage.conductor.is_stranded("elsewhere")

    play(script)


def test_it_does_not_wait_for_the_sample_of_a_resize() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.node = "there"
        await stage.train(2)
        at = stage.crew.samples + 10_000
        stage.allocation = allocation(1, not_before=at)
        await stage.until(lambda: len(stage.crew.plans) == 3)
        leave(stage)
        await stage.until(lambda: "w0" not in stage.crew.actors)
        assert stage.crew.samples < at
        await stage.until(lambda: stage.crew.samples > at)
        await stage.until(lambda: len(stage.crew.trains) == 1)
        await stage.until(lambda: stage.told("resized")[-1]["workers"] == (2, 1))

    stage = play(script)
    assert stage.told("resized")[-1]["samples"] >= 10_000
    assert not stage.told("rank_lost")


def test_one_that_warms_up_there_is_let_go() -> None:
    async def script(stage: Stage) -> None:
        await stage.train(1)
        stage.crew.cold, stage.crew.node = True, "there"
        stage.allocation = allocation(2)
        await stage.until(lambda: "w1" in stage.crew.actors)
        await stage.until(lambda: stage.report and stage.report.joining == 1)
        stage.departures = [departure("there", 3600, at=now())]
        stage.crew.node = "elsewhere"
        await stage.until(lambda: "w1" not in stage.crew.actors and "w2" in stage.crew.actors)

    assert not play(script).told("rank_lost")
