"""openapi.json, and the page made of it: whole, and of use to whoever reads it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api_schemas.jobs import JobSpec
from service.app import create_app
from service.db import Database, connect
from service.reference import page
from service.settings import Settings
from tests.service.world import Clock, World, spec

PROBLEM = "#/components/schemas/Problem"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    app = create_app(Settings(data_folder=Path()), Database(connect("sqlite://"), Clock()))
    made: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return made


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    if isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_endpoint_is_described(document: dict[str, Any]) -> None:
    assert {(method.upper(), path.removeprefix("/v1")) for method, path, _ in operations(document)} == {
        ("POST", "/jobs"),
        ("GET", "/jobs"),
        ("GET", "/jobs/{job_id}"),
        ("PATCH", "/jobs/{job_id}"),
        ("DELETE", "/jobs/{job_id}"),
        ("POST", "/jobs/{job_id}/resize"),
        ("POST", "/jobs/{job_id}/pause"),
        ("POST", "/jobs/{job_id}/resume"),
        ("POST", "/jobs/{job_id}/cancel"),
        ("GET", "/jobs/{job_id}/events"),
        ("GET", "/jobs/{job_id}/metrics"),
        ("GET", "/jobs/{job_id}/resizes"),
        ("GET", "/jobs/{job_id}/ledger"),
        ("GET", "/jobs/{job_id}/logs"),
        ("GET", "/jobs/{job_id}/checkpoints"),
        ("GET", "/jobs/{job_id}/checkpoints/{path}"),
        ("GET", "/jobs/{job_id}/artifacts"),
        ("GET", "/jobs/{job_id}/artifacts/{path}"),
        ("POST", "/scaling/preview"),
        ("GET", "/recipes"),
        ("GET", "/recipes/{name}"),
        ("GET", "/cluster"),
        ("POST", "/tokens"),
        ("GET", "/tokens"),
        ("DELETE", "/tokens/{token_id}"),
        ("GET", "/session"),
        ("POST", "/session"),
        ("DELETE", "/session"),
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
    }
    assert all(operation["description"] for _, _, operation in operations(document))


def test_every_failure_is_described_as_a_problem(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        content = operation["responses"]["default"]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": PROBLEM}}}, (method, path)
        for status, answer in operation["responses"].items():
            assert status < "4" or answer["content"] == content, (method, path)


def test_every_body_is_described(document: dict[str, Any]) -> None:
    bodies = {
        (method, path): operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        for method, path, operation in operations(document)
        if "requestBody" in operation
    }
    assert bodies == {
        ("post", "/v1/jobs"): "JobSpec-Input",
        ("patch", "/v1/jobs/{job_id}"): "JobPatch-Input",
        ("post", "/v1/jobs/{job_id}/resize"): "ResizeRequest-Input",
        ("post", "/v1/scaling/preview"): "ScalingPreviewRequest-Input",
        ("post", "/v1/tokens"): "TokenRequest-Input",
    }
    bare = {"pause", "resume", "cancel", "session"}
    for method, path, _ in operations(document):
        assert method not in ("post", "patch") or (method, path) in bodies or path.rpartition("/")[2] in bare


def test_every_success_says_what_it_holds(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, answer in operation["responses"].items():
            if status in ("200", "201", "206"):
                assert answer["content"], (method, path)
                assert all(media["schema"] for media in answer["content"].values()), (method, path)


@pytest.mark.parametrize(
    ("path", "message"),
    [("/v1/jobs", "JobChanges"), ("/v1/cluster", "ClusterChanges"), ("/v1/jobs/{job_id}/events", "Event")],
)
def test_the_messages_of_streams_are_described(document: dict[str, Any], path: str, message: str) -> None:
    media = document["paths"][path]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert media["schema"]["contentSchema"] == {"$ref": f"#/components/schemas/{message}"}


@pytest.mark.parametrize(
    ("method", "path", "failures"),
    [
        ("post", "/v1/jobs", {400, 401, 403, 409, 413, 415, 422, 503}),
        ("get", "/v1/jobs", {401, 403, 422, 503}),
        ("get", "/v1/jobs/{job_id}", {401, 403, 404, 422, 503}),
        ("post", "/v1/jobs/{job_id}/cancel", {401, 403, 404, 409, 422, 503}),
        ("get", "/v1/jobs/{job_id}/artifacts/{path}", {401, 403, 404, 412, 416, 422, 503}),
        ("get", "/healthz", {403}),
        ("get", "/readyz", {403, 503}),
    ],
)
def test_failures_are_named_where_they_can_happen(
    document: dict[str, Any], method: str, path: str, failures: set[int]
) -> None:
    responses = document["paths"][path][method]["responses"]
    assert {int(status) for status in responses if status.startswith(("4", "5"))} == failures


def test_every_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (method, path, parameter["name"])


def test_every_field_of_every_schema_says_what_it_is(document: dict[str, Any]) -> None:
    """By itself, or by the one schema that it refers to."""
    schemas = document["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema.get("description") or name == "Point" or name.startswith("Page_"), name
        for field, part in schema.get("properties", {}).items():
            target = schemas.get(part.get("$ref", "").rpartition("/")[2], {})
            assert part.get("description") or target.get("description") or field == "type", (name, field)


def test_no_schema_is_left_over(document: dict[str, Any]) -> None:
    used = {reference.rpartition("/")[2] for reference in references(document)}
    assert set(document["components"]["schemas"]) == used


def test_summaries_are_plain_text(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert operation["summary"] == operation["summary"].strip(" .")
        assert "`" not in operation["summary"]


def test_what_needs_a_token_says_so_and_how_it_is_refused(document: dict[str, Any]) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    scopes = {}
    for method, path, operation in operations(document):
        scopes[method, path] = [scope for needs in operation.get("security", []) for scope in needs.get("bearer", [])]
        for status in ("401", "403") if scopes[method, path] else ():
            content = operation["responses"][status]["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": PROBLEM}}}, (method, path)
    assert {operation for operation, needs in scopes.items() if not needs} == {
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("delete", "/v1/session"),
    }
    assert scopes["get", "/v1/jobs"] == ["read"]
    assert scopes["post", "/v1/jobs"] == ["submit"]
    assert scopes["post", "/v1/tokens"] == ["admin"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 20
    for reference in found:
        reduce(lambda inner, step: inner[step], reference.removeprefix("#/").split("/"), document)


def test_the_described_body_is_the_one_that_is_read(document: dict[str, Any]) -> None:
    content = document["paths"]["/v1/jobs"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/yaml"}
    for media in content.values():
        validator = Draft202012Validator(media["schema"] | {"components": document["components"]})
        assert validator.is_valid(spec())
        assert validator.is_valid(JobSpec.model_validate(spec()).model_dump(mode="json"))
        assert not validator.is_valid(spec(bacth={}))
        assert not validator.is_valid(spec(optimizer={"name": "adamw"}))


@pytest.mark.parametrize(
    ("path", "method", "body"),
    [
        ("/v1/jobs/{job_id}", "patch", {"elasticity": {"workers": [1, 2]}, "priority": 3}),
        ("/v1/jobs/{job_id}/resize", "post", {"workers": 3, "at_samples": 100}),
        ("/v1/scaling/preview", "post", {"optimizer": {"name": "sgd", "lr": 0.1}, "kappas": [1, 2]}),
        ("/v1/tokens", "post", {"name": "mine", "scope": "submit", "expires": "90d"}),
    ],
)
def test_the_other_bodies_too(document: dict[str, Any], path: str, method: str, body: dict[str, Any]) -> None:
    schema = document["paths"][path][method]["requestBody"]["content"]["application/json"]["schema"]
    validator = Draft202012Validator(schema | {"components": document["components"]})
    assert validator.is_valid(body)
    assert not validator.is_valid(body | {"nonsense": 1})


def test_a_view_is_as_it_is_described(world: World, document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/JobView", "components": document["components"]}
    Draft202012Validator(schema).validate(world.job(world.run(labels={"team": "vision"}).job))


def test_asked_twice_it_is_the_same(world: World, document: dict[str, Any]) -> None:
    assert world.get("/openapi.json") == document == world.get("/openapi.json")


def test_the_page_shows_every_operation(world: World, document: dict[str, Any]) -> None:
    response = world.http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    shown = re.findall(r"<h2><code>(\w+) (.+?)</code></h2>", response.text)
    assert shown == [(method.upper(), path) for method, path, _ in operations(document)]


def test_the_page_loads_nothing_and_runs_nothing(world: World) -> None:
    html = world.http.get("/docs").text
    assert re.findall(r'(?:src|href)="([^#].*?)"', html) == ["/openapi.json"]
    assert not re.search(r"<(script|link|img|iframe)", html)


def test_the_page_leads_to_every_schema_and_shows_code_as_code(world: World, document: dict[str, Any]) -> None:
    html = world.http.get("/docs").text
    anchors = re.findall(r'id="(.*?)"', html)
    assert set(re.findall(r'href="#(.*?)"', html)) <= set(anchors)
    assert set(anchors) == {*document["components"]["schemas"], "schemas"}
    assert "`" not in html


def test_the_page_shows_bodies_answers_and_types(world: World) -> None:
    html = world.http.get("/docs").text
    resize = html.partition("/resize</code></h2>")[2].partition("<h2>")[0]
    body = '<a href="#ResizeRequest-Input">ResizeRequest-Input</a>'
    assert f"Body: {body}, as application/json or application/yaml." in resize
    assert "<li><code>dry_run</code> (query, boolean, default <code>false</code>) Only say" in resize
    assert '<li>200: <a href="#ResizeAnswer">ResizeAnswer</a> or <a href="#ResizePreview">' in resize
    assert "<li>409: The job&#x27;s status does not allow it.</li>" in resize
    fields = html.partition('<h3 id="ResizeRequest-Input">')[2].partition("<h3")[0]
    assert "<li><code>workers</code> (integer, 1 to 10000 or null, required) How many" in fields


def test_the_pages_own_style_is_all_that_its_policy_allows(world: World) -> None:
    response = world.http.get("/docs")
    (style,) = re.findall("<style>(.*?)</style>", response.text)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = response.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}';" in policy
    assert "unsafe" not in policy


def test_the_page_shows_text_as_text() -> None:
    operation = {"description": "<b>&", "parameters": [{"name": "<i>", "in": "query", "description": "</ul>"}]}
    html = page({"info": {"title": "<x>"}, "paths": {"/<p>": {"get": operation}}})
    assert not re.search(r"<b>|<i>|<x>|<p>[^<]*</code>", html)
    assert "&lt;b&gt;&amp;" in html
    assert html.count("</ul>") == 1
