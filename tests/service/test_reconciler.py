"""The reconciler on a real database and a cluster of words."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import select

from api_schemas.exchange import Departure, Report
from api_schemas.jobs import JobPatch, ResizeRequest
from api_schemas.views import Phase, RecipeInfo
from service import jobs, resizes
from service.cluster import ClusterUnreachable
from service.events import Stale, Taken
from service.reconciler import RELAUNCHES
from service.tables import LedgerRow, RecipeRow
from tests.service.scene import NEVER, PACE, Scene, play


def test_a_job_is_launched_trains_and_ends(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, sweep=NEVER)):
            await scene.until_phase("a", Phase.RUNNING)
            assert scene.job("a").workers == 4
            assert (scene.last("a").cause, scene.last("a").requested_at) == ("start", scene.job("a").created_at)
            controller = scene.controller("a")
            controller.advance(100)
            controller.finish("succeeded")
            await scene.until_phase("a", Phase.SUCCEEDED)
            await scene.until(lambda: controller.went)

    play(script())
    assert [launch.incarnation for launch in scene.cluster.launches] == [1]
    assert scene.cluster.launches[0].storage == "/jobs/a"
    phases = [row.payload["phase"] for row in scene.events("a", "phase")]
    assert phases == ["starting", "running", "succeeded"]


def test_a_node_that_is_to_leave_has_no_room_and_the_controller_is_told(scene: Scene) -> None:
    scene.cluster.add_node(2)
    by = scene.clock() + timedelta(seconds=120)

    async def script() -> None:
        scene.submit("a", elasticity={"workers": [1, 8]})
        async with scene.reconciling():
            await scene.until_workers("a", 6)
            scene.cluster.drain_node(by)
            await scene.until_workers("a", 4)
            command = scene.controller("a").commands[-1]
            assert command.departures == (Departure(node="node-1", address="10.0.0.1", by=by),)
            assert scene.last("a").reason == "The cluster went from 6 to 4 slots."
            await scene.until(lambda: [node.drains_at for node in scene.view().nodes] == [None, by])
            scene.cluster.remove_node()
            await scene.until(lambda: not scene.controller("a").commands[-1].departures)

    play(script())


def test_a_job_waits_rather_than_start_on_a_node_that_is_to_leave(scene: Scene) -> None:
    scene.cluster.drain_node()

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until(lambda: scene.job("a").code == "waiting_for_slots")
            scene.cluster.add_node(1)
            await scene.until_workers("a", 1)

    play(script())


def test_a_job_that_does_not_fit_says_what_it_needs(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", elasticity={"workers": [8, 8]})
        async with scene.reconciling():
            await scene.until(lambda: scene.job("a").code == "waiting_for_slots")
            await scene.until(lambda: scene.view().queue)

    play(script())
    assert scene.job("a").phase is Phase.QUEUED
    assert scene.job("a").message == "Needs 8 workers of 1 CPU; the cluster has 4 slots."
    assert [(job.id, job.message) for job in scene.view().queue] == [("a", scene.job("a").message)]
    assert scene.cluster.launches == []


def test_a_job_grows_no_further_than_the_scaling_rules_reach(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", optimizer={"name": "radam", "lr": 1e-3, "betas": [0.9, 0.8]})  # 0.8^2 is below 2/3
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)

    play(script())
    assert scene.job("a").workers == 1


def test_a_job_gives_way_to_one_of_higher_priority_and_grows_back(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            scene.clock.move(60)
            scene.submit("b", priority=5, elasticity={"workers": [1, 2]})
            await scene.until_workers("a", 2)
            given = scene.last("a")
            assert (given.cause, given.requested_at) == ("allocator", scene.job("b").created_at)
            assert "the b (priority 5)" in given.reason
            await scene.until_workers("b", 2)
            scene.controller("b").finish("succeeded")
            await scene.until_workers("a", 4)
            assert scene.last("a").reason == "the b gave 2 workers back."

    play(script())
    assert len(scene.cluster.launches) == 2


def test_a_size_without_room_for_it_is_explained_until_there_is(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", elasticity={"workers": [1, 8]})
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            since = scene.job("a").since
            scene.clock.move(60)
            resizes.ask(scene.database, "a", ResizeRequest(workers=5))
            await scene.until(lambda: "asked for" in scene.job("a").message)
            job = scene.job("a")
            assert (job.phase, job.since, job.code) == (Phase.RUNNING, since, "short_of_slots")
            assert job.message == "Trains on 4 of the 5 workers asked for: the cluster has room for no more."
            scene.submit("b", elasticity={"workers": [2, 2]})
            await scene.until(lambda: "2 of the 5" in scene.job("a").message)
            assert scene.job("a").message == "Trains on 2 of the 5 workers asked for: the cluster is shared with the b."
            scene.cluster.add_node(3)
            await scene.until_workers("a", 5)
            assert (scene.job("a").code, scene.job("a").message) == ("training", "Training on 5 workers.")

    play(script())
    told = {row.payload["code"] for row in scene.events("a", "phase")}
    assert "short_of_slots" not in told


def test_a_job_that_runs_short_is_told_so_once(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", elasticity={"workers": [1, 8]})
        async with scene.reconciling():
            await scene.until(lambda: scene.job("a").code == "short_of_slots")
            revision = scene.job("a").revision
            seen = len(scene.controller("a").commands)
            await scene.until(lambda: len(scene.controller("a").commands) > seen + 5)
            assert scene.job("a").revision == revision
            resizes.ask(scene.database, "a", ResizeRequest(workers=4))
            await scene.until(lambda: scene.job("a").code == "training")
            assert scene.job("a").message == "Training on 4 workers."

    play(script())


def test_a_sentence_about_a_size_that_is_gone_is_not_said(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            seen = scene.job("a")
            resizes.ask(scene.database, "a", ResizeRequest(workers=2))
            await scene.until_workers("a", 2)
            scene.roster.explain(seen, "short_of_slots", "Trains on 4 of the 5 workers asked for.")
            assert scene.job("a").message == "Training on 2 workers."

    play(script())


def test_a_changed_order_does_not_wait_for_an_exchange_in_flight(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, answer=NEVER)):
            await scene.until_workers("a", 4)
            controller = scene.controller("a")
            controller.hanging = True
            seen = len(controller.commands)
            await scene.until(lambda: len(controller.commands) > seen)
            scene.clock.move(60)
            resizes.ask(scene.database, "a", ResizeRequest(workers=2))
            await scene.until(lambda: controller.commands[-1].allocation.workers == 2)
            controller.hanging = False

    play(script())
    given = scene.last("a")
    assert (given.cause, given.requested_at) == ("api", scene.clock.now)


def test_a_size_that_is_taken_back_lets_the_job_grow(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            resizes.ask(scene.database, "a", ResizeRequest(workers=2))
            await scene.until_workers("a", 2)
            resizes.ask(scene.database, "a", ResizeRequest(workers=3, at_samples=500))
            await scene.until(lambda: scene.last("a").not_before == 500)
            scene.clock.move(60)
            resizes.ask(scene.database, "a", ResizeRequest(workers=None))
            await scene.until_workers("a", 4)

    play(script())
    (*_, row) = scene.events("a", "resized")
    assert (row.payload["cause"], row.payload["reason"]) == ("api", "What was asked for was taken back.")
    assert scene.last("a").requested_at == scene.clock.now


def test_a_resize_for_later_is_sent_with_its_sample_and_becomes_the_target(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            resizes.ask(scene.database, "a", ResizeRequest(workers=2, at_samples=500))
            await scene.until(lambda: scene.last("a").not_before == 500)
            scene.controller("a").advance(499)
            await scene.until(lambda: scene.job("a").samples == 499)
            assert scene.job("a").workers == 4
            scene.controller("a").advance(1)
            await scene.until_workers("a", 2)
            await scene.until(lambda: scene.job("a").target_workers == 2)

    play(script())
    assert scene.job("a").pending_resizes == []


def test_a_patch_reaches_the_controller(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            jobs.patch(scene.database, "a", JobPatch.model_validate({"elasticity": {"kappa": [1, 2]}}))
            await scene.until(lambda: scene.last("a").kappa == (1, 2))

    play(script())
    assert scene.last("a").cause == "patch"


def test_jobs_follow_the_nodes_that_come_and_go(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", elasticity={"workers": [1, 8]})
        async with scene.reconciling():
            await scene.until_workers("a", 4)
            scene.cluster.add_node(2)
            await scene.until_workers("a", 6)
            assert scene.last("a").cause == "capacity"
            scene.cluster.remove_node()
            await scene.until_workers("a", 4)
            await scene.until(lambda: len(scene.view().nodes) == 1)

    play(script())


@pytest.mark.parametrize("gone", [False, True], ids=["there", "gone"])
def test_a_cancelled_job_ends_with_its_controller_or_without_it(scene: Scene, gone: bool) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            if gone:
                scene.controller("a").hanging = True
            jobs.cancel(scene.database, "a")
            if gone:
                scene.cluster.lose("a")
            await scene.until_phase("a", Phase.CANCELLED)

    play(script())
    assert len(scene.cluster.launches) == 1
    assert scene.cluster.killed == (["a"] if gone else [])


def test_a_controller_that_does_not_end_its_cancelled_job_is_killed(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, cancel=0.05, answer=0.02)):
            await scene.until_phase("a", Phase.RUNNING)
            scene.controller("a").hanging = True
            jobs.cancel(scene.database, "a")
            await scene.until_phase("a", Phase.CANCELLED)

    play(script())
    assert scene.cluster.killed == ["a"]


def test_a_lost_controller_is_replaced_by_the_next_incarnation(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            scene.cluster.lose("a")
            await scene.until(lambda: scene.job("a").incarnation == 2)
            await scene.until_phase("a", Phase.RUNNING)

    play(script())
    assert [launch.incarnation for launch in scene.cluster.launches] == [1, 2]
    lost = [row.payload["code"] for row in scene.events("a", "phase") if row.payload["phase"] == "recovering"]
    assert lost == ["controller_lost"]


def test_a_controller_that_falls_silent_is_replaced(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, silence=0.1, answer=0.02)):
            await scene.until_phase("a", Phase.RUNNING)
            scene.controller("a").hanging = True
            await scene.until(lambda: scene.job("a").incarnation == 2)
            await scene.until_phase("a", Phase.RUNNING)

    play(script())


def test_controllers_lost_in_a_row_without_progress_fail_the_job(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            for progress in (True, False):
                for _ in range(RELAUNCHES):
                    await scene.until_phase("a", Phase.RUNNING)
                    incarnation = scene.job("a").incarnation
                    scene.cluster.lose("a")
                    await scene.until(lambda seen=incarnation: scene.job("a").incarnation > seen)
                await scene.until_phase("a", Phase.RUNNING)
                if progress:
                    scene.controller("a").advance(10_000)
                    await scene.until(lambda: scene.job("a").samples >= 10_000)
            scene.cluster.lose("a")
            await scene.until_phase("a", Phase.FAILED)

    play(script())
    assert scene.job("a").code == "controller_lost"
    assert len(scene.cluster.launches) == 1 + 2 * RELAUNCHES


def test_a_controller_that_cannot_be_started_fails_the_job_with_the_nodes_own_words(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        scene.cluster.launch_error = (
            "Traceback:\n  there\nStorageError: cannot list s3://b: The bucket does not exist.\n"
        )
        async with scene.reconciling():
            await scene.until_phase("a", Phase.FAILED)

    play(script())
    assert scene.job("a").traceback == scene.cluster.launch_error
    assert scene.job("a").message == (
        f"Its controller was lost {1 + RELAUNCHES} times in a row without progress: "
        "StorageError: cannot list s3://b: The bucket does not exist."
    )
    assert scene.job("a").incarnation == 1 + RELAUNCHES


def test_a_lost_job_without_room_waits_in_the_queue(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a", elasticity={"workers": [3, 3]})
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            scene.cluster.remove_node()
            scene.cluster.lose("a")
            await scene.until_phase("a", Phase.QUEUED)
            scene.cluster.add_node(3)
            await scene.until_phase("a", Phase.RUNNING)

    play(script())
    assert scene.job("a").incarnation == 2


def test_a_new_reconciler_takes_up_the_talks_of_the_old_one(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        scene.submit("b")
        async with scene.reconciling():
            await scene.until_workers("a", 2)
            await scene.until_workers("b", 2)
        for step in range(10):
            scene.controller("a").advance(step + 1)
        scene.controller("b").finish("succeeded")
        async with scene.reconciling():
            await scene.until(lambda: scene.job("a").samples == 55)
            await scene.until_phase("b", Phase.SUCCEEDED)
            await scene.until_workers("a", 4)

    play(script())
    assert len(scene.cluster.launches) == 2
    assert ledger(scene, "a") == [(0, 55)]


def ledger(scene: Scene, job: str) -> list[tuple[int, int]]:
    with scene.database.reading() as session:
        rows = session.exec(select(LedgerRow).where(LedgerRow.job_id == job).order_by(LedgerRow.id)).all()
    return [(row.start, row.stop) for row in rows]


@pytest.mark.parametrize("committed", [False, True], ids=["before the commit", "after the commit"])
def test_an_error_around_the_commit_neither_loses_nor_doubles_events(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    take, failures = scene.roster.take, [OSError("the disk is full")]

    def unreliable(report: Report) -> Taken:
        if failures and report.samples:
            failure = failures.pop()
            if committed:
                take(report)
            raise failure
        return take(report)

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            for _ in range(4):
                scene.controller("a").advance(10)
            await scene.until(lambda: not failures and scene.job("a").samples == 40)
            scene.controller("a").finish("succeeded")
            await scene.until_phase("a", Phase.SUCCEEDED)

    monkeypatch.setattr(scene.roster, "take", unreliable)
    play(script())
    assert ledger(scene, "a") == [(0, 40)]
    assert len(scene.cluster.launches) == 1
    assert [row.sequence for row in scene.events("a", "started", "finished")] == [1, 6]


def test_an_error_after_a_loss_starts_no_further_controller(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    take, failures = scene.roster.take, [OSError("the disk is full")]

    def unreliable(report: Report) -> Taken:
        if failures and report.incarnation == 2 and report.samples:
            raise failures.pop()
        return take(report)

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            scene.cluster.lose("a")
            await scene.until(lambda: scene.job("a").incarnation == 2 and scene.job("a").phase is Phase.RUNNING)
            scene.controller("a").advance(10)
            await scene.until(lambda: not failures and scene.job("a").samples == 10)

    monkeypatch.setattr(scene.roster, "take", unreliable)
    play(script())
    assert len(scene.cluster.launches) == 2


def test_nothing_is_acknowledged_before_it_is_committed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    take, committed = scene.roster.take, [Taken(0, 0)]

    def watched(report: Report) -> Taken:
        committed.append(take(report))
        return committed[-1]

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            for _ in range(20):
                scene.controller("a").advance(1)
                assert all((each.acked, each.samples) in committed for each in scene.controller("a").commands)
                await asyncio.sleep(0)
            await scene.until(lambda: scene.job("a").samples == 20)

    monkeypatch.setattr(scene.roster, "take", watched)
    play(script())
    assert len(scene.controller("a").commands) > 1


def test_a_lost_cluster_ends_the_reconciler_and_is_shown(scene: Scene) -> None:
    async def script() -> None:
        async with scene.reconciling() as task:
            await scene.until(lambda: scene.view().connected)
            scene.cluster.reachable = False
            with pytest.raises(ClusterUnreachable):
                await task

    play(script())
    assert not scene.view().connected


def test_jobs_whose_controllers_went_with_the_cluster_are_launched_on_the_new_one(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
        scene.cluster.lose("a")
        async with scene.reconciling():
            await scene.until(lambda: scene.job("a").incarnation == 2 and scene.job("a").phase is Phase.RUNNING)

    play(script())


def test_a_controller_that_missed_its_last_acknowledgement_is_told(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
        controller = scene.controller("a")
        controller.finish("succeeded")
        command = controller.commands[-1].model_copy(update={"acked": 1})
        scene.roster.take(await controller.exchange(command))  # committed; then the reconciler died
        assert scene.job("a").phase is Phase.SUCCEEDED
        async with scene.reconciling():
            await scene.until(lambda: controller.went)

    play(script())
    assert scene.cluster.killed == []


def test_a_controller_that_nobody_knows_is_killed(scene: Scene) -> None:
    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling():
            await scene.until_phase("a", Phase.RUNNING)
            stray = scene.cluster.launches[0].model_copy(update={"job": "deleted"})
            await scene.cluster.launch(stray)
            await scene.until(lambda: scene.cluster.killed == ["deleted"])

    play(script())
    assert "a" in scene.cluster.running


def test_the_controller_of_a_job_that_lives_is_never_a_stray(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    controllers, looks = scene.cluster.controllers, []

    async def counted() -> set[str]:
        looks.append(1)
        return await controllers()

    async def script() -> None:
        scene.submit("a")
        async with scene.reconciling(replace(PACE, silence=0.05, answer=0.02, backoff=NEVER)):
            await scene.until_phase("a", Phase.RUNNING)
            scene.controller("a").hanging = True
            await scene.until_phase("a", Phase.RECOVERING)  # nobody talks to it now, until it is started again
            seen = len(looks)
            await scene.until(lambda: len(looks) > seen + 3)

    monkeypatch.setattr(scene.cluster, "controllers", counted)
    play(script())
    assert scene.cluster.killed == []


def test_the_catalogue_follows_the_nodes(scene: Scene) -> None:
    def names() -> set[str]:
        with scene.database.reading() as session:
            return {row.name for row in session.exec(select(RecipeRow)).all()}

    async def script() -> None:
        async with scene.reconciling():
            await scene.until(lambda: names() == {"classify"})
            scene.cluster.catalogue_now = [RecipeInfo(name="byol", summary="New.", config_schema={})]
            scene.cluster.add_node(1)
            await scene.until(lambda: names() == {"byol"})

    play(script())


def test_what_has_moved_on_is_left_alone(scene: Scene) -> None:
    scene.submit("a")
    seen = scene.job("a")
    jobs.cancel(scene.database, "a")
    assert scene.roster.launch(seen) is None
    scene.roster.explain(seen, "waiting_for_slots", "Late.")
    assert scene.job("a").message != "Late."


def test_reports_of_a_deleted_job_are_refused(scene: Scene) -> None:
    report = Report(job="never", incarnation=1, generation=1, workers=1, joining=0, samples=0, done=False, events=[])
    with pytest.raises(Stale):
        scene.roster.take(report)
