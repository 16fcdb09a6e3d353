"""Nodes that come and go, by announcement or all at once: jobs go on with what there is, and nothing is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api_schemas.views import Phase
from service.head import HEAD_IP
from service.processes import Process, wait_until
from tests.integration.stage import PATIENCE_S, Job, Stage, staged
from workers.departures import HASTE_S

SECOND, THIRD = "127.0.0.2", "127.0.0.3"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("data"), slots=1) as stage:
        yield stage


@pytest.fixture
def stage(served: Stage) -> Stage:
    """Three nodes of one slot each, the head among them."""
    for ip in (SECOND, THIRD):
        if not served.processes_on(ip):
            comes_back(served, ip)
    served.has_nodes(HEAD_IP, SECOND, THIRD)
    return served


def comes_back(stage: Stage, ip: str) -> None:
    """A node joins, where one of its address may have been."""
    stage.ray.remove_node(ip)
    stage.ray.add_node(ip, slots=1)


def elastic(stage: Stage, most: int = 3, **changes: Any) -> Job:
    """A job of one worker or more that trains until it is told to stop."""
    return stage.submit(
        recipe={"name": "classify", "config": {"model": "mlp", "hidden": 512, "depth": 2}},
        schedule={"budget": "1000000 base_steps"},
        elasticity={"workers": [1, most]},
        **changes,
    )


def judged(job: Job) -> list[tuple[str, tuple[int, int]]]:
    """Stop the job; cause and sizes of each change that it went through, none of which lost a step."""
    job.progresses()
    job.client.cancel(job.id)
    job.ends(Phase.CANCELLED)
    job.assert_exactly_once()
    rows = job.rows()
    assert all(row.steps_lost == row.samples_lost == 0 for row in rows), rows
    return [(row.cause, row.workers) for row in rows]


def cut_off(stage: Stage, ip: str) -> None:
    """A power cut: every process of the node at once."""
    stage.ray.remove_node(ip)


DEATHS = {"raylet": Stage.kill_raylet, "session": cut_off}


def test_a_node_that_drains_is_left_for_another_that_has_room(stage: Stage) -> None:
    job = elastic(stage, most=2)
    job.trains_on(2)
    ranks = job.ranks()
    leaves = next(ip for ip in map(stage.node_of, ranks.values()) if ip != HEAD_IP)
    stage.drain(leaves, seconds=600)
    job.until(lambda _: bool(job.rows()))
    assert [node.draining for node in stage.client.cluster().nodes if node.address == leaves] in ([True], [])
    stage.has_nodes(*{HEAD_IP, SECOND, THIRD} - {leaves})  # Ray ends a node that drains once nothing runs there
    stays = {worker for worker, pid in ranks.items() if Process.of(pid)}
    assert len(stays) == 1
    assert stays < job.ranks().keys()
    assert judged(job) == [("drain", (2, 2))]
    assert not job.said("rank_lost")


def test_without_room_elsewhere_the_job_shrinks_off_a_node_that_drains_and_its_controller_moves(stage: Stage) -> None:
    job = elastic(stage)
    job.trains_on(3)
    before = job.ranks()
    leaves = stage.node_of(off_the_head(job))
    stays = {worker: pid for worker, pid in before.items() if stage.node_of(pid) != leaves}
    stage.drain(leaves, seconds=600)
    job.trains_on(2)
    stage.has_nodes(*{HEAD_IP, SECOND, THIRD} - {leaves})
    assert job.ranks() == stays
    comes_back(stage, leaves)
    job.trains_on(3)
    assert [row.workers for row in job.rows()] == [(3, 2), (2, 3)]
    assert judged(job)[0] == ("drain", (3, 2))
    assert not job.said("rank_lost")
    assert {event.incarnation for event in job.events()} == {0, 1}


def test_with_no_room_anywhere_the_state_goes_into_a_checkpoint_before_the_node_is_gone(stage: Stage) -> None:
    cut_off(stage, THIRD)
    stage.has_nodes(HEAD_IP, SECOND)
    jobs = [elastic(stage, most=1, checkpoint={"every": "1000000 epochs"}) for _ in range(2)]
    for job in jobs:
        job.trains_on(1)
        job.progresses()
    leaves, stays = sorted(jobs, key=lambda job: stage.node_of(job.ranks()["w0"]), reverse=True)
    notice_s = round(HASTE_S) + 5
    deadline = datetime.now(UTC) + timedelta(seconds=notice_s)
    stage.drain(SECOND, seconds=notice_s)
    leaves.until(lambda _: bool(leaves.said("checkpoint_saved")))
    stage.has_nodes(HEAD_IP)
    comes_back(stage, SECOND)
    leaves.until(lambda _: bool(leaves.rows()))
    assert leaves.said("checkpoint_saved")[0].at < deadline
    assert judged(leaves) == [("drain", (1, 1))]
    assert not leaves.said("rank_lost")
    assert judged(stays) == []


@pytest.mark.parametrize("how", DEATHS)
def test_a_node_dies_and_comes_back(stage: Stage, how: str) -> None:
    job = elastic(stage)
    job.trains_on(3)
    job.progresses()
    DEATHS[how](stage, THIRD)
    job.trains_on(2)
    stage.has_nodes(HEAD_IP, SECOND)
    comes_back(stage, THIRD)
    job.trains_on(3)
    assert [sizes for _, sizes in judged(job)] == [(3, 2), (2, 3)]
    assert job.rows()[0].cause == "rank_lost"


def test_the_node_of_the_controller_dies(stage: Stage) -> None:
    job = elastic(stage)
    job.trains_on(3)
    before = job.ranks()
    controller = off_the_head(job)
    home = stage.node_of(controller)
    survivors = {worker: pid for worker, pid in before.items() if stage.node_of(pid) != home}
    stage.kill_raylet(home)
    job.until(lambda _: any(pid != controller for pid in stage.processes("ray::Controller")))
    job.trains_on(2)
    assert job.ranks() == survivors
    comes_back(stage, home)
    job.trains_on(3)
    assert {event.incarnation for event in job.events()} == {0, 1}
    assert judged(job)[0] == ("rank_lost", (3, 2))


def test_the_head_is_lost(stage: Stage) -> None:
    """The last test: the cluster that is started anew is the head alone."""
    job = elastic(stage, checkpoint={"every": "4 epochs"})
    job.trains_on(3)
    job.until(lambda _: len(job.said("checkpoint_saved")) > 1)
    stage.kill_raylet(HEAD_IP)
    durable = max(event.samples for event in job.said("checkpoint_saved"))
    assert stage.client.job(job.id).id == job.id  # the API answers
    job.until(lambda _: len(job.said("started")) > 1)
    job.trains_on(1)
    assert job.said("started")[-1].samples >= durable
    assert all(event.to_samples >= durable for event in job.said("rollback"))  # none where nothing lay beyond it
    assert {event.incarnation for event in job.events()} == {0, 1, 2}
    judged(job)


def off_the_head(job: Job) -> int:
    """The process of its controller, on one of the nodes that may be killed."""
    while job.stage.node_of(found := job.controller()) == HEAD_IP:
        os.kill(found, signal.SIGKILL)
        assert wait_until(lambda found=found: found not in job.stage.processes("ray::Controller"), PATIENCE_S)
    return found
