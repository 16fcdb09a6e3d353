"""Looking at jobs, changing them, stopping them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.db import lock
from service.tables import Job
from tests.service.world import World, committed, finished, metrics, pointers, problem, spec, started


def ids(world: World, **params: Any) -> list[str]:
    response = world.http.get("/v1/jobs", params=params)
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()["items"]]


def test_jobs_are_listed_newest_first_in_pages(world: World) -> None:
    jobs = [world.submit() for _ in range(5)]
    first = world.http.get("/v1/jobs", params={"limit": 2}).json()
    second = world.http.get("/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = world.http.get("/v1/jobs", params={"limit": 2, "after": second["next"]}).json()
    pages = [[row["id"] for row in page["items"]] for page in (first, second, third)]
    assert pages == [[jobs[4], jobs[3]], [jobs[2], jobs[1]], [jobs[0]]]
    assert third["next"] is None


def test_a_page_that_holds_the_rest_leads_nowhere(world: World) -> None:
    jobs = [world.submit() for _ in range(4)]
    first = world.get("/v1/jobs", limit=2)
    assert world.get("/v1/jobs", limit=2, after=first["next"])["next"] is None
    assert world.get("/v1/jobs", limit=4)["next"] is None
    assert ids(world, limit=2, after=first["next"]) == [jobs[1], jobs[0]]


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/tokens"])
@pytest.mark.parametrize("after", ["", "garbage", "000", "1k1fg9wpnmrsdbzu", "1k1fg9wpnmrsdbz3\n"])
def test_a_cursor_that_is_none_is_refused(world: World, path: str, after: str) -> None:
    """Whoever pages with a broken one would get the first page for ever."""
    errors = problem(world.http.get(path, params={"after": after}), 422, "invalid_request")["errors"]
    assert errors == [{"pointer": "?after", "message": "Must be a cursor as it came from this service."}]


def test_a_page_stays_where_it_is_when_jobs_come(world: World) -> None:
    old = [world.submit() for _ in range(3)]
    after = world.http.get("/v1/jobs", params={"limit": 1}).json()["next"]
    world.submit()
    assert ids(world, after=after) == [old[1], old[0]]


def test_jobs_are_filtered(world: World) -> None:
    one = world.submit(name="one", labels={"team": "vision", "a/b.c": "x"})
    two = world.run(name="two", recipe={"name": "other:Recipe"}).job
    assert ids(world, status="running") == [two]
    assert ids(world, status=["queued", "running"]) == [two, one]
    assert ids(world, recipe="other:Recipe") == [two]
    assert ids(world, name="one") == [one]
    assert ids(world, name="t*") == [two]
    assert ids(world, name="*") == [two, one]
    assert ids(world, name="_ne*") == ids(world, name="on") == []
    assert ids(world, label="team=vision") == ids(world, label="a/b.c:x") == [one]
    assert ids(world, label=["team=vision", "a/b.c=y"]) == []
    assert ids(world, label="team=sound") == []


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"limit": 0}, "?limit"),
        ({"limit": 201}, "?limit"),
        ({"limit": "many"}, "?limit"),
        ({"status": "asleep"}, "?status"),
        ({"label": "team"}, "?label"),
        ({"label": 'te"am=vision'}, "?label"),
        ({"label": "\0=vision"}, "?label"),
        ({"label": "=vision"}, "?label"),
        ({"statuss": "queued"}, "?statuss"),
    ],
)
def test_a_wrong_filter_is_named(world: World, params: dict[str, Any], pointer: str) -> None:
    world.submit(labels={"team": "vision"})
    assert list(pointers(world.http.get("/v1/jobs", params=params))) == [pointer]


def test_rows_are_light(world: World) -> None:
    controller = world.run()
    controller.report(committed(0, 500), finished("failed", traceback="Traceback", log_tail=["last"]))
    (row,) = world.http.get("/v1/jobs").json()["items"]
    assert not {"spec", "values", "evaluation"} & row.keys()
    assert (row["status"]["traceback"], row["status"]["log_tail"]) == (None, [])
    assert row["progress"] == {"samples": 500, "total_samples": 5000, "epoch": 0.5, "eta_s": None}


def test_a_view_tells_what_trains(world: World) -> None:
    controller = world.run(priority=2)
    controller.report(metrics((64, {"lr": 0.05, "noise_scale": 100.0})))
    view = world.job(controller.job)
    assert (view["workers"], view["kappa"], view["batch"], view["generation"]) == (2, 2.0, 128, 1)
    assert view["values"] == {"lr": 0.05, "betas": [0.9, 0.99]}
    assert view["noise_scale"] == 100.0
    assert (view["spec"]["priority"], view["target_workers"], view["pending_resizes"]) == (2, None, [])


def test_the_time_that_is_left_follows_the_rate(world: World) -> None:
    controller = world.run()
    assert world.job(controller.job)["progress"]["eta_s"] is None
    world.clock.move(10)
    controller.report(committed(0, 1000))
    assert world.job(controller.job)["progress"]["eta_s"] == pytest.approx(40)


def test_polling_an_unchanged_job_is_answered_without_a_body(world: World) -> None:
    controller = world.run()
    address = f"/v1/jobs/{controller.job}"
    first = world.http.get(address)
    again = world.http.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    controller.report(committed(0, 64))
    changed = world.http.get(address, headers={"If-None-Match": first.headers["etag"]})
    assert (changed.status_code, changed.json()["progress"]["samples"]) == (200, 64)
    assert changed.headers["etag"] != first.headers["etag"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("DELETE", ""),
        ("POST", "/cancel"),
        ("POST", "/resize"),
        ("POST", "/resize?dry_run=true"),
        ("GET", "/events"),
        ("GET", "/metrics"),
        ("GET", "/resizes"),
        ("GET", "/ledger"),
        ("GET", "/logs"),
        ("GET", "/checkpoints"),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/x"),
    ],
)
def test_a_job_that_does_not_exist_is_not_found(world: World, method: str, path: str) -> None:
    body = {"POST": {"workers": 1}, "PATCH": {"priority": 1}}.get(method)
    response = world.http.request(method, f"/v1/jobs/nobody{path}", json=body)
    assert "'nobody'" in problem(response, 404, "not_found")["detail"]


def test_polling_a_job_that_does_not_exist_is_not_found(world: World) -> None:
    problem(world.http.get("/v1/jobs/nobody", headers={"If-None-Match": '"1"'}), 404, "not_found")


def test_what_may_change_live_changes(world: World) -> None:
    job = world.submit(labels={"team": "vision"})
    change = {"elasticity": {"workers": [2, 8], "kappa": [1, 6]}, "priority": 7, "labels": {"team": "sound"}}
    response = world.http.patch(f"/v1/jobs/{job}", json=change)
    assert response.status_code == 200
    new = response.json()["spec"]
    assert (new["elasticity"]["workers"], new["elasticity"]["kappa"]) == ([2, 8], [1.0, 6.0])
    assert (new["priority"], new["labels"]) == (7, {"team": "sound"})
    assert response.json() == world.job(job)
    assert ids(world, label="team=sound") == [job]
    assert response.json()["revision"] == 2


def test_a_patch_tells_what_it_changed(world: World) -> None:
    job = world.submit(labels={"team": "vision"})
    change = {"elasticity": {"workers": [1, 4], "kappa": [1, 6]}, "priority": 7, "labels": {}}
    world.http.patch(f"/v1/jobs/{job}", json=change)
    (event,) = world.get(f"/v1/jobs/{job}/events", type="updated")["items"]
    assert event["changes"] == {
        "elasticity.kappa": [[0.001, 10_000.0], [1.0, 6.0]],
        "priority": [0, 7],
        "labels": [{"team": "vision"}, {}],
    }
    assert (event["incarnation"], event["sequence"]) == (0, 2)


@pytest.mark.parametrize("change", [{}, {"priority": 0}, {"elasticity": {"workers": [1, 4]}, "labels": {}}])
def test_a_patch_that_changes_nothing_tells_nothing(world: World, change: dict[str, Any]) -> None:
    job = world.submit()
    before = world.job(job)
    assert world.http.patch(f"/v1/jobs/{job}", json=change).json() == before
    assert world.get(f"/v1/jobs/{job}/events", type="updated")["items"] == []


def test_what_only_a_dry_run_tells_is_worked_out_there_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("service.previews._before_noise", lambda spec: told.append(spec.name) or [])
    job = world.submit()
    assert world.http.patch(f"/v1/jobs/{job}", json={"priority": 7}).status_code == 200
    assert told == []
    assert world.http.post("/v1/jobs", json=spec(), params={"dry_run": True}).status_code == 200
    assert told == ["digits"]


def test_a_patch_that_is_refused_tells_nothing(world: World) -> None:
    job = world.submit()
    pointers(world.http.patch(f"/v1/jobs/{job}", json={"priority": 7, "elasticity": {"kappa": [2, 1]}}))
    assert world.get(f"/v1/jobs/{job}/events", type="updated")["items"] == []


def test_a_patch_of_a_job_as_it_was_seen(world: World) -> None:
    address = f"/v1/jobs/{world.submit()}"
    seen = world.http.get(address).headers["etag"]
    first = world.http.patch(address, json={"priority": 1}, headers={"If-Match": f'"other", {seen}'})
    assert (first.status_code, first.headers["etag"]) == (200, world.http.get(address).headers["etag"])
    late = world.http.patch(address, json={"priority": 2}, headers={"If-Match": seen})
    assert "look at it again" in problem(late, 412, "precondition_failed")["detail"]
    assert world.http.get(address).json()["spec"]["priority"] == 1
    for header in (first.headers["etag"], "*"):
        assert world.http.patch(address, json={"priority": 3}, headers={"If-Match": header}).status_code == 200


def test_of_several_who_change_what_they_saw_one_does(world: World) -> None:
    address = f"/v1/jobs/{world.submit()}"
    seen = {"If-Match": world.http.get(address).headers["etag"]}
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(lambda number: world.http.patch(address, json={"priority": number}, headers=seen), range(1, 5))
        )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


def test_a_patch_leaves_the_rest(world: World) -> None:
    job = world.submit(elasticity={"workers": [1, 4], "kappa": [1, 4], "mode": "hold"}, labels={"team": "vision"})
    before = world.job(job)["spec"]
    after = world.http.patch(f"/v1/jobs/{job}", json={"elasticity": {"workers": [1, 2]}}).json()["spec"]
    assert after == before | {"elasticity": before["elasticity"] | {"workers": [1, 2]}}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"optimizer": {"lr": 1}}, "/optimizer"),
        ({"elasticity": {"mode": "hold"}}, "/elasticity/mode"),
    ],
)
def test_what_may_not_change_live_says_what_may(world: World, change: dict[str, Any], pointer: str) -> None:
    found = pointers(world.http.patch(f"/v1/jobs/{world.submit()}", json=change))
    assert list(found) == [pointer]
    assert "elasticity.workers, elasticity.kappa, priority and labels" in found[pointer]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"elasticity": {"workers": [0, 2]}}, "/elasticity/workers/0"),
        ({"elasticity": {"workers": [3, 2]}}, "/elasticity/workers"),
        ({"elasticity": {"kappa": [2, 1]}}, "/elasticity/kappa"),
        ({"priority": 1001}, "/priority"),
        ({"labels": {"a": "b c"}}, "/labels/a"),
    ],
)
def test_the_changed_spec_is_checked_whole(world: World, change: dict[str, Any], pointer: str) -> None:
    job = world.submit()
    before = world.job(job)
    assert list(pointers(world.http.patch(f"/v1/jobs/{job}", json=change))) == [pointer]
    assert world.job(job) == before


def test_sizes_that_were_asked_for_stay_within_new_limits(world: World) -> None:
    job = world.submit()
    world.http.post(f"/v1/jobs/{job}/resize", json={"workers": 4})
    world.http.post(f"/v1/jobs/{job}/resize", json={"workers": 3, "at_samples": 100})
    view = world.http.patch(f"/v1/jobs/{job}", json={"elasticity": {"workers": [1, 2]}}).json()
    assert view["target_workers"] == 2
    assert view["pending_resizes"] == [{"workers": 2, "at_samples": 100}]


def test_of_an_ended_job_only_the_labels_change(world: World) -> None:
    controller = world.run()
    controller.report(finished("succeeded"))
    address = f"/v1/jobs/{controller.job}"
    assert world.http.patch(address, json={"labels": {"kept": "yes"}}).status_code == 200
    assert "succeeded" in problem(world.http.patch(address, json={"priority": 1}), 409, "conflict")["detail"]


def test_a_queued_job_is_cancelled_at_once(world: World) -> None:
    job = world.submit()
    view = world.http.post(f"/v1/jobs/{job}/cancel").json()
    assert (view["status"]["phase"], view["status"]["code"]) == ("cancelled", "cancel_requested")
    events = world.http.get(f"/v1/jobs/{job}/events").json()["items"]
    assert (events[-1]["type"], events[-1]["phase"]) == ("phase", "cancelled")


def test_a_job_that_trains_is_cancelled_by_its_workers(world: World) -> None:
    controller = world.run()
    view = world.http.post(f"/v1/jobs/{controller.job}/cancel").json()
    assert view["status"]["phase"] == "cancelling"
    controller.report(finished("cancelled"))
    assert world.job(controller.job)["status"]["phase"] == "cancelled"


@pytest.mark.parametrize("train", [True, False])
def test_cancelling_again_changes_nothing(world: World, train: bool) -> None:
    job = world.run().job if train else world.submit()
    first = world.http.post(f"/v1/jobs/{job}/cancel").json()
    again = world.http.post(f"/v1/jobs/{job}/cancel")
    assert (again.status_code, again.json()) == (200, first)


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
def test_an_ended_job_cannot_be_cancelled(world: World, outcome: str) -> None:
    controller = world.run()
    controller.report(finished(outcome))
    body = problem(world.http.post(f"/v1/jobs/{controller.job}/cancel"), 409, "conflict")
    assert outcome in body["detail"]


def test_an_ended_job_is_deleted_with_its_storage(world: World) -> None:
    controller = world.run()
    with world.database.reading() as session:
        folder = Path(session.get_one(Job, controller.job).storage)
    (folder / "checkpoints" / "1").mkdir(parents=True)
    (folder / "checkpoints" / "1" / "manifest.json").write_text("{}")
    controller.report(committed(0, 64), metrics((64, {"loss": 1.0})), finished("succeeded"))
    assert world.http.delete(f"/v1/jobs/{controller.job}").status_code == 204
    assert not folder.exists()
    problem(world.http.get(f"/v1/jobs/{controller.job}"), 404, "not_found")
    problem(world.http.delete(f"/v1/jobs/{controller.job}"), 404, "not_found")


def test_a_job_that_lives_is_not_deleted(world: World) -> None:
    job = world.submit()
    assert "queued" in problem(world.http.delete(f"/v1/jobs/{job}"), 409, "conflict")["detail"]
    assert world.job(job)["status"]["phase"] == "queued"


def test_a_job_whose_storage_does_not_answer_stays(world: World) -> None:
    controller = world.run()
    controller.report(finished("succeeded"))
    with world.database.writing() as session:
        job = lock(session, Job, controller.job)
        assert job is not None
        job.storage = "nowhere://bucket"
    problem(world.http.delete(f"/v1/jobs/{controller.job}"), 503, "unavailable")
    assert world.job(controller.job)["status"]["phase"] == "succeeded"


def test_of_jobs_that_are_cancelled_at_once_from_many_sides_each_ends_once(world: World) -> None:
    job = world.submit()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: world.http.post(f"/v1/jobs/{job}/cancel"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    phases = [event["phase"] for event in world.get(f"/v1/jobs/{job}/events")["items"] if event["type"] == "phase"]
    assert phases == ["cancelled"]


def test_changes_from_many_sides_are_all_kept(world: World) -> None:
    job = world.submit(elasticity={"workers": [1, 4], "kappa": [1, 4]})
    changes = [
        {"priority": 3},
        {"labels": {"a": "b"}},
        {"elasticity": {"workers": [2, 4]}},
        {"elasticity": {"kappa": [1, 2]}},
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda change: world.http.patch(f"/v1/jobs/{job}", json=change), changes))
    new = world.job(job)["spec"]
    assert (new["priority"], new["labels"]) == (3, {"a": "b"})
    assert (new["elasticity"]["workers"], new["elasticity"]["kappa"]) == ([2, 4], [1, 2])


def test_a_failure_is_shown_with_its_traceback(world: World) -> None:
    controller = world.run()
    controller.report(finished("failed", code="recipe_raised", traceback="Traceback ...", log_tail=["a", "b"]))
    status = world.job(controller.job)["status"]
    assert (status["code"], status["traceback"], status["log_tail"]) == ("recipe_raised", "Traceback ...", ["a", "b"])


def test_a_restored_job_shows_where_it_goes_on(world: World) -> None:
    controller = world.run()
    controller.report({"type": "rollback", "to_samples": 0}, started(samples=640))
    assert world.job(controller.job)["progress"]["samples"] == 640


def test_the_spec_comes_back_as_it_was_given(world: World) -> None:
    body = spec(schedule={"budget": "5 epochs", "warmup": "640 samples", "lr": "cosine"}, clip={"norm": 1.0})
    given = world.http.post("/v1/jobs", json=body).json()["spec"]
    assert given["schedule"] == body["schedule"]
    assert world.http.post("/v1/jobs", json=given).json()["spec"] == given
