"""Whose training hangs: what holds in every situation, and the cases that it was made for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import stalls
from workers.stalls import ALLOWED, FIRST, LEAST_S, RARE, STEPS, Verdict, judge, stall_s
from workers.status import Activity, Doing, Phase, Status

MEMBERS = ("w0", "w1", "w2")


def trains(
    still_s: float = 0.0,
    *,
    waits: bool = False,
    activity: Activity = Activity.STEP,
    generation: int = 1,
    broken: int = 0,
    step_s: float = 0.1,
    phase: Phase = Phase.TRAINING,
) -> Status:
    doing = Doing(activity=activity, waits=waits, still_s=still_s, where="loss (mine.py:1)")
    return Status(
        phase=phase, generation=generation, members=MEMBERS, broken=broken, samples=64, step_s=step_s, doing=doing
    )


def ruling(*statuses: Status, asked: float | None = None, severed: int = 0) -> Verdict:
    return judge(dict(zip(MEMBERS, statuses, strict=False)), asked=asked, severed=severed)


def hung(*statuses: Status, asked: float | None = None, severed: int = 0) -> list[str]:
    return list(ruling(*statuses, asked=asked, severed=severed).hang)


# -- what holds in every situation -------------------------------------------------------------------------------------


Situation = tuple[dict[str, Status], float | None, int]


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Members of two generations at most, and one who warms up."""
    workers = {}
    for name in MEMBERS:
        if draw(st.integers(0, 9)):
            phase = draw(st.sampled_from([Phase.TRAINING, Phase.TRAINING, Phase.JOINING, Phase.READY]))
            activity = Activity.IDLE
            if phase is not Phase.READY:
                activity = draw(st.sampled_from([each for each in Activity if each is not Activity.WARM_UP]))
            workers[name] = trains(
                draw(st.sampled_from([0.0, 9.0, 11.0, 100.0, 1e4])),
                waits=draw(st.booleans()),
                activity=activity,
                generation=draw(st.integers(1, 2)),
                broken=draw(st.integers(0, 2)),
                step_s=draw(st.sampled_from([0.0, 0.1, 3.0])),
                phase=phase,
            )
    workers["w9"] = Status(
        phase=Phase.WARMING, doing=Doing(activity=Activity.WARM_UP, still_s=draw(st.sampled_from([1.0, 599.0, 1e6])))
    )
    return workers, draw(st.sampled_from([None, 10.0, 60.0])), draw(st.integers(0, 2))


def every_situation(test: Callable[[Any], None]) -> Callable[[], None]:
    return settings(deadline=None)(given(situations())(test))


@every_situation
def test_whoever_made_progress_in_its_time_is_left_alone(situation: Situation) -> None:
    workers, asked, severed = situation
    for name in judge(workers, asked=asked, severed=severed).hang:
        status, doing = workers[name], workers[name].doing
        in_vain = doing.waits and status.broken >= status.generation
        allowed = LEAST_S if in_vain else ALLOWED[doing.activity] * stall_s(workers, asked)
        assert doing.still_s > allowed


@every_situation
def test_whoever_waits_in_a_whole_generation_is_left_alone(situation: Situation) -> None:
    workers, asked, severed = situation
    for name in judge(workers, asked=asked, severed=severed).hang:
        status = workers[name]
        leaves = status.doing.activity is Activity.LEAVE or status.broken >= status.generation
        assert leaves or not status.doing.waits


@every_situation
def test_one_of_a_generation_is_given_up_at_a_time(situation: Situation) -> None:
    workers, asked, severed = situation
    given_up = [workers[name] for name in judge(workers, asked=asked, severed=severed).hang]
    generations = [status.generation for status in given_up if status.phase in (Phase.JOINING, Phase.TRAINING)]
    assert len(generations) == len(set(generations))


@every_situation
def test_a_generation_is_stuck_only_if_all_its_members_wait_in_it(situation: Situation) -> None:
    workers, asked, severed = situation
    verdict = judge(workers, asked=asked, severed=severed)
    if verdict.stuck:
        assert verdict.stuck > severed
        assert all(workers[name].generation == verdict.stuck for name in MEMBERS)
        assert all(workers[name].doing.waits and workers[name].doing.still_s > 10 for name in MEMBERS)
        assert not set(verdict.hang) & set(MEMBERS)


@every_situation
def test_time_heals_everything(situation: Situation) -> None:
    """Whatever hangs: when all are overdue and know of every sever, somebody is given up or something is severed."""
    workers, asked, severed = situation
    late = {
        name: replace(status, doing=replace(status.doing, still_s=1e9), broken=max(status.broken, severed))
        for name, status in workers.items()
        if status.phase is not Phase.READY and status.doing.activity is not Activity.IDLE
    }
    in_group = {name: status for name, status in late.items() if status.phase is not Phase.WARMING}
    verdict = judge(late, asked=asked, severed=severed)
    assert "w9" in verdict.hang
    whole = len(in_group) == len(MEMBERS) and len({status.generation for status in in_group.values()}) == 1
    if whole:
        assert verdict.stuck or set(verdict.hang) & set(MEMBERS)


