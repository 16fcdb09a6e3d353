"""openapi.json, and the page made of it: whole, and of use to whoever reads it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from api_schemas.jobs import JobSpec
from service.reference import page
from tests.service.world import World, spec

PROBLEM = "#/components/schemas/Problem"


@pytest.fixture
def document(world: World) -> dict[str, Any]:
    return world.get("/openapi.json")


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
        assert "422" not in operation["responses"], (method, path)


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
    assert world.get("/openapi.json") == document


def test_the_page_shows_every_operation(world: World, document: dict[str, Any]) -> None:
    response = world.http.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    shown = re.findall(r"<h2><code>(\w+) (.+?)</code></h2>", response.text)
    assert shown == [(method.upper(), path) for method, path, _ in operations(document)]


def test_the_page_loads_nothing_and_runs_nothing(world: World) -> None:
    html = world.http.get("/docs").text
    assert re.findall(r'(?:src|href)="(.*?)"', html) == ["/openapi.json"]
    assert "<script" not in html
    assert "://" not in html


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
