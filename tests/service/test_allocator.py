"""The allocation policies: what holds for every one of them, and what `priority` promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.allocator import POLICIES, Demand, Grant, Room, allocate, slots

START = datetime(2026, 1, 1, tzinfo=UTC)
SHAPES = [(0.5, 0.0), (1.0, 0.0), (2.0, 0.0), (4.0, 0.0)]  # each divides the next: packing is exact
ODD_SHAPES = [*SHAPES, (3.0, 0.0), (0.3, 0.0), (1.0, 1.0), (3.0, 1.0), (0.0, 1.0)]


def demand(job: str, **changes: object) -> Demand:
    """A job that may have 1 to 8 workers of 1 CPU; the number in its name tells its age."""
    age = int("".join(filter(str.isdigit, job)) or 0)
    fields = {"name": job, "priority": 0, "arrived": START + timedelta(seconds=age), "minimum": 1, "maximum": 8}
    return Demand(job=job, **{**fields, **changes})


def rooms(*cpus: float) -> list[Room]:
    return [Room(node=f"node-{index}", cpu=cpu) for index, cpu in enumerate(cpus)]


def sizes(jobs: Sequence[Demand], nodes: Sequence[Room], policy: str = "priority") -> dict[str, int]:
    return {job: grant.workers for job, grant in allocate(jobs, nodes, policy).items()}


def applied(jobs: Sequence[Demand], grants: dict[str, Grant]) -> list[Demand]:
    """The jobs once the decision is in force; one that runs without room holds its place."""
    return [replace(job, current=grants[job.job].workers or job.current) for job in jobs]


def room_needed(grants: dict[str, Grant], jobs: Sequence[Demand]) -> list[tuple[float, float]]:
    return [(job.cpu, job.gpu) for job in jobs for _ in range(grants[job.job].workers)]


def fits(workers: list[tuple[float, float]], nodes: list[tuple[float, float]]) -> bool:
    """Exhaustive packing, in exact tenths: the judge that shares nothing with the code under test."""
    seen: set[tuple[int, tuple[tuple[int, int], ...]]] = set()
    items = sorted(((round(cpu * 10), round(gpu * 10)) for cpu, gpu in workers), reverse=True)

    def place(index: int, free: tuple[tuple[int, int], ...]) -> bool:
        if index == len(items):
            return True
        if (index, free) in seen:
            return False
        seen.add((index, free))
        cpu, gpu = items[index]
        return any(
            place(index + 1, tuple(sorted((*free[:at], (room[0] - cpu, room[1] - gpu), *free[at + 1 :]))))
            for at, room in enumerate(free)
            if room[0] >= cpu and room[1] >= gpu and room not in free[:at]
        )

    return place(0, tuple(sorted((round(cpu * 10), round(gpu * 10)) for cpu, gpu in nodes)))


def running_minimums_fit(jobs: Sequence[Demand], nodes: Sequence[Room]) -> bool:
    minimums = [(job.cpu, job.gpu) for job in jobs if job.current for _ in range(job.minimum)]
    return fits(minimums, [(room.cpu, room.gpu) for room in nodes])


@st.composite
def some_jobs(draw: st.DrawFn, shapes: Sequence[tuple[float, float]] = SHAPES, most: int = 5) -> list[Demand]:
    jobs = []
    for index in range(draw(st.integers(0, most))):
        minimum = draw(st.integers(1, 4))
        maximum = draw(st.integers(minimum, 8))
        cpu, gpu = draw(st.sampled_from(shapes))
        jobs.append(
            demand(
                f"job-{index}",
                priority=draw(st.integers(0, 2)),
                arrived=START + timedelta(seconds=draw(st.integers(0, 3))),
                minimum=minimum,
                maximum=maximum,
                cpu=cpu,
                gpu=gpu,
                current=draw(st.sampled_from([0, minimum, maximum])),
            )
        )
    return jobs


NODES = st.lists(st.integers(0, 6).map(float), max_size=3).map(lambda cpus: rooms(*cpus))
POLICY = st.sampled_from(sorted(POLICIES))


@given(some_jobs(ODD_SHAPES, most=4), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), max_size=3), POLICY)
def test_never_over_capacity(jobs: list[Demand], nodes: list[tuple[int, int]], policy: str) -> None:
    offered = [Room(node=str(index), cpu=cpu, gpu=gpu) for index, (cpu, gpu) in enumerate(nodes)]
    grants = allocate(jobs, offered, policy)
    assert fits(room_needed(grants, jobs), [(room.cpu, room.gpu) for room in offered])


@given(some_jobs(ODD_SHAPES), NODES, POLICY)
def test_every_job_gets_nothing_or_a_size_within_its_bounds(jobs: list[Demand], nodes: list[Room], policy: str) -> None:
    grants = allocate(jobs, nodes, policy)
    assert grants.keys() == {job.job for job in jobs}
    for job in jobs:
        assert grants[job.job].workers in {0, *range(job.minimum, job.maximum + 1)}
        assert grants[job.job].reason


@given(some_jobs(ODD_SHAPES), NODES, POLICY)
def test_every_size_says_what_bounds_it(jobs: list[Demand], nodes: list[Room], policy: str) -> None:
    grants = allocate(jobs, nodes, policy)
    for job in jobs:
        grant = grants[job.job]
        others = {other.name for other in jobs if other is not job and grants[other.job].workers}
        if grant.workers in (0, job.maximum):
            assert grant.bound == ""
        elif grant.workers == slots(job.cpu, job.gpu, nodes):
            assert grant.bound == "the cluster has room for no more"
        else:
            head, _, named = grant.bound.partition(" with ")
            assert head == "the cluster is shared"
            assert others.intersection(named.replace(" and ", ", ").split(", "))


def test_a_sentence_names_three_jobs_at_most() -> None:
    jobs = [demand(f"job{number}") for number in range(6)]
    assert allocate(jobs[:3], rooms(9), "priority")["job0"].bound == "the cluster is shared with job1 and job2"
    assert allocate(jobs, rooms(9), "priority")["job0"].bound == (
        "the cluster is shared with job1, job2, job3 and 2 others"
    )


@given(some_jobs(), NODES, POLICY, st.randoms())
def test_the_order_of_jobs_and_nodes_does_not_matter(
    jobs: list[Demand], nodes: list[Room], policy: str, random: st.random_module
) -> None:
    expected = allocate(jobs, nodes, policy)
    assert allocate(random.sample(jobs, len(jobs)), random.sample(nodes, len(nodes)), policy) == expected


@given(some_jobs(), NODES, POLICY)
def test_a_decision_that_was_applied_stands(jobs: list[Demand], nodes: list[Room], policy: str) -> None:
    grants = allocate(jobs, nodes, policy)
    again = allocate(applied(jobs, grants), nodes, policy)
    assert {job: grant.workers for job, grant in again.items()} == {job: grant.workers for job, grant in grants.items()}


@given(some_jobs(), NODES, POLICY)
def test_a_running_job_keeps_its_minimum_wherever_all_minimums_fit(
    jobs: list[Demand], nodes: list[Room], policy: str
) -> None:
    assume(running_minimums_fit(jobs, nodes))
    grants = allocate(jobs, nodes, policy)
    assert all(grants[job.job].workers >= job.minimum for job in jobs if job.current)


@given(some_jobs(), NODES, st.integers(0, 2), st.integers(1, 4))
def test_more_capacity_never_takes_from_the_job_of_the_highest_priority(
    jobs: list[Demand], nodes: list[Room], where: int, more: int
) -> None:
    assume(running_minimums_fit(jobs, nodes))
    top = demand("top", priority=9)
    grown = [replace(room, cpu=room.cpu + more) if index == where else room for index, room in enumerate(nodes)]
    if len(nodes) <= where:
        grown = [*nodes, Room(node="another", cpu=more)]
    assert sizes([top, *jobs], grown)["top"] >= sizes([top, *jobs], nodes)["top"]


def test_a_job_alone_gets_all_that_it_may_have() -> None:
    assert sizes([demand("a", maximum=3)], rooms(4)) == {"a": 3}
    assert sizes([demand("a")], rooms(2, 2)) == {"a": 4}


def test_a_worker_must_fit_one_node() -> None:
    assert sizes([demand("a", cpu=2)], rooms(3, 3)) == {"a": 2}
    assert sizes([demand("a", cpu=2)], rooms(1, 1, 1)) == {"a": 0}


def test_workers_without_gpu_leave_the_gpu_nodes_to_those_that_need_them() -> None:
    nodes = [Room(node="a-gpu", cpu=1, gpu=1), Room(node="b-plain", cpu=1)]
    jobs = [demand("cpu-1", priority=1, maximum=1), demand("gpu-2", maximum=1, gpu=1)]
    assert sizes(jobs, nodes) == {"cpu-1": 1, "gpu-2": 1}


def test_a_queued_job_of_higher_priority_shrinks_a_running_one_down_to_its_minimum() -> None:
    running = demand("low", minimum=1, current=4)
    assert sizes([running, demand("high", priority=5, maximum=2)], rooms(4)) == {"low": 2, "high": 2}
    assert sizes([running, demand("high", priority=5, maximum=8)], rooms(4)) == {"low": 1, "high": 3}


def test_a_queued_job_of_equal_priority_gets_its_share() -> None:
    assert sizes([demand("a1", current=4), demand("b2")], rooms(4)) == {"a1": 2, "b2": 2}


def test_a_queued_job_of_lower_priority_moves_nobody() -> None:
    assert sizes([demand("high", priority=5, current=4), demand("low")], rooms(4)) == {"high": 4, "low": 0}


def test_a_running_job_is_never_evicted() -> None:
    grants = allocate([demand("low", minimum=4, current=4), demand("high", priority=5)], rooms(4), "priority")
    assert grants["low"].workers == 4
    assert grants["high"].workers == 0
    assert "low" in grants["high"].reason


def test_what_is_left_is_shared_in_equal_increments_above_the_minimums() -> None:
    jobs = [demand("a1", minimum=3), demand("b2", minimum=1), demand("c3", minimum=1, maximum=2)]
    assert sizes(jobs, rooms(10)) == {"a1": 5, "b2": 3, "c3": 2}


@pytest.mark.parametrize("holds", [{"a1": 3, "b2": 2}, {"a1": 2, "b2": 3}])
def test_the_odd_slot_stays_where_it_is(holds: dict[str, int]) -> None:
    assert sizes([demand(job, current=size) for job, size in holds.items()], rooms(5)) == holds


def test_small_jobs_cannot_starve_a_large_one() -> None:
    running = demand("a1", minimum=3, maximum=3, current=3)
    large, small = demand("b2", minimum=2), demand("c3")
    grants = allocate([running, large, small], rooms(4), "priority")
    assert (grants["b2"].workers, grants["c3"].workers) == (0, 0)
    assert "waits behind b2" in grants["c3"].reason


def test_a_job_larger_than_the_cluster_waits_with_a_reason_and_holds_up_nobody() -> None:
    grants = allocate([demand("a1", minimum=8), demand("b2", priority=-1)], rooms(4), "priority")
    assert grants["a1"] == Grant(workers=0, reason="Needs 8 workers of 1 CPU; the cluster has 4 slots.", fits=False)
    assert grants["b2"].workers == 4


def test_after_a_lost_node_the_highest_priority_keeps_its_place() -> None:
    jobs = [demand("low", minimum=2, current=2), demand("high", priority=1, minimum=2, current=2)]
    assert sizes(jobs, rooms(3)) == {"low": 0, "high": 3}


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(KeyError):
        allocate([], [], "nosuch")
