"""Asking for another size: now, later, or only to see what it would change."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from api_schemas.dynamics import Horizon, Size, state_factors, values_at, warnings_at
from api_schemas.jobs import JobSpec
from api_schemas.views import ClusterView, Node
from service.roster import Roster
from tests.service.world import Controller, World, committed, finished, metrics, pointers, problem, resized, started

RICH: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 1e-3, "betas": [0.9, 0.99], "weight_decay": 0.05},
    "schedule": {"budget": "5 epochs", "warmup": "1000 samples", "lr": "cosine"},
    "clip": {"norm": 1.0},
    "ema": {"half_life": "0.5 epochs", "schedule": "cosine"},
    "elasticity": {"workers": [1, 8]},
}


LATER = "the values applied follow what is measured by then."
MEASURED = f"These values follow the gradient noise as last measured; {LATER}"
UNMEASURED = f"The gradient noise was not measured yet; {LATER}"


def ask(world: World, job: str, workers: int | None, at_samples: int | None = None, **params: Any) -> httpx.Response:
    body = {"workers": workers} | ({} if at_samples is None else {"at_samples": at_samples})
    return world.http.post(f"/v1/jobs/{job}/resize", json=body, params=params)


def preview(world: World, job: str, workers: int | None, at_samples: int | None = None) -> dict[str, Any]:
    before = world.http.get(f"/v1/jobs/{job}")
    response = ask(world, job, workers, at_samples, dry_run=True)
    assert response.status_code == 200, response.text
    assert world.http.get(f"/v1/jobs/{job}").headers["etag"] == before.headers["etag"]  # nothing has happened
    found: dict[str, Any] = response.json()
    return found


def values(found: dict[str, Any]) -> tuple[Any, Any]:
    return found["after"], found["state_factors"]


def spec_of(world: World, job: str) -> JobSpec:
    return JobSpec.model_validate(world.job(job)["spec"])


def horizon_of(spec: JobSpec) -> Horizon:
    return Horizon.of(spec, epoch_size=1000, bn_momentum=0.1)


def halfway(world: World, **changes: Any) -> Controller:
    """A job with everything in it, 1500 of 5000 samples on its way, on 2 workers, as its trainer tells of it."""
    controller = Controller.launch(world.database, world.submit(**RICH | changes))
    spec = spec_of(world, controller.job)
    begun, now = (values_at(spec, Size.of(spec, 2), samples, horizon_of(spec)) for samples in (0, 1500))
    scheduled = {name: now[name] for name in ("lr", "ema_momentum")}
    controller.report(started(values=begun, bn_momentum=0.1), committed(0, 1500), metrics((1500, scheduled)))
    return controller


@pytest.mark.parametrize("at_samples", [None, 3000])
def test_a_dry_run_shows_the_values_that_the_trainer_will_derive(world: World, at_samples: int | None) -> None:
    job = halfway(world).job
    spec = spec_of(world, job)
    horizon = horizon_of(spec)
    before, after = Size.of(spec, 2), Size.of(spec, 5)
    assert preview(world, job, 5, at_samples) == {
        "workers": [2, 5],
        "kappa": [2.0, 5.0],
        "batch": [128, 320],
        "before": values_at(spec, before, at_samples or 1500, horizon),
        "after": values_at(spec, after, at_samples or 1500, horizon),
        "state_factors": state_factors(spec, before, after),
        "warnings": [*warnings_at(spec, after, horizon), UNMEASURED],
    }


def test_the_values_shown_have_every_part_of_the_job(world: World) -> None:
    found = preview(world, halfway(world).job, 5)
    names = {"lr", "betas", "eps", "weight_decay", "amsgrad", "ema_momentum", "bn_momentum", "clip_norm"}
    assert set(found["before"]) == set(found["after"]) == names
    assert set(found["state_factors"]) == {"exp_avg", "exp_avg_sq", "step"}


def test_the_measured_noise_decides_as_it_will_in_the_trainer(world: World) -> None:
    controller = halfway(world, scaling={"second_moment": "measured"})
    controller.report(metrics((1500, {"noise_scale": 192.0})))
    spec = spec_of(world, controller.job)
    horizon = horizon_of(spec)
    after = Size.of(spec, 5, noise_fraction=0.75, measured=True)  # 192 / (192 + 64)
    found = preview(world, controller.job, 5)
    assert found["after"] == values_at(spec, after, 1500, horizon)
    assert found["after"] != values_at(spec, Size.of(spec, 5), 1500, horizon)


@pytest.mark.parametrize(
    ("changes", "follows"),
    [
        ({"scaling": {"second_moment": "measured"}}, True),
        ({"scaling": {"second_moment": "assume_noise"}}, False),
        ({"scaling": {"second_moment": "per_worker"}, "elasticity": {"workers": [2, 8]}, "clip": None}, False),
        ({"scaling": {"second_moment": "per_worker"}, "elasticity": {"workers": [2, 8]}}, True),  # clipping does
        ({"optimizer": {"name": "sgd", "lr": 0.1}, "clip": None}, False),
        ({"elasticity": {"workers": [1, 8], "mode": "auto"}}, True),
    ],
)
def test_a_dry_run_says_where_other_noise_makes_other_values(
    world: World, changes: dict[str, Any], follows: bool
) -> None:
    controller = halfway(world, **changes)
    assert (UNMEASURED in preview(world, controller.job, 5)["warnings"]) == follows
    controller.report(metrics((1500, {"noise_scale": 192.0})))
    first = preview(world, controller.job, 5)
    assert (MEASURED in first["warnings"]) == follows
    controller.report(metrics((1600, {"noise_scale": 64.0})))
    second = preview(world, controller.job, 5)
    assert (values(first) != values(second)) == follows


@pytest.mark.parametrize("noise", [192.0, None])
def test_before_is_what_is_in_force_whatever_the_noise_was_measured_to_be_since(
    world: World, noise: float | None
) -> None:
    """Workers hold the noise fraction of the last resize until the next one."""
    controller = halfway(world, scaling={"second_moment": "measured"})
    controller.report(metrics((1500, {"noise_scale": noise})))
    found = preview(world, controller.job, 5)
    assert found["before"] == world.job(controller.job)["values"]
    assert found["after"]["clip_norm"] < found["before"]["clip_norm"]


@pytest.mark.parametrize("second_moment", ["measured", "per_worker", "assume_noise"])
def test_at_a_later_sample_what_is_held_is_as_it_is_and_schedules_have_moved_on(
    world: World, second_moment: str
) -> None:
    controller = halfway(world, scaling={"second_moment": second_moment})
    controller.report(metrics((1500, {"noise_scale": 192.0})))
    spec = spec_of(world, controller.job)
    there = values_at(spec, Size.of(spec, 2), 3000, horizon_of(spec))  # by the fraction of the first size, 1
    found = preview(world, controller.job, 5, at_samples=3000)["before"]
    assert found == {**there, "lr": pytest.approx(there["lr"])}
    assert found["lr"] < world.job(controller.job)["values"]["lr"]


def test_a_gradient_of_noise_alone_is_measured_too(world: World) -> None:
    """Its noise scale is infinite, which JSON has no number for: the one before is outdated all the same."""
    controller = halfway(world, scaling={"second_moment": "measured"})
    controller.report(metrics((1000, {"noise_scale": 192.0}), (1500, {"noise_scale": None})))
    spec = spec_of(world, controller.job)
    after = Size.of(spec, 5, noise_fraction=1.0, measured=True)
    found = preview(world, controller.job, 5)["after"]
    assert found == values_at(spec, after, 1500, horizon_of(spec))
    assert found["clip_norm"] < 1.0  # unlike where nothing is measured
    assert world.job(controller.job)["noise_scale"] is None


def test_where_noise_is_assumed_a_measurement_changes_nothing(world: World) -> None:
    controller = halfway(world, scaling={"second_moment": "assume_noise"})
    before = preview(world, controller.job, 5)
    controller.report(metrics((1500, {"noise_scale": 192.0})))
    assert preview(world, controller.job, 5) == before


def seen(world: World, *cpus: float, **changes: Any) -> None:
    """The cluster as the reconciler has just seen it: nodes of so many CPUs."""
    nodes = [
        Node(id=f"n{number}", address="::1", alive=True, cpu=cpu, gpu=0, cpu_used=0, gpu_used=0)
        for number, cpu in enumerate(cpus)
    ]
    view = {"connected": True, "seen_at": world.clock(), "nodes": nodes, "queue": []} | changes
    Roster(world.database).write_cluster(ClusterView.model_validate(view))


@pytest.mark.parametrize(
    ("cpus", "room"), [((1, 1.5), "2 workers"), ((1,), "1 worker"), ((0.5, 0.5, 0.5), "no worker")]
)
def test_a_dry_run_says_where_the_cluster_has_no_room(world: World, cpus: tuple[float, ...], room: str) -> None:
    job = halfway(world).job
    codes = preview(world, job, 5)["warnings"]
    seen(world, *cpus)
    sentence = f"The cluster has room for {room} of this job; the others start when nodes join."
    assert preview(world, job, 5)["warnings"] == [*codes, sentence]
    assert preview(world, job, 5, at_samples=3000)["warnings"][-1] == sentence


def test_a_dry_run_says_nothing_of_room_that_there_is_or_is_not_known(world: World) -> None:
    job = halfway(world).job
    codes = preview(world, job, 5)["warnings"]
    seen(world, 3, 2)
    assert preview(world, job, 5)["warnings"] == codes
    seen(world, 1, connected=False)
    assert preview(world, job, 5)["warnings"] == codes
    seen(world, 1)
    world.clock.move(60)
    assert preview(world, job, 5)["warnings"] == codes, "who knows what the cluster is like by now"


def test_a_sample_that_has_passed_means_now(world: World) -> None:
    job = halfway(world).job
    assert preview(world, job, 5, at_samples=10) == preview(world, job, 5)


def test_before_is_the_size_that_trains_whatever_the_limits_are_now(world: World) -> None:
    job = halfway(world).job
    world.http.patch(f"/v1/jobs/{job}", json={"elasticity": {"kappa": [1, 1.5]}})
    found = preview(world, job, 5)
    assert (found["kappa"], found["batch"]) == ([2.0, 1.5], [128, 96])


def test_a_job_without_workers_is_shown_from_its_smallest_size_at_the_peak_of_its_schedule(world: World) -> None:
    job = world.submit(**RICH | {"elasticity": {"workers": [2, 8]}})
    spec = spec_of(world, job)
    found = preview(world, job, 5)
    assert found["workers"] == [2, 5]
    assert found["before"] == values_at(spec, Size.of(spec, 2), 0, None)
    assert found["after"] == values_at(spec, Size.of(spec, 5), 0, None)


def test_holding_the_batch_a_resize_changes_no_value(world: World) -> None:
    found = preview(world, world.submit(elasticity={"workers": [1, 4], "mode": "hold"}), 4)
    assert found["warnings"] == []
    assert found["before"] == found["after"]
    assert (found["batch"], set(found["state_factors"].values())) == ([64, 64], {1.0})


@pytest.mark.parametrize(("at_samples", "kappa"), [(None, 2.0), (3000, 4.0)])
def test_a_plan_holds_kappa_down_at_that_sample(world: World, at_samples: int | None, kappa: float) -> None:
    stages = [{"until": "3 epochs", "kappa_max": 2}, {"until": "100 epochs", "kappa_max": 4}]
    job = halfway(world, elasticity={"workers": [1, 8], "progressive": stages}).job
    assert preview(world, job, 8, at_samples)["kappa"][1] == kappa


@pytest.mark.parametrize(("noise", "kappa"), [(None, 1.0), (192.0, 3.0), (1e9, 8.0)])
def test_in_the_mode_auto_the_noise_holds_kappa_down(world: World, noise: float | None, kappa: float) -> None:
    controller = halfway(world, elasticity={"workers": [1, 8], "mode": "auto"})
    if noise is not None:
        controller.report(metrics((1500, {"noise_scale": noise})))
    assert preview(world, controller.job, 8)["kappa"][1] == kappa


def test_a_size_is_asked_for_at_once(world: World) -> None:
    job = halfway(world).job
    response = ask(world, job, 5)
    assert response.status_code == 200
    assert response.json().items() >= world.job(job).items()
    assert (response.json()["target_workers"], response.json()["workers"]) == (5, 2)


def test_the_workers_follow_when_they_are_there(world: World) -> None:
    controller = halfway(world)
    ask(world, controller.job, 3)
    controller.report(resized(1500, (2, 3)))
    assert (world.job(controller.job)["workers"], world.job(controller.job)["target_workers"]) == (3, 3)


def test_sizes_for_later_wait_in_the_order_of_their_samples(world: World) -> None:
    job = halfway(world).job
    for workers, at_samples in ((4, 4000), (2, 2000), (3, 3000)):
        ask(world, job, workers, at_samples)
    view = world.job(job)
    assert view["target_workers"] is None
    assert [(each["workers"], each["at_samples"]) for each in view["pending_resizes"]] == [
        (2, 2000),
        (3, 3000),
        (4, 4000),
    ]


@pytest.mark.parametrize("at_samples", [0, 1499, 1500])
def test_a_size_for_a_sample_that_has_passed_is_asked_for_at_once(world: World, at_samples: int) -> None:
    job = halfway(world).job
    view = ask(world, job, 5, at_samples).json()
    assert (view["target_workers"], view["pending_resizes"]) == (5, [])


def test_only_so_many_may_wait(world: World) -> None:
    job = world.submit()
    for at_samples in range(1, 101):
        assert ask(world, job, 2, at_samples).status_code == 200
    assert "100" in problem(ask(world, job, 2, 101), 409, "conflict")["detail"]
    assert ask(world, job, 2).status_code == 200


def test_what_was_asked_for_is_taken_back(world: World) -> None:
    job = halfway(world).job
    ask(world, job, 5)
    ask(world, job, 3, 3000)
    response = ask(world, job, None)
    assert response.status_code == 200
    assert response.json().items() >= world.job(job).items()
    assert (response.json()["target_workers"], response.json()["pending_resizes"]) == (None, [])
    (*_, event) = world.get(f"/v1/jobs/{job}/events", type="resize_requested")["items"]
    assert (event["workers"], event["at_samples"]) == (None, None)


def test_where_nothing_was_asked_for_nothing_is_taken_back(world: World) -> None:
    job = halfway(world).job
    before = world.job(job)
    assert ask(world, job, None).json().items() >= before.items()
    assert world.get(f"/v1/jobs/{job}/events", type="resize_requested")["items"] == []


@pytest.mark.parametrize(("cpus", "workers"), [((), 8), ((3, 2), 5), ((1,), 2), ((20,), 8)])
def test_a_dry_run_of_taking_it_back_shows_the_most_that_there_is_room_for(
    world: World, cpus: tuple[float, ...], workers: int
) -> None:
    job = halfway(world, elasticity={"workers": [2, 8]}).job
    ask(world, job, 3)
    if cpus:
        seen(world, *cpus)
    found, same = preview(world, job, None), preview(world, job, workers)
    most = "It may have up to 8 workers again; other jobs may leave room for fewer."
    room = [each for each in found["warnings"] if each.startswith("The cluster has room for")]
    assert (len(room), most in found["warnings"]) == (0 < sum(cpus) < 8, True)
    assert {**found, "warnings": []} == {**same, "warnings": []}


@pytest.mark.parametrize("at_samples", [None, 3000])
@pytest.mark.parametrize("cpus", [(), (1, 2), (5,)])
def test_an_answer_warns_as_a_dry_run_does(world: World, cpus: tuple[float, ...], at_samples: int | None) -> None:
    job = halfway(world).job
    if cpus:
        seen(world, *cpus)
    foreseen = preview(world, job, 5, at_samples)["warnings"]
    answer = ask(world, job, 5, at_samples).json()
    assert answer == world.job(job) | {"warnings": foreseen}
    room = "The cluster has room for 3 workers of this job; the others start when nodes join."
    assert (room in answer["warnings"]) == (cpus == (1, 2))
    taken_back = ask(world, job, None).json()
    assert taken_back["target_workers"] is None
    assert any("up to 8 workers again" in each for each in taken_back["warnings"])


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("body", "pointer", "said"),
    [
        ({"workers": 9}, "/workers", "from 1 to 8"),
        ({"workers": 0}, "/workers", "at least 1"),
        ({}, "/workers", "required"),
        ({"workers": 2, "at_samples": 5000}, "/at_samples", "below 5000"),
        ({"workers": 2, "at_samples": -1}, "/at_samples", "at least 0"),
        ({"workers": 2, "at": 3}, "/at", "at_samples, workers"),
        ({"workers": None, "at_samples": 3000}, "/at_samples", "null where workers is null"),
    ],
)
def test_a_wrong_size_is_named(world: World, body: dict[str, Any], pointer: str, said: str, dry_run: bool) -> None:
    job = halfway(world).job
    before = world.job(job)
    response = world.http.post(f"/v1/jobs/{job}/resize", json=body, params={"dry_run": dry_run})
    found = pointers(response)
    assert list(found) == [pointer]
    assert said in found[pointer]
    assert world.job(job) == before


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_size_that_no_rule_covers_is_refused(world: World, dry_run: bool) -> None:
    radam = {"name": "radam", "lr": 1e-3, "betas": [0.9, 0.99]}
    job = world.submit(optimizer=radam, elasticity={"workers": [1, 60]})
    problem(ask(world, job, 60, dry_run=dry_run), 422, "rectification_lost")
    assert world.job(job)["target_workers"] is None


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("outcome", ["succeeded", "failed", "cancelled"])
def test_a_job_that_has_ended_is_not_resized(world: World, outcome: str, dry_run: bool) -> None:
    controller = halfway(world)
    controller.report(finished(outcome))
    assert outcome in problem(ask(world, controller.job, 3, dry_run=dry_run), 409, "conflict")["detail"]


def test_a_job_that_is_being_cancelled_is_not_resized(world: World) -> None:
    job = halfway(world).job
    world.http.post(f"/v1/jobs/{job}/cancel")
    assert "cancelling" in problem(ask(world, job, 3), 409, "conflict")["detail"]


def test_a_dry_run_of_the_size_that_it_has_changes_nothing(world: World) -> None:
    controller = halfway(world, scaling={"second_moment": "measured"})
    controller.report(metrics((1500, {"noise_scale": 192.0})))
    found = preview(world, controller.job, 2)
    assert found["workers"] == [2, 2]
    assert found["before"] == found["after"] == world.job(controller.job)["values"]
    assert found["warnings"] == []
