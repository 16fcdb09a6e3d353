"""What every job is told, and the cause that its history will show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.allocator import Room
from service.decisions import Decision, Situation, Standing, decide, shortage
from service.tables import PendingResize

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def standing(job: str, **changes: Any) -> Standing:
    times = {"arrived": at(0), "since": at(0), "changed": at(0)}
    fields = {"priority": 0, "started": True, "minimum": 1, "maximum": 8} | times
    return Standing(id=job, name=f"the {job}", **{**fields, "kappa": (1, 8), **changes})


def situation(seconds: float, *jobs: Standing, cpus: tuple[float, ...] = (4,)) -> Situation:
    rooms = tuple(Room(node=f"node-{index}", cpu=cpu) for index, cpu in enumerate(cpus))
    return Situation(at=at(seconds), jobs={job.id: job for job in jobs}, rooms=rooms)


def decided(*situations: Situation) -> Decision:
    """The decision on the last one, each resting on the one before."""
    decision = None
    for each in situations:
        decision = decide(each, decision, "priority")
    assert decision is not None
    return decision


def told(decision: Decision, job: str = "a") -> tuple[int, str, datetime]:
    allocation = decision.allocations[job]
    return allocation.workers, allocation.cause, allocation.requested_at


def test_a_job_starts_with_what_it_may_have() -> None:
    decision = decided(situation(5, standing("a", started=False, since=at(3))))
    assert told(decision) == (4, "start", at(3))
    assert decision.waiting() == []


def test_a_job_without_room_waits_in_the_order_of_the_queue() -> None:
    large = {"started": False, "minimum": 9, "maximum": 9}
    jobs = [standing("a", **large), standing("b", **large, priority=1), standing("c", **large, arrived=at(-1))]
    decision = decided(situation(0, *jobs))
    assert [job.id for job in decision.waiting()] == ["b", "c", "a"]
    assert decision.allocations == {}


def test_what_does_not_change_is_told_in_the_same_words() -> None:
    first = decided(situation(0, standing("a", started=False)))
    second = decide(situation(9, standing("a", workers=4, changed=at(8))), first, "priority")
    assert second.allocations == first.allocations


def test_a_requested_size() -> None:
    decision = decided(situation(0, standing("a")), situation(9, standing("a", target=2, target_at=at(8))))
    assert told(decision) == (2, "api", at(8))
    assert decision.allocations["a"].reason == "2 workers requested."


def test_a_requested_size_that_is_taken_back() -> None:
    small = situation(0, standing("a", target=2, target_at=at(0), workers=2))
    decision = decided(small, situation(9, standing("a", target_at=at(8), workers=2)))
    assert told(decision) == (4, "api", at(8))
    assert decision.allocations["a"].reason == "What was asked for was taken back."
    again = decide(situation(20, standing("a", target_at=at(8), workers=4)), decision, "priority")
    assert again.allocations == decision.allocations


def test_changed_limits() -> None:
    decision = decided(situation(0, standing("a")), situation(9, standing("a", maximum=3, changed=at(8))))
    assert told(decision) == (3, "patch", at(8))
    decision = decided(situation(0, standing("a")), situation(9, standing("a", kappa=(1, 2), changed=at(8))))
    assert told(decision) == (4, "patch", at(8))
    assert decision.allocations["a"].kappa == (1, 2)


def test_another_cluster() -> None:
    decision = decided(situation(0, standing("a")), situation(9, standing("a"), cpus=(4, 2)))
    assert told(decision) == (6, "capacity", at(9))
    assert decision.allocations["a"].reason == "The cluster went from 4 to 6 slots."


def test_another_job_comes_and_ends() -> None:
    alone = situation(0, standing("a"))
    shared = situation(9, standing("a"), standing("b", priority=5, maximum=2, arrived=at(8), started=False))
    going_on = situation(20, standing("a"), standing("b", priority=5, maximum=2, arrived=at(8)))
    decision = decided(alone, shared)
    assert told(decision) == (2, "allocator", at(8))
    assert decision.allocations["a"].reason == "the b (priority 5) starts with 2 workers."
    assert decided(alone, shared, going_on).allocations == decision.allocations
    decision = decided(alone, shared, going_on, situation(30, standing("a")))
    assert told(decision) == (4, "allocator", at(30))
    assert decision.allocations["a"].reason == "the b gave 2 workers back."


def test_a_job_that_waited_starts_when_another_gives_way() -> None:
    before = situation(0, standing("a", minimum=4), standing("b", started=False))
    decision = decided(before, situation(9, standing("a", minimum=4, target=4, target_at=at(1)), standing("b")))
    assert told(decision)[:2] == (4, "start")
    decision = decided(before, situation(9, standing("b", started=False, since=at(-5))))
    assert told(decision, "b") == (4, "start", at(-5))


def test_a_resize_that_waits_for_its_sample_keeps_its_room() -> None:
    pending = PendingResize(workers=3, at_samples=500, requested_at=at(1))
    small = standing("a", target=1, target_at=at(0), pending=pending, workers=1)
    other = standing("b", priority=-1, started=False)
    decision = decided(situation(2, small, other))
    assert (decision.allocations["a"].workers, decision.allocations["a"].not_before) == (3, 500)
    assert told(decision) == (3, "api", at(1))
    assert decision.allocations["b"].workers == 1


def test_a_resize_that_waits_is_sent_once_the_present_size_is_reached() -> None:
    pending = PendingResize(workers=3, at_samples=500, requested_at=at(1))
    shrinking = standing("a", target=1, target_at=at(0), pending=pending, workers=2)
    assert decided(situation(2, shrinking)).allocations["a"].not_before is None
    assert decided(situation(2, shrinking)).allocations["a"].workers == 1


def test_a_pending_shrink_gives_nothing_away_yet() -> None:
    pending = PendingResize(workers=1, at_samples=500, requested_at=at(1))
    decision = decided(
        situation(2, standing("a", pending=pending, workers=4), standing("b", priority=-1, started=False))
    )
    assert decision.allocations["a"].not_before == 500
    assert [job.id for job in decision.waiting()] == ["b"]


def test_a_running_job_without_room_keeps_asking_for_its_minimum() -> None:
    decision = decided(situation(0, standing("a", minimum=3)), situation(9, standing("a", minimum=3), cpus=(2,)))
    assert told(decision) == (3, "capacity", at(9))
    assert decision.grants["a"].workers == 0
    assert decision.waiting() == []


def test_after_a_restart_running_jobs_keep_their_sizes() -> None:
    decision = decided(situation(0, standing("a", workers=2), standing("b", workers=3, arrived=at(1)), cpus=(5,)))
    assert [decision.allocations[job].workers for job in "ab"] == [2, 3]


def short(decision: Decision, job: str = "a") -> str | None:
    return shortage(decision.situation.jobs[job], decision.grants[job])


def test_a_job_that_runs_short_says_of_what_and_why() -> None:
    other = standing("b", workers=2)
    asked = standing("a", target=5, target_at=at(0), workers=2)
    assert short(decided(situation(0, asked, other))) == (
        "Trains on 2 of the 5 workers asked for: the cluster is shared with the b."
    )
    assert short(decided(situation(0, standing("a", workers=4)))) == (
        "Trains on 4 of the 8 workers it may have: the cluster has room for no more."
    )
    assert short(decided(situation(0, standing("a", minimum=3, workers=2), cpus=(2,)))) == (
        "Trains on 2 of the 8 workers it may have. Needs 3 workers of 1 CPU; the cluster has 2 slots."
    )


def test_a_job_that_has_what_it_may_or_waits_for_workers_that_were_granted_is_not_short() -> None:
    assert short(decided(situation(0, standing("a", target=2, target_at=at(0), workers=2)))) is None
    assert short(decided(situation(0, standing("a", workers=2)))) is None, "two more are on their way"


def test_room_that_is_kept_for_later_makes_nobody_short() -> None:
    pending = PendingResize(workers=6, at_samples=500, requested_at=at(1))
    waits = standing("a", target=2, target_at=at(0), pending=pending, workers=2)
    assert short(decided(situation(0, waits))) is None


@given(st.integers(1, 3), st.integers(0, 9), st.none() | st.integers(1, 9), st.integers(0, 9), st.integers(0, 3))
def test_short_is_who_has_all_that_was_granted_and_may_have_more(
    minimum: int, workers: int, target: int | None, cpus: int, others: int
) -> None:
    job = standing("a", minimum=minimum, workers=workers, target=target, target_at=None if target is None else at(0))
    rest = [standing(f"b{number}", workers=1) for number in range(others)]
    decision = decided(situation(0, job, *rest, cpus=(cpus,)))
    granted = decision.grants["a"].workers
    sentence = short(decision)
    assert (sentence is not None) == (workers < job.limit and granted in (0, workers))
    assert sentence is None or sentence.startswith(f"Trains on {workers} of the {job.limit} workers ")
    settled = decide(decision.situation, decision, "priority")
    assert shortage(job, settled.grants["a"]) == sentence
