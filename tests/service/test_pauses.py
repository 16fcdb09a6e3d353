"""Pause and resume: what a request may do in which phase, and what the reconciler makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api_schemas.jobs import ResizeRequest
from api_schemas.views import Phase
from service import jobs, resizes
from service.tables import Job
from tests.service.scene import NEVER, PACE, Scene, play
from tests.service.world import World, committed, finished, problem, resized

# -- requests ----------------------------------------------------------------------------------------------------------


def post(world: World, job: str, verb: str) -> tuple[int, str]:
    """Status of the answer, and the job's phase, or the detail of the problem."""
    response = world.http.post(f"/v1/jobs/{job}/{verb}")
    body = response.json()
    return response.status_code, body["status"]["phase"] if response.status_code == 200 else body["detail"]


def put(world: World, job: str, phase: Phase) -> None:
    with world.database.writing() as session:
        session.get_one(Job, job).phase = phase


def test_a_job_without_workers_is_paused_at_once_and_waits_again_when_resumed(world: World) -> None:
    job = world.submit()
    assert post(world, job, "pause") == (200, "paused")
    status = world.job(job)["status"]
    assert (status["code"], status["message"]) == ("pause_requested", "Paused on request, while it had no workers.")
    world.clock.move(60)
    assert post(world, job, "resume") == (200, "queued")
    status = world.job(job)["status"]
    assert (status["code"], status["message"]) == ("resumed", "Waiting for workers.")
    phases = [event["phase"] for event in world.get(f"/v1/jobs/{job}/events")["items"] if event["type"] == "phase"]
    assert phases == ["paused", "queued"]


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RUNNING, Phase.RESIZING, Phase.RECOVERING])
def test_a_job_with_workers_is_pausing_until_they_have_left_a_checkpoint(world: World, phase: Phase) -> None:
    controller = world.run()
    put(world, controller.job, phase)
    assert post(world, controller.job, "pause") == (200, "pausing")
    controller.report(committed(0, 128), resized(128, (2, 1)), finished("paused"))
    view = world.job(controller.job)
    assert (view["status"]["phase"], view["status"]["message"]) == ("paused", "It has paused.")
    assert (view["workers"], view["progress"]["samples"]) == (0, 128)


def test_asking_again_changes_nothing(world: World) -> None:
    controller = world.run()
    job = controller.job
    for verb, phase in (("pause", "pausing"), ("pause", "pausing")):
        assert post(world, job, verb) == (200, phase)
    controller.report(finished("paused"))
    for verb, phase in (("pause", "paused"), ("resume", "queued"), ("resume", "queued")):
        assert post(world, job, verb) == (200, phase)
    put(world, job, Phase.RUNNING)
    before = world.job(job)
    assert post(world, job, "resume") == (200, "running")
    assert world.job(job) == before


@pytest.mark.parametrize(
    ("verb", "phase", "detail"),
    [
        ("pause", Phase.CANCELLING, "It cannot be paused any more: the job is cancelling."),
        ("pause", Phase.SUCCEEDED, "It cannot be paused any more: the job is succeeded."),
        ("resume", Phase.PAUSING, "It can be resumed once it is paused: the job is pausing."),
        ("resume", Phase.CANCELLING, "It cannot be resumed any more: the job is cancelling."),
        ("resume", Phase.FAILED, "It cannot be resumed any more: the job is failed."),
    ],
)
def test_what_cannot_be_says_where_the_job_is(world: World, verb: str, phase: Phase, detail: str) -> None:
    job = world.submit()
    put(world, job, phase)
    response = world.http.post(f"/v1/jobs/{job}/{verb}")
    assert problem(response, 409, "conflict")["detail"] == detail


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_there_must_be_such_a_job_and_no_parameters(world: World, verb: str) -> None:
    problem(world.http.post(f"/v1/jobs/nobody/{verb}"), 404, "not_found")
    problem(world.http.post(f"/v1/jobs/{world.submit()}/{verb}?dry_run=true"), 422, "invalid_request")


def test_a_paused_job_can_be_changed_resized_and_cancelled_but_not_deleted(world: World) -> None:
    job = world.submit()
    post(world, job, "pause")
    assert world.http.patch(f"/v1/jobs/{job}", json={"priority": 3}).json()["spec"]["priority"] == 3
    assert world.http.post(f"/v1/jobs/{job}/resize", json={"workers": 2}).json()["target_workers"] == 2
    assert "the job is paused" in problem(world.http.delete(f"/v1/jobs/{job}"), 409, "conflict")["detail"]
    assert post(world, job, "cancel") == (200, "cancelled")
    assert world.job(job)["status"]["message"] == "Cancelled on request, while it was paused."


