"""Every failure is a problem that says what is wrong, whoever refuses: a handler, a dependency or the framework."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
from anyio.from_thread import BlockingPortal
from sqlalchemy import text

from service.app import create_app
from tests.service.world import ADDRESS, InProcess, World, finished, pointers, problem, spec

BODIES: dict[str, Any] = {
    "/v1/jobs": spec(),
    "/v1/jobs/{job_id}": {"priority": 7},
    "/v1/jobs/{job_id}/resize": {"workers": 2},
    "/v1/scaling/preview": {"optimizer": {"name": "sgd", "lr": 0.1}, "kappas": [1]},
}


def operations(world: World) -> list[tuple[str, str]]:
    """Every method and path below /v1."""
    paths = world.get("/openapi.json")["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods if path.startswith("/v1")]


def test_no_operation_takes_a_parameter_that_it_does_not_know(world: World) -> None:
    controller = world.run()
    world.store(controller.job, "artifacts/x")
    controller.report(finished("succeeded"))
    before = world.get("/v1/jobs")
    for method, path in operations(world):
        address = path.replace("{job_id}", controller.job).replace("{path}", "x")
        body = BODIES.get(path) if method in ("post", "patch") else None
        response = world.http.request(method, address, params={"nonsense": 1}, json=body)
        assert pointers(response) == {"?nonsense": "There is no such parameter."}, (method, path)
    assert world.get("/v1/jobs") == before


@pytest.mark.parametrize(
    "path", ["/index.html", "/v1", "/v1/nothing", "/v1/jobs/x/nothing", "/v2/jobs", "/redoc", "/static/x"]
)
def test_an_unknown_address_is_not_found(world: World, path: str) -> None:
    assert path in problem(world.http.get(path), 404, "not_found")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/jobs/x", {"GET", "PATCH", "DELETE"}),
        ("DELETE", "/v1/jobs", {"GET", "POST"}),
        ("GET", "/v1/jobs/x/cancel", {"POST"}),
        ("POST", "/v1/jobs/x/events", {"GET"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
    ],
)
def test_a_method_that_an_address_does_not_have(world: World, method: str, path: str, allowed: set[str]) -> None:
    response = world.http.request(method, path)
    body = problem(response, 405, "method_not_allowed")
    assert body["detail"] == f"There is no {method} {path}; allowed there: {response.headers['allow']}."
    assert set(response.headers["allow"].split(", ")) == allowed


def test_a_stream_has_one_method_too(world: World) -> None:
    response = world.http.post("/v1/jobs/x/events", headers={"Accept": "text/event-stream"})
    problem(response, 405, "method_not_allowed")


def test_a_body_that_is_too_large_is_refused_wherever_a_body_is_read(world: World) -> None:
    job = world.submit()
    large = b'{"labels": {"a": "%s"}}' % (b"x" * world.settings.max_body_bytes)
    for method, path in operations(world):
        if path in BODIES and method in ("post", "patch"):
            headers = {"Content-Type": "application/json"}
            response = world.http.request(method, path.replace("{job_id}", job), content=large, headers=headers)
            problem(response, 413, "payload_too_large")


def test_a_body_of_just_the_size_is_read(world: World) -> None:
    body = b'{"priority": 3}'
    padded = body + b" " * (world.settings.max_body_bytes - len(body))
    address = f"/v1/jobs/{world.submit()}"
    response = world.http.patch(address, content=padded, headers={"Content-Type": "application/json"})
    assert response.json()["spec"]["priority"] == 3


def test_an_id_that_is_too_long_names_itself(world: World) -> None:
    assert list(pointers(world.http.get(f"/v1/jobs/{'x' * 33}"))) == ["/job_id"]


def test_what_breaks_inside_is_said_without_its_insides(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with world.database.engine.begin() as connection:
        connection.execute(text("ALTER TABLE job RENAME TO gone"))
    response = world.http.get("/v1/jobs")
    body = problem(response, 500, "internal_error")
    assert "job" not in body["detail"]
    (record,) = [record for record in caplog.records if vars(record).get("action") == "request_failed"]
    assert vars(record)["request_id"] == body["request_id"]
    assert "FROM job" in record.getMessage()


def test_a_client_that_hangs_up_while_it_sends_is_no_failure_of_the_service(
    world: World, portal: BlockingPortal, caplog: pytest.LogCaptureFixture
) -> None:
    coming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b'{"name": ', "more_body": True},
        {"type": "http.disconnect"},
    ]
    answered: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        answered.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": headers}
    portal.call(create_app(world.settings, world.database), scope, receive, send)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
    assert answered == []


def test_every_answer_has_a_request_id_of_its_own(world: World) -> None:
    ids = {world.http.get("/healthz").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_request_ids_are_the_services_own(world: World, portal: BlockingPortal) -> None:
    """One that a client chose could forge lines of the log."""
    app = create_app(world.settings, world.database, new_request_id=lambda: "r1")
    with httpx.Client(transport=InProcess(app, portal), base_url=ADDRESS) as http:
        assert http.get("/healthz", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "r1"
        assert http.get("/nothing").json()["request_id"] == "r1"


def test_several_wrong_parameters_are_named_at_once(world: World) -> None:
    found = pointers(world.http.get("/v1/jobs", params={"limit": 0, "status": "asleep", "x": 1}))
    assert set(found) == {"?limit", "?status", "?x"}
    response = world.http.get(f"/v1/jobs/{world.submit()}", params={"x": 1, "y": 2})
    assert set(pointers(response)) == {"?x", "?y"}
    assert response.status_code == httpx.codes.UNPROCESSABLE_ENTITY
