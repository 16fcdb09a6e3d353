"""Handing in a job: what is taken, what is refused, and how the refusal says where."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import yaml

from service.db import Database, upsert
from service.roster import Roster
from service.tables import RecipeRow
from tests.service.world import World, pointers, problem, spec

SCHEMA = {
    "type": "object",
    "properties": {
        "depth": {"type": "integer", "minimum": 1},
        "widths": {"type": "array", "items": {"type": "number"}},
        "size": {"anyOf": [{"type": "integer", "minimum": 100}, {"type": "null"}]},
        "shape": {"anyOf": [{"type": "integer"}, {"type": "array"}]},
        "start": {"type": "string", "pattern": "^\\d+ epochs$", "examples": ["5 epochs", "7 epochs"]},
    },
    "required": ["depth"],
    "additionalProperties": False,
}


def catalogue(database: Database, *names: str) -> None:
    rows = [{"name": name, "summary": "s", "config_schema": SCHEMA} for name in names]
    with database.writing() as session:
        upsert(session, RecipeRow, rows)


def post(world: World, body: Any, **headers: str) -> httpx.Response:
    return world.http.post("/v1/jobs", json=body, headers=headers)


def test_a_job_is_taken(world: World) -> None:
    response = post(world, spec(labels={"team": "vision"}, priority=3))
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/jobs/1k1fg9wpnmr00001"
    view = response.json()
    assert (view["id"], view["name"], view["workers"], view["kappa"]) == ("1k1fg9wpnmr00001", "digits", 0, None)
    assert view["status"] == {
        "phase": "queued",
        "since": "2026-01-01T12:00:00Z",
        "code": "submitted",
        "message": "Waiting for workers.",
        "traceback": None,
        "log_tail": [],
    }
    assert view["spec"]["scaling"]["second_moment"] == "measured"  # chosen at submit
    assert world.http.get(response.headers["location"]).json() == view


def test_yaml_is_taken_too(world: World) -> None:
    text = yaml.safe_dump(spec()).replace("0.001", "1e-3")
    response = world.http.post("/v1/jobs", content=text, headers={"Content-Type": "application/yaml"})
    assert response.status_code == 201
    assert response.json()["spec"]["optimizer"]["lr"] == 0.001


def test_the_same_key_and_spec_are_the_same_job(world: World) -> None:
    first = post(world, spec(), **{"Idempotency-Key": "k"})
    again = post(world, spec(seed=0), **{"Idempotency-Key": "k"})  # the default, spelled out
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert len(world.http.get("/v1/jobs").json()["items"]) == 1


def test_the_same_key_for_another_spec_is_refused(world: World) -> None:
    post(world, spec(), **{"Idempotency-Key": "k"})
    body = problem(post(world, spec(seed=1), **{"Idempotency-Key": "k"}), 409, "conflict")
    assert "1k1fg9wpnmr00001" in body["detail"]


def test_a_key_stands_for_what_was_sent_whatever_became_of_the_job(world: World) -> None:
    catalogue(world.database, "byol")
    body = spec(recipe={"name": "byol", "config": {"depth": 1}})
    job = post(world, body, **{"Idempotency-Key": "k"}).json()["id"]
    world.http.patch(f"/v1/jobs/{job}", json={"priority": 7})
    Roster(world.database).write_recipes([])
    catalogue(world.database, "classify")
    again = post(world, body, **{"Idempotency-Key": "k"})
    assert (again.status_code, again.json()) == (200, world.job(job))


def test_the_key_of_a_deleted_job_is_free_again(world: World) -> None:
    first = post(world, spec(), **{"Idempotency-Key": "k"}).json()["id"]
    world.http.post(f"/v1/jobs/{first}/cancel")
    world.http.delete(f"/v1/jobs/{first}")
    response = post(world, spec(seed=1), **{"Idempotency-Key": "k"})
    assert (response.status_code, response.json()["id"] == first) == (201, False)


def test_a_dry_run_does_not_use_up_a_key(world: World) -> None:
    headers = {"Idempotency-Key": "k"}
    world.http.post("/v1/jobs", json=spec(), headers=headers, params={"dry_run": True})
    assert post(world, spec(seed=1), **headers).status_code == 201


def test_at_once_from_many_sides_a_key_is_still_one_job(world: World) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(world, spec(), **{"Idempotency-Key": "k"}), range(16)))
    assert sorted(answer.status_code for answer in answers) == [200] * 15 + [201]
    assert len({answer.json()["id"] for answer in answers}) == len(world.get("/v1/jobs")["items"]) == 1


def test_without_a_key_every_submit_is_a_job(world: World) -> None:
    assert {world.submit(), world.submit()} == {"1k1fg9wpnmr00001", "1k1fg9wpnmr00002"}


def test_a_dry_run_shows_every_size_and_stores_nothing(world: World) -> None:
    response = world.http.post("/v1/jobs", json=spec(), params={"dry_run": True})
    assert response.status_code == 200
    preview = response.json()
    assert preview["spec"]["scaling"]["second_moment"] == "measured"
    assert [(size["workers"], size["batch"], size["kappa"]) for size in preview["sizes"]] == [
        (1, 64, 1.0),
        (2, 128, 2.0),
        (3, 192, 3.0),
        (4, 256, 4.0),
    ]
    assert preview["sizes"][3]["values"]["lr"] == pytest.approx(2e-3)
    assert world.http.get("/v1/jobs").json() == {"items": [], "next": None}


def test_a_dry_run_of_many_sizes_is_thinned(world: World) -> None:
    body = spec(elasticity={"workers": [1, 1000]})
    sizes = world.http.post("/v1/jobs", json=body, params={"dry_run": True}).json()["sizes"]
    assert (len(sizes), sizes[0]["workers"], sizes[-1]["workers"]) == (16, 1, 1000)


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_length(world: World, key: str) -> None:
    assert list(pointers(post(world, spec(), **{"Idempotency-Key": key}))) == ["Idempotency-Key"]


def test_a_mistyped_parameter_submits_nothing(world: World) -> None:
    assert list(pointers(world.http.post("/v1/jobs", json=spec(), params={"dryrun": True}))) == ["?dryrun"]
    assert world.http.get("/v1/jobs").json()["items"] == []


def test_an_unknown_recipe_names_the_catalogue(world: World) -> None:
    catalogue(world.database, "byol", "classify")
    found = pointers(post(world, spec(recipe={"name": "simclr"})), "unknown_recipe")
    assert "byol, classify" in found["/recipe/name"]


def test_with_an_empty_catalogue_the_workers_have_to_check(world: World) -> None:
    assert post(world, spec(recipe={"name": "simclr"})).status_code == 201


def test_a_recipe_of_an_own_package_is_for_the_workers_to_check(world: World) -> None:
    catalogue(world.database, "byol")
    assert post(world, spec(recipe={"name": "mine.package:Task", "config": {"x": 1}})).status_code == 201


@pytest.mark.parametrize(
    ("config", "pointer", "said"),
    [
        ({}, "/recipe/config", "depth"),
        ({"depth": 0}, "/recipe/config/depth", "minimum"),
        ({"depth": "x" * 1000}, "/recipe/config/depth", "..."),
        ({"depth": 1, "widths": [1, "a"]}, "/recipe/config/widths/1", "number"),
        (
            {"depth": 1, "width": 2},
            "/recipe/config",
            "'width' was unexpected); there are: depth, shape, size, start, widths.",
        ),
        ({"depth": 1, "size": 50}, "/recipe/config/size", "50 is less than the minimum of 100."),
        ({"depth": 1, "shape": "x"}, "/recipe/config/shape", "'x' is not valid under any"),
        ({"depth": 1, "start": "5"}, "/recipe/config/start", "Must read as '5 epochs' or '7 epochs', not '5'."),
    ],
)
def test_a_recipes_config_is_checked_by_its_schema(
    world: World, config: dict[str, Any], pointer: str, said: str
) -> None:
    catalogue(world.database, "byol")
    found = pointers(post(world, spec(recipe={"name": "byol", "config": config})))
    assert list(found) == [pointer]
    assert said in found[pointer]
    assert len(found[pointer]) < 400


def test_a_config_is_checked_where_the_rest_is_wrong_too(world: World) -> None:
    catalogue(world.database, "byol")
    body = spec(recipe={"name": "byol", "config": {"depth": 0}}, priority=5000, batch={"base": 0, "per_worker": 64})
    assert set(pointers(post(world, body))) == {"/priority", "/batch/base", "/recipe/config/depth"}


def test_an_unknown_recipe_is_told_where_the_rest_is_wrong_too(world: World) -> None:
    catalogue(world.database, "byol", "classify")
    found = pointers(post(world, spec(recipe={"name": "simclr"}, priority=5000)))
    assert found.keys() == {"/priority", "/recipe/name"}
    assert "byol, classify" in found["/recipe/name"]


@pytest.mark.parametrize(("ema", "told"), [(None, {"/ema"}), ({}, {"/ema"}), ({"momentum": 0.99}, set())])
def test_a_missing_ema_is_told_where_the_rest_is_wrong_too(world: World, ema: Any, told: set[str]) -> None:
    row = {"name": "byol", "summary": "s", "config_schema": SCHEMA, "needs_ema": True}
    with world.database.writing() as session:
        upsert(session, RecipeRow, [row])
    body = spec(recipe={"name": "byol", "config": {"depth": 0}}, ema=ema, priority=5000)
    response = post(world, body)
    assert pointers(response).keys() == {"/priority", "/recipe/config/depth"} | told
    assert len(response.json()["errors"]) == 2 + len(told), "an EMA that is wrong is told once"


@pytest.mark.parametrize("recipe", [None, 1, {}, {"name": 5}, {"name": "nobody"}])
def test_a_recipe_that_is_none_is_told_as_that_alone(world: World, recipe: Any) -> None:
    catalogue(world.database, "byol")
    found = pointers(post(world, spec(recipe=recipe, priority=5000)))
    assert all(pointer.startswith(("/priority", "/recipe")) for pointer in found)


def test_of_very_many_errors_in_a_config_the_first_are_named(world: World) -> None:
    catalogue(world.database, "byol")
    config = {"depth": 1, "widths": ["wide"] * 60}
    assert len(pointers(post(world, spec(recipe={"name": "byol", "config": config})))) == 50


def test_a_dry_run_checks_the_recipe_too(world: World) -> None:
    catalogue(world.database, "byol")
    response = world.http.post("/v1/jobs", json=spec(recipe={"name": "x"}), params={"dry_run": True})
    pointers(response, "unknown_recipe")


def test_a_recipe_that_learns_from_the_ema_is_refused_without_one(world: World) -> None:
    row = {"name": "byol", "summary": "s", "config_schema": SCHEMA, "needs_ema": True}
    with world.database.writing() as session:
        upsert(session, RecipeRow, [row])
    body = spec(recipe={"name": "byol", "config": {"depth": 1}})
    found = pointers(post(world, body), "invalid_request")
    assert found == {"/ema": "Recipe 'byol' learns from a teacher, the EMA: give the job one, as {momentum: 0.99}."}
    response = world.http.post("/v1/jobs", json=body, params={"dry_run": True})
    assert pointers(response, "invalid_request").keys() == {"/ema"}
    both = pointers(post(world, spec(recipe={"name": "byol", "config": {"depth": 0}})), "invalid_request")
    assert both.keys() == {"/recipe/config/depth", "/ema"}
    assert post(world, body | {"ema": {"momentum": 0.99}}).status_code == 201


RADAM = {"name": "radam", "lr": 1e-3, "betas": [0.9, 0.99]}  # refused where beta2^kappa <= 2/3: from kappa = 41 on


def test_a_spec_without_any_size_that_can_be_scaled_is_refused(world: World) -> None:
    body = spec(optimizer=RADAM, elasticity={"workers": [50, 60]})
    assert "Adam" in problem(post(world, body), 422, "rectification_lost")["detail"]
    assert world.http.get("/v1/jobs").json()["items"] == []


def test_a_size_that_cannot_be_scaled_is_shown_where_others_can(world: World) -> None:
    body = spec(optimizer=RADAM, elasticity={"workers": [1, 60]})
    sizes = world.http.post("/v1/jobs", json=body, params={"dry_run": True}).json()["sizes"]
    assert (sizes[0]["error"], sizes[-1]["error"], sizes[-1]["values"]) == (None, "rectification_lost", {})
    assert post(world, body).status_code == 201