# -- how long ----------------------------------------------------------------------------------------------------------


def test_the_stall_time_is_that_asked_for_or_that_of_steps() -> None:
    assert stall_s({}, None) == LEAST_S
    assert stall_s({}, 77.0) == 77.0
    assert stall_s({"w0": trains(step_s=0.0), "w1": trains(step_s=2.0)}, None) == STEPS * 2.0
    assert stall_s({"w0": trains(step_s=300.0), "w1": trains(step_s=2.0)}, None) == STEPS * 2.0
    assert stall_s({"w0": trains(step_s=2.0)}, 10.0) == 10.0


@pytest.mark.parametrize(
    ("activity", "times"),
    [(Activity.STEP, 1.0), (Activity.FIRST_STEP, FIRST), (Activity.EVALUATE, RARE), (Activity.JOIN, RARE)],
)
def test_what_takes_longer_has_longer(activity: Activity, times: float) -> None:
    for asked, stall in ((None, LEAST_S), (30.0, 30.0)):
        assert hung(trains(0.99 * times * stall, activity=activity), asked=asked) == []
        assert hung(trains(1.01 * times * stall, activity=activity), asked=asked) == ["w0"]


def test_the_first_step_of_all_has_nothing_to_be_compared_with() -> None:
    first = trains(FIRST * LEAST_S + 1, activity=Activity.FIRST_STEP, step_s=0.0)
    assert hung(first) == []
    assert hung(first, trains(step_s=0.1)) == ["w0"]


def test_every_activity_has_its_time() -> None:
    assert set(ALLOWED) == set(Activity)


# -- who ---------------------------------------------------------------------------------------------------------------


def test_the_others_wait_for_the_one_that_hangs() -> None:
    assert ruling(trains(40, waits=True), trains(39), trains(40, waits=True)) == Verdict(
        hang={"w1": "Its training hangs: no progress for 39 s in a step, at loss (mine.py:1)."}
    )


def test_nobody_is_blamed_while_the_lead_evaluates() -> None:
    waits = trains(301, waits=True)
    assert ruling(trains(300, activity=Activity.EVALUATE), waits, waits) == Verdict()


def test_of_several_that_seem_to_compute_the_first_to_stop_is_given_up() -> None:
    assert hung(trains(11), trains(12), trains(11.5)) == ["w1"]


def test_a_joiner_may_wait_for_those_who_train_as_long_as_it_takes() -> None:
    """A deferred grow: they train in the generation before."""
    joiner = trains(1e6, waits=True, activity=Activity.JOIN, generation=2, phase=Phase.JOINING)
    assert ruling(trains(), trains(), joiner) == Verdict()


def test_a_generation_in_which_everybody_waits_is_stuck_once() -> None:
    waiting = trains(11, waits=True)
    assert ruling(waiting, waiting, waiting) == Verdict(stuck=1)
    assert ruling(waiting, waiting, waiting, severed=1) == Verdict()
    assert ruling(waiting, waiting, trains(5, waits=True)) == Verdict()
    assert ruling(waiting, waiting) == Verdict(), "the third is known to be gone: that is enough to sever it"


def test_one_that_does_not_get_out_of_a_severed_generation_is_given_up() -> None:
    """But not for what it was before it heard of it."""
    waits = trains(11, waits=True)
    assert hung(waits, severed=1) == []
    assert hung(replace(waits, broken=1), severed=1) == ["w0"]
    assert hung(trains(11), severed=1) == []
    assert hung(trains(11, broken=1), severed=1) == ["w0"]


@pytest.mark.parametrize("activity", [Activity.FIRST_STEP, Activity.JOIN, Activity.CHECKPOINT])
def test_one_that_waits_in_a_severed_generation_has_no_longer_time_for_that(activity: Activity) -> None:
    """What it waits for will not come; but one that computes has its time."""
    stuck = trains(11, waits=True, activity=activity, broken=1, step_s=60.0)
    assert hung(stuck, severed=1) == ["w0"]
    assert hung(replace(stuck, doing=replace(stuck.doing, waits=False)), severed=1) == []


def test_one_that_cannot_let_go_is_given_up_though_it_seems_to_wait() -> None:
    assert hung(trains(11, waits=True, activity=Activity.LEAVE)) == ["w0"]


def test_idleness_is_no_fault() -> None:
    idle = Status(phase=Phase.READY, doing=Doing(activity=Activity.IDLE, still_s=1e9))
    assert judge({"w0": idle}, asked=10.0, severed=0) == Verdict()


def test_a_warm_up_has_its_time_too() -> None:
    warms = Status(phase=Phase.WARMING, doing=Doing(activity=Activity.WARM_UP, still_s=RARE * LEAST_S + 1))
    assert list(judge({"w0": warms}, asked=None, severed=0).hang) == ["w0"]
    assert stalls.RARE * 10 == 600, "ten minutes, as the API says"
