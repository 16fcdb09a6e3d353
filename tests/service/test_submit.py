"""Handing in a job: what is taken, what is refused, and how the refusal says where."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
import yaml

from service.db import Database, upsert
from service.tables import RecipeRow
from tests.service.world import World, pointers, problem, spec

SCHEMA = {
    "type": "object",
    "properties": {
        "depth": {"type": "integer", "minimum": 1},
        "widths": {"type": "array", "items": {"type": "number"}},
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
    assert response.headers["location"] == "/v1/jobs/job0001"
    view = response.json()
    assert (view["id"], view["name"], view["workers"], view["kappa"]) == ("job0001", "digits", 0, None)
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
    assert "job0001" in body["detail"]


def test_without_a_key_every_submit_is_a_job(world: World) -> None:
    assert {world.submit(), world.submit()} == {"job0001", "job0002"}


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


BASE = {"workers": [1, 4]}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"optimizer": {"name": "muon", "lr": 1}}, "/optimizer/name", "adamw"),
    ({"optimizer": {"lr": 1}}, "/optimizer/name", "adamw"),
    ({"optimizer": {"name": "adamw"}}, "/optimizer/lr", "required"),
    ({"optimizer": {"name": "adamw", "lr": -1}}, "/optimizer/lr", "greater than 0"),
    ({"optimizer": {"name": "adamw", "lr": 1, "betas": [0.9, 2]}}, "/optimizer/betas/1", "less than 1"),
    ({"optimizer": {"name": "adamw", "lr": 1, "betas": [0.9]}}, "/optimizer/betas/1", "required"),
    ({"optimizer": {"name": "adamw", "lr": 1, "adamw": 1}}, "/optimizer/adamw", "there are: amsgrad, betas"),
    ({"optimizer": 3}, "/optimizer", "object"),
    ({"batch": {"base": 0, "per_worker": 1}}, "/batch/base", "greater than or equal to 1"),
    ({"schedule": {"budget": "50 steps"}}, "/schedule/budget", "epochs"),
    ({"schedule": {"budget": "0 epochs"}}, "/schedule/budget", "longer than 0"),
    ({"schedule": {"budget": "5 epochs", "lr": "linear"}}, "/schedule/lr", "'constant' or 'cosine'"),
    ({"ema": {}}, "/ema", "half_life"),
    ({"ema": {"momentum": 2}}, "/ema/momentum", "less than or equal to 1"),
    ({"elasticity": {"workers": [3, 1]}}, "/elasticity", "must not exceed"),
    ({"elasticity": {"workers": [1]}}, "/elasticity/workers/1", "required"),
    ({"elasticity": BASE | {"mode": "auto"}}, "/elasticity/mode", "'scale' or 'hold'"),
    ({"scaling": {"rule": "linear"}}, "/scaling/rule", "'matched' or 'published'"),
    ({"labels": {"a b": "c"}}, "/labels/a b", "pattern"),
    ({"labels": {"a/b": ""}}, "/labels/a~1b", "pattern"),
    ({"name": ""}, "/name", "at least 1"),
    ({"resources": {"cpu": 0}}, "/resources", "CPU or a GPU"),
    ({"bacth": {}}, "/bacth", "there are: batch"),
]


@pytest.mark.parametrize(("change", "pointer", "allowed"), WRONG, ids=[f"{row[1]}-{row[2]}" for row in WRONG])
def test_a_wrong_field_is_named_with_what_is_allowed(
    world: World, change: dict[str, Any], pointer: str, allowed: str
) -> None:
    found = pointers(post(world, spec(**change)))
    assert list(found) == [pointer]
    assert allowed in found[pointer]


def test_all_wrong_fields_are_named_at_once(world: World) -> None:
    found = pointers(post(world, spec(batch={}, priority=10_000)))
    assert set(found) == {"/batch/base", "/batch/per_worker", "/priority"}


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b"{", "application/json", "Not valid JSON"),
        (b"", "application/json", "Not valid JSON"),
        (b'{"seed": NaN}', "application/json", "Not valid JSON"),
        (b"[" * 100_000, "application/json", "recursion limit"),
        (b'{"name": "\\ud800"}', "application/json", "Not valid JSON"),
        (b"a: [1", "application/yaml", "line 1"),
        (b"a: &x 1\nb: *x", "application/yaml", "aliases are not allowed"),
        (b"a: !!python/object:os.system {}", "application/yaml", "Not valid YAML"),
        (b"[" * 5_000, "application/yaml", "Not valid YAML"),
        (b"\xff\xfe\x00", "application/yaml", "Not valid YAML"),
        (b"a: .inf", "application/yaml", "Not valid JSON"),
        (json.dumps(spec()).encode(), "text/plain", "application/yaml"),
        (json.dumps(spec()).encode(), "", "application/yaml"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(world: World, content: bytes, kind: str, said: str) -> None:
    response = world.http.post("/v1/jobs", content=content, headers={"Content-Type": kind})
    assert said in pointers(response)[""]


@pytest.mark.parametrize("content", [b"[]", b'"text"', b"3", b"null"])
def test_a_body_must_be_an_object(world: World, content: bytes) -> None:
    assert "" in pointers(world.http.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"}))


def test_a_body_that_is_too_large_is_refused(world: World) -> None:
    large = b" " * (world.settings.max_body_bytes + 1)
    response = world.http.post("/v1/jobs", content=large, headers={"Content-Type": "application/json"})
    assert str(world.settings.max_body_bytes) in problem(response, 413, "payload_too_large")["detail"]


def test_a_body_that_hides_its_size_is_counted(world: World) -> None:
    chunks = (b" " * 2**16 for _ in range(17))
    response = world.http.post("/v1/jobs", content=chunks, headers={"Content-Type": "application/json"})
    problem(response, 413, "payload_too_large")


@pytest.mark.parametrize("key", ["", "k" * 256])
def test_a_key_has_a_length(world: World, key: str) -> None:
    assert list(pointers(post(world, spec(), **{"Idempotency-Key": key}))) == ["/idempotency-key"]


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
        ({"depth": 1, "width": 2}, "/recipe/config", "width"),
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


def test_a_dry_run_checks_the_recipe_too(world: World) -> None:
    catalogue(world.database, "byol")
    response = world.http.post("/v1/jobs", json=spec(recipe={"name": "x"}), params={"dry_run": True})
    pointers(response, "unknown_recipe")


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
