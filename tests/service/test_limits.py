"""What is too large is refused cleanly, over a real socket too, and whoever sent it can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.client import HTTPConnection

import httpx
import pytest

from tests.service.world import World, pointers, problem, spec

MIB = 2**20
JSON = {"Content-Type": "application/json"}


def pieces(size: int) -> Iterator[bytes]:
    """A body without a length: it is sent in chunks, until the service has enough."""
    for _ in range(size // MIB):
        yield b" " * MIB


@pytest.mark.parametrize("content", [b" " * (10 * MIB), None], ids=["with its length", "in chunks"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/jobs"), ("POST", "/v1/tokens"), ("POST", "/v1/scaling/preview")]
)
def test_a_body_of_ten_megabytes_is_refused(
    world: World, wire: httpx.Client, content: bytes | None, method: str, path: str
) -> None:  # fmt: skip
    response = wire.request(method, path, content=content or pieces(10 * MIB), headers=JSON)
    assert "1048576 bytes" in problem(response, 413, "payload_too_large")["detail"]
    assert wire.get("/healthz").status_code == 200
    assert world.get("/v1/jobs")["items"] == []


def test_chunks_are_counted_to_the_byte(world: World, wire: httpx.Client) -> None:
    limit = world.settings.max_body_bytes
    body = b'{"priority": 3}'
    path = f"/v1/jobs/{world.submit()}"
    fits = iter([body, b" " * (limit - len(body))])
    assert wire.patch(path, content=fits, headers=JSON).json()["spec"]["priority"] == 3
    too_much = iter([body, b" " * (limit - len(body)), b" "])
    problem(wire.patch(path, content=too_much, headers=JSON), 413, "payload_too_large")


def test_ten_thousand_labels_are_refused(world: World) -> None:
    labels = {f"label{number}": "x" for number in range(10_000)}
    assert list(pointers(world.http.post("/v1/jobs", json=spec(labels=labels)))) == ["/labels"]
    job = world.submit()
    assert list(pointers(world.http.patch(f"/v1/jobs/{job}", json={"labels": labels}))) == ["/labels"]
    assert world.job(job)["spec"]["labels"] == {}


@pytest.mark.parametrize("kind", ["artifacts", "checkpoints"])
def test_a_path_that_leads_out_of_the_job_is_refused(world: World, wire: httpx.Client, kind: str) -> None:
    job = world.submit()
    world.store(job, "secret", b"mine")
    for path in ("../secret", "..%2fsecret", "%2e%2e/secret", "x/../../secret"):
        connection = HTTPConnection(wire.base_url.host, wire.base_url.port)  # as it is: httpx would tidy it up
        connection.request("GET", f"/v1/jobs/{job}/{kind}/{path}")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (404, "not_found"), path
        connection.close()