def test_a_checkpoint_that_cannot_be_written_is_told_while_the_job_is_pausing(world: World) -> None:
    controller = world.run()
    failed = {"type": "checkpoint_failed", "samples": 128, "message": "disk full"}
    controller.report(failed)
    assert world.job(controller.job)["status"]["code"] == "training"
    post(world, controller.job, "pause")
    controller.report(failed)
    status = world.job(controller.job)["status"]
    assert (status["phase"], status["code"]) == ("pausing", "checkpoint_failed")
    assert status["message"] == "The checkpoint could not be written, and is tried again: disk full"
    controller.report(finished("paused"))
    assert world.job(controller.job)["status"]["phase"] == "paused"


def test_cancelled_while_it_was_pausing_it_does_not_stay_paused(world: World) -> None:
    controller = world.run()
    post(world, controller.job, "pause")
    assert post(world, controller.job, "cancel") == (200, "cancelling")
    controller.report(finished("paused"))
    assert world.job(controller.job)["status"]["phase"] == "cancelled"


# -- the reconciler ----------------------------------------------------------------------------------------------------


def test_a_paused_job_gives_its_slots_to_others_and_goes_on_with_those_that_there_are(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, sweep=NEVER)):
            await scene.until_workers("a", 4)
            scene.controller("a").advance(100)
            scene.submit("b", elasticity={"workers": [4, 4]})
            await scene.until(lambda: scene.job("b").code == "waiting_for_slots")
            jobs.pause(scene.database, "a")
            await scene.until_phase("a", Phase.PAUSED)
            await scene.until_workers("b", 4)
            scene.clock.move(60)
            jobs.resume(scene.database, "a")
            resumed_at = scene.clock()
            await scene.until(lambda: scene.job("a").code == "waiting_for_slots")
            scene.clock.move(60)
            scene.cluster.add_node(2)
            await scene.until_workers("a", 2)
            told = scene.controller("a").commands[0].allocation
            assert (told.cause, told.requested_at) == ("start", resumed_at)

    play(script())
    assert [launch.incarnation for launch in scene.cluster.launches if launch.job == "a"] == [1, 2]
    before = scene.cluster.launches[-1].before
    assert before is not None
    assert (before.incarnation, before.samples) == (1, 100)
    phases = [row.payload["phase"] for row in scene.events("a", "phase")]
    assert phases == ["starting", "running", "pausing", "paused", "queued", "starting", "running"]


def test_nothing_is_started_for_a_paused_job(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        jobs.pause(scene.database, "a")
        async with scene.reconciling():
            scene.submit("b")
            await scene.until_workers("b", 4)

    play(script())
    assert [launch.job for launch in scene.cluster.launches] == ["b"]
    assert scene.view().queue == []


def test_a_resize_of_a_paused_job_is_its_size_afterwards(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            jobs.pause(scene.database, "a")
            await scene.until_phase("a", Phase.PAUSED)
            resizes.ask(scene.database, "a", ResizeRequest(workers=2))
            jobs.resume(scene.database, "a")
            await scene.until_workers("a", 2)

    play(script())
    assert len(scene.cluster.launches) == 2


def test_another_reconciler_goes_on_with_a_pause(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            scene.controller("a").stores = False
            jobs.pause(scene.database, "a")
            await scene.until(lambda: scene.job("a").code == "checkpoint_failed")
        assert scene.job("a").phase is Phase.PAUSING
        scene.controller("a").stores = True
        async with scene.reconciling():
            await scene.until_phase("a", Phase.PAUSED)

    play(script())
    assert len(scene.cluster.launches) == 1
    assert scene.cluster.killed == []


def test_without_its_controller_it_is_paused_at_the_last_checkpoint(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            scene.cluster.lose("a")
            jobs.pause(scene.database, "a")
            await scene.until_phase("a", Phase.PAUSED)

    play(script())
    assert (scene.job("a").code, scene.job("a").workers) == ("controller_lost", 0)
    assert scene.cluster.killed == ["a"], "workers that it left are not to hold slots"
    assert len(scene.cluster.launches) == 1


def test_a_controller_whose_last_word_was_not_acknowledged_is_told_and_goes(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, sweep=NEVER)):
            await scene.until_workers("a", 4)
        controller = scene.controller("a")
        jobs.pause(scene.database, "a")
        controller.finish("paused", "paused")
        with scene.database.writing() as session:
            session.get_one(Job, "a").phase = Phase.PAUSED  # the reconciler died between commit and acknowledgement
            session.get_one(Job, "a").acked = 10**6
        async with scene.reconciling():
            await scene.until(lambda: controller.went)

    play(script())
    assert scene.job("a").phase is Phase.PAUSED
